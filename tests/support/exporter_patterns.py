"""Find the patterns that exporters write, in a source model that has been sorted and named but not rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from amct_onnx.files.read import read_model
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.normalise.container import normalise_container

PATTERNS = {
    "P1": "float weight → Q → DQ, activation Q → DQ",
    "P2": "scale or zero point behind Identity or Cast",
    "P3": "Clip between an activation's Q and DQ",
    "P4": "layer → Div → BatchNormalization",
    "P5": "layer → BatchNormalization",
    "P6": "integer weight → DQ",
    "P7": "Clip in front of a weight's DQ",
    "P8": "MatMul with a Transpose behind the weight's DQ",
    "P9": "other 3-D linears: MatMul with DQ alone, Reshape → MatMul or Gemm → Reshape",
    "P10": "Q → DQ between MatMul and its bias Add",
    "P11": "bias Add of an int32 DQ behind MatMul",
    "P12": "data movement between DQ and layer",
    "P13": "data movement or Cast between Q and DQ",
    "P14": "DQ → Q back to back",
    "P15": "one quantized tensor read by a layer and another operator",
    "P16": "ConvTranspose",
    "P17": "Relu only as the Q's saturation",
    "P18": "Gemm, transB 0 or 1",
    "P19": "one weight DQ read directly and through Transpose",
    "P20": "scale computed by arithmetic",
    "P21": "Q → DQ at a graph output",
    "P22": "foreign fake-quant nodes",
    "FOLD": "float weight without Q/DQ, activation quantized",
    "QOP": "QOperator layer",
}
"""Label -> what it looks like."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QLINEAR = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger")
Q, DQ = "QuantizeLinear", "DequantizeLinear"
MOVES = (
    "MaxPool",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Relu",
    "Clip",
    "Concat",
    "Slice",
    "Split",
    "Pad",
    "Resize",
)
REARRANGED = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")
DEFAULT_DOMAINS = ("", "ai.onnx", "com.microsoft")


def _is(node: ir.Node | None, *kinds: str) -> bool:
    return node is not None and node.op_type in kinds and node.domain in DEFAULT_DOMAINS


def _up(value: ir.Value | None, through: tuple[str, ...]) -> tuple[ir.Node | None, list[ir.Node]]:
    """The first producer of another kind, and the nodes passed."""
    passed = []
    node = value.producer() if value is not None else None
    while node is not None and _is(node, *through) and node.inputs[0] is not None:
        passed.append(node)
        node = node.inputs[0].producer()
    return node, passed


def _readers(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses()]


class Patterns:
    """The patterns of one model."""

    def __init__(self, path: Path) -> None:
        self.model = normalise_container(read_model(path))
        self.constants = ConstantEvaluator(self.model.opset_imports[""])
        self.nodes = list(ir.traversal.RecursiveGraphIterator(self.model.graph))
        self.layers = [n for n in self.nodes if _is(n, *LAYERS)]
        self.pairs = [n for n in self.nodes if _is(n, DQ) and not self.constants.is_constant(n.outputs[0])]

    def find(self, label: str) -> tuple[list[str], list[str]]:
        """Names of the layers, and of the quantized float tensors, on which a pattern is found."""
        on_layers: dict[str, Callable[[ir.Node], bool]] = {
            "P1": self._fake_quant_weight,
            "P2": lambda n: any(self._factor_made_by(dq, "Identity", "Cast") for dq in self._dequantizers(n)),
            "P3": lambda n: any(_is(m, "Clip") for m in self._between(self._activation_pair(n))),
            "P4": lambda n: [f.op_type for f in _followers(n, 2)] == ["Div", "BatchNormalization"],
            "P5": lambda n: [f.op_type for f in _followers(n, 1)] == ["BatchNormalization"],
            "P6": lambda n: self._weight_quantize(n) is None and self._weight_pair(n) is not None,
            "P7": lambda n: any(_is(m, "Clip") for m in self._between(self._weight_pair(n))),
            "P8": lambda n: _is(n, "MatMul") and any(m.op_type == "Transpose" for m in self._weight_chain(n)),
            "P9": self._other_linear,
            "P10": lambda n: _is(n, "MatMul") and [f.op_type for f in _followers(n, 3)] == [Q, DQ, "Add"],
            "P11": self._int32_bias_add,
            "P12": lambda n: bool(_up(n.inputs[0], MOVES)[1]) and _is(_up(n.inputs[0], MOVES)[0], DQ),
            "P15": self._shared_input,
            "P16": lambda n: _is(n, "ConvTranspose"),
            "P18": lambda n: _is(n, "Gemm") and self._weight_pair(n) is not None,
            "P19": self._tied,
            "P20": lambda n: any(self._factor_made_by(dq, "Div", "Max", "Min", "Mul") for dq in self._dequantizers(n)),
            "P22": lambda n: self._foreign(),
            "FOLD": self._folded,
        }
        on_pairs: dict[str, Callable[[ir.Node], bool]] = {
            "P13": lambda dq: any(_is(m, *MOVES, "Cast") and not _is(m, "Clip") for m in self._between(dq)),
            "P14": lambda dq: any(_is(r, Q) for r in _readers(dq.outputs[0])),
            "P17": self._saturating,
            "P21": lambda dq: _reaches_output(dq.outputs[0]),
        }
        if label == "QOP":
            return [n.name or "" for n in self.nodes if n.op_type in QLINEAR], []
        if label in on_layers:
            return [n.name or "" for n in self.layers if on_layers[label](n)], []
        return [], list(dict.fromkeys(self._tensors(dq for dq in self.pairs if on_pairs[label](dq))))

    # -- parts of a layer ------------------------------------------------------------------------------------------

    def _tensors(self, pairs: Iterable[ir.Node]) -> Iterator[str]:
        for dq in pairs:
            quantize = self._quantize_of(dq)
            if quantize is not None and quantize.inputs[0] is not None:
                yield quantize.inputs[0].name or ""

    def _quantize_of(self, dq: ir.Node | None) -> ir.Node | None:
        if dq is None:
            return None
        node, _ = _up(dq.inputs[0], (*MOVES, "Cast", "Identity"))
        return node if _is(node, Q) else None

    def _between(self, dq: ir.Node | None) -> list[ir.Node]:
        return [] if dq is None else _up(dq.inputs[0], (*MOVES, "Cast", "Identity"))[1]

    def _activation_pair(self, layer: ir.Node) -> ir.Node | None:
        node, _ = _up(layer.inputs[0], MOVES)
        return node if _is(node, DQ) else None

    def _weight_pair(self, layer: ir.Node) -> ir.Node | None:
        node, _ = _up(layer.inputs[1], REARRANGED)
        return node if _is(node, DQ) and self.constants.is_constant(layer.inputs[1]) else None

    def _weight_chain(self, layer: ir.Node) -> list[ir.Node]:
        return _up(layer.inputs[1], REARRANGED)[1] if self._weight_pair(layer) is not None else []

    def _weight_quantize(self, layer: ir.Node) -> ir.Node | None:
        return self._quantize_of(self._weight_pair(layer))

    def _dequantizers(self, layer: ir.Node) -> list[ir.Node]:
        found = [self._activation_pair(layer), self._weight_pair(layer)]
        return [n for dq in found if dq is not None for n in (dq, self._quantize_of(dq)) if n is not None]

    def _factor_made_by(self, node: ir.Node, *kinds: str) -> bool:
        return any(v is not None and _is(v.producer(), *kinds) for v in node.inputs[1:3])

    # -- patterns that need more than an expression ----------------------------------------------------------------

    def _fake_quant_weight(self, layer: ir.Node) -> bool:
        direct = self._weight_quantize(layer) is not None and not self._weight_chain(layer)
        return direct and layer.inputs[0] is not None and _is(layer.inputs[0].producer(), DQ)

    def _other_linear(self, layer: ir.Node) -> bool:
        if self._weight_pair(layer) is None and not self._folded(layer):
            return False
        behind = _followers(layer, 1)
        reshaped = _is(layer.inputs[0].producer() if layer.inputs[0] else None, "Reshape") and bool(behind)
        if _is(layer, "Gemm", "MatMul") and reshaped and behind[0].op_type == "Reshape":
            return True
        return _is(layer, "MatMul") and not self._weight_chain(layer)

    def _int32_bias_add(self, layer: ir.Node) -> bool:
        behind = _followers(layer, 1)
        if not _is(layer, "MatMul") or not behind or not _is(behind[0], "Add"):
            return False
        others = [v.producer() for v in behind[0].inputs if v is not None and v is not layer.outputs[0]]
        return any(
            _is(n, DQ) and n is not None and np.asarray(self.constants.array(n.inputs[0])).dtype == np.int32
            for n in others
            if n is not None and n.inputs[0] is not None and self.constants.is_constant(n.inputs[0])
        )

    def _shared_input(self, layer: ir.Node) -> bool:
        dq = layer.inputs[0].producer() if layer.inputs[0] is not None else None
        quantize = self._quantize_of(dq)
        if quantize is None:
            return False
        pairs = [r for r in _readers(quantize.outputs[0]) if _is(r, DQ)]
        return any(not _is(r, *LAYERS) for pair in pairs for r in _readers(pair.outputs[0]))

    def _tied(self, layer: ir.Node) -> bool:
        dq = self._weight_pair(layer)
        kinds = {r.op_type for r in _readers(dq.outputs[0])} if dq is not None else set()
        return "Transpose" in kinds and bool(kinds & set(LAYERS))

    def _foreign(self) -> bool:
        return any(n.domain not in ("", "ai.onnx") for n in self.nodes)

    def _folded(self, layer: ir.Node) -> bool:
        constant = self.constants.is_constant(layer.inputs[1])
        return constant and self._weight_pair(layer) is None and self._activation_pair(layer) is not None

    def _saturating(self, dq: ir.Node) -> bool:
        """A layer's result quantized with its zero point at the low end: what is below zero becomes zero."""
        quantize = self._quantize_of(dq)
        if quantize is None or len(quantize.inputs) < 3 or quantize.inputs[2] is None:
            return False
        source = quantize.inputs[0]
        producer = source.producer() if source is not None else None
        if not _is(producer, *LAYERS, "Add", "BatchNormalization") or not self.constants.is_constant(
            quantize.inputs[2]
        ):
            return False
        zero = np.asarray(self.constants.array(quantize.inputs[2]))
        return bool(np.all(zero == np.iinfo(zero.dtype).min)) if zero.dtype.kind in "iu" else False


def _followers(layer: ir.Node, count: int) -> list[ir.Node]:
    """The only readers behind a node, up to ``count``."""
    found: list[ir.Node] = []
    while len(found) < count:
        readers = _readers(layer.outputs[0])
        if len(readers) != 1:
            break
        layer = readers[0]
        found.append(layer)
    return found


def _reaches_output(value: ir.Value) -> bool:
    stack = [value]
    while stack:
        current = stack.pop()
        if current.is_graph_output():
            return True
        stack.extend(o for n in _readers(current) if _is(n, *MOVES, "Identity") for o in n.outputs)
    return False
