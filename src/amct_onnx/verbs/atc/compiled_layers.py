"""What became of every layer in the compiled model: int8, fused with what, or back to float."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec

from amct_onnx.common.compiled_names import CompiledNames
from amct_onnx.common.plain_text import shown
from amct_onnx.common.shown_report import ShownReport
from amct_onnx.common.typed_json import ContentError, decode, read_bounded
from amct_onnx.errors import ModelFileError
from amct_onnx.verbs.atc.compiled_graph import CompiledOperator, read_compiled_graph
from amct_onnx.verbs.check.load import load_for_check
from amct_onnx.verbs.check.model_view import ModelView

SCHEMA_VERSION = 1
Intended = Literal["int8", "float"]
Compiled = Literal["int8", "float", "not found"]
INT8, FLOAT, MISSING = get_args(Compiled)
"""States of a layer in the deploy model and in the compiled model."""
DEPLOY_END, LEDGER_END = "deploy_model.onnx", "quant.json"
INTEGERS = ("DT_INT8", "DT_INT4", "DT_UINT8")
QUANTIZERS = (
    "AscendQuant",
    "AscendDequant",
    "AscendAntiQuant",
    "AscendRequant",
    "AscendDequantS16",
    "AscendRequantS16",
    "AscendQuantV2",
    "Quantize",
)
"""Operators of the compiled graph that convert between float and integers, or rescale integers."""
PRODUCT_WORDS = ("conv", "matmul", "fullyconnection", "gemm", "pooling", "avgpool")
"""In the types of operators that compute a layer, in small letters: Conv2D, BatchMatMulV2, QuantBatchMatmulV3, ..."""


@dataclass(frozen=True)
class CompiledLayer:
    """One layer of the deploy model.

    Attributes:
        name: of the node.
        op_type: of ONNX.
        intended: "int8" or "float", what the deploy model says.
        compiled: "int8", "float" or "not found".
        operators: names of the compiled operators that compute it.
        types: their types.
        fused_with: other nodes of the file that the same operators stand for, also its own AscendDequant.
        detail: one sentence.
    """

    name: str
    op_type: str
    intended: Intended
    compiled: Compiled
    operators: tuple[str, ...]
    types: tuple[str, ...]
    fused_with: tuple[str, ...]
    detail: str

    @property
    def as_intended(self) -> bool:
        """Whether an int8 layer really is int8."""
        return bool(self.intended == FLOAT or self.compiled == INT8)


@dataclass(frozen=True, repr=False)
class CompiledReport(ShownReport):
    """All layers of one model, and the quantizers that the compiled graph holds.

    Attributes:
        om_json: file that was read.
        deploy_model: file of the deploy model.
        ledger: file of the ledger; None when the layers are those of the deploy model itself.
        layers: see CompiledLayer, in the order of the model.
        quantizers: how many operators of each quantizing type are in the compiled graph.
    """

    SCHEMA_VERSION = SCHEMA_VERSION
    SCREEN = "amct_onnx.verbs.atc.compiled_screen"
    JSON_ALSO = ("passed", "summary")

    om_json: str
    deploy_model: str
    ledger: str | None
    layers: tuple[CompiledLayer, ...]
    quantizers: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether every int8 layer really is int8."""
        return all(layer.as_intended for layer in self.layers)

    def summary(self) -> str:
        """One line: how many layers are int8, and the quantizers left."""
        intended = [layer for layer in self.layers if layer.intended == INT8]
        states = Counter(layer.compiled for layer in intended)
        parts = [f"{states[INT8]} of {len(intended)} int8 layers are int8 in the compiled model"]
        parts += [f"{states[s]} {text}" for s, text in ((FLOAT, "back to float"), (MISSING, "not found")) if states[s]]
        left = ", ".join(f"{n} {t}" for t, n in self.quantizers.items()) or "none"
        return f"{'; '.join(parts)}. Quantizing operators left: {left}."


class _LedgerLayer(msgspec.Struct, frozen=True):
    name: str
    op_type: str
    verdict: str


class _Ledger(msgspec.Struct, frozen=True):
    layers: tuple[_LedgerLayer, ...] = ()


@dataclass(frozen=True)
class _Intended:
    """A layer as the deploy model has it."""

    name: str
    op_type: str
    state: Intended


def compiled_layers(om_json: str | os.PathLike[str], deploy_model: str | os.PathLike[str]) -> CompiledReport:
    """Look every layer of a deploy model up in the graph that ATC built of it.

    The layers are those of the ledger beside the model (``..._quant.json``); without one, the int8 layers of the model.

    Args:
        om_json: what ``atc --mode=1 --om=x.om --json=x.json`` wrote.
        deploy_model: the model that was compiled.

    Raises:
        ModelNotFoundError: A file is missing.
        ModelFileError: A file is not what it must be.
    """
    model, _ = load_for_check(deploy_model)
    view = ModelView(model)
    path = Path(deploy_model)
    ledger = path.with_name(path.name.removesuffix(DEPLOY_END) + LEDGER_END)
    intended = _of_ledger(ledger) if path.name.endswith(DEPLOY_END) and ledger.is_file() else ()
    source = str(ledger) if intended else None
    intended = intended or tuple(_of_model(view))
    operators = read_compiled_graph(om_json)
    return CompiledReport(
        os.fspath(om_json),
        os.fspath(deploy_model),
        source,
        tuple(_matched(intended, operators)),
        _quantizers(operators),
    )


def _of_ledger(path: Path) -> tuple[_Intended, ...]:
    """The ledger's layers; none when the file is the vendor's, which has no such list."""
    try:
        layers = decode(read_bounded(path), _Ledger).layers
    except (OSError, ContentError) as error:
        raise ModelFileError(f"{path}: not a ledger ({shown(str(error))}). Convert the source again.") from error
    return tuple(_Intended(e.name, e.op_type, INT8 if e.verdict == "converted" else FLOAT) for e in layers)


def _of_model(view: ModelView) -> Iterable[_Intended]:
    for layer in view.layers:
        yield _Intended(view.names[layer.node], layer.node.op_type, INT8)


def _matched(intended: tuple[_Intended, ...], operators: tuple[CompiledOperator, ...]) -> Iterable[CompiledLayer]:
    names = CompiledNames(layer.name for layer in intended)
    found: dict[str, list[CompiledOperator]] = {}
    for operator in operators:
        layers = {names.layer(n) for n in (*operator.originals, operator.name)}
        for name in layers - {None}:
            assert name is not None
            found.setdefault(name, []).append(operator)
    for layer in intended:
        yield _compiled(layer, [o for o in found.get(layer.name, ()) if _computes(o)])


def _computes(operator: CompiledOperator) -> bool:
    """Whether an operator computes sums of products, and does not merely carry the layer's name."""
    return any(word in operator.type.lower() for word in PRODUCT_WORDS)


def _is_int8(operator: CompiledOperator) -> bool:
    """Whether it reads integers: an activation and a weight, or a pooling's one input.

    Conv2DTranspose has the size of its result as first input, so the two are looked for among the first three.
    """
    integers = sum(kind in INTEGERS for kind in operator.input_types[:3])
    return integers >= (1 if "pool" in operator.type.lower() else 2)


def _compiled(layer: _Intended, operators: list[CompiledOperator]) -> CompiledLayer:
    if not operators:
        state, detail = MISSING, "no operator of the compiled model carries its name"
    elif all(_is_int8(o) for o in operators):
        state, detail = INT8, "its operator reads int8"
    else:
        state = FLOAT
        kinds = next(o.input_types for o in operators if not _is_int8(o))
        detail = f"its operator reads {', '.join(kinds[:2]) or 'an unknown type'}"
        if layer.state == INT8:
            detail += ": the compiler rolled the quantization back"
    others = dict.fromkeys(n for o in operators for n in o.originals if n != layer.name)
    return CompiledLayer(
        layer.name,
        layer.op_type,
        layer.state,
        state,
        tuple(o.name for o in operators),
        tuple(o.type for o in operators),
        tuple(others),
        detail,
    )


def _quantizers(operators: Iterable[CompiledOperator]) -> dict[str, int]:
    found = Counter(o.type for o in operators)
    return {kind: found[kind] for kind in QUANTIZERS if found[kind]}
