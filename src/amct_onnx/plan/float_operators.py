"""Operators that a quantizer reaches and that stay float: nothing that was quantized goes without a line in the ledger.

Those that multiply by weights, and those that this program does not know, are layers with a refusal. The others read
quantized numbers as floats: each costs a dequantization in front of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import known_as, main_output, stands_for, users_tensor
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.needs import MEASURES
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.graph.reasons import Reason
from amct_onnx.graph.refused import noted_form, noted_refusal
from amct_onnx.graph.unknown_quantizers import fact_of
from amct_onnx.plan.grids import CONDITIONAL, Grids
from amct_onnx.plan.ledger import REFUSED, FloatOperator, LayerEntry

RECURRENT = ("LSTM", "GRU", "RNN")
SILENT = MEASURES | frozenset("Constant ConstantOfShape If Loop Scan SequenceMap".split())
"""They read no numbers, or their bodies' operators are listed one by one."""
TABLES = tuple(ir.DataType[kind] for kind in ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"))
KEEP_FLOAT = "Leave the operator out of those that the exporter quantizes."


class QuantizedReaders:
    """Nodes that read what a quantizer of the model made.

    Args:
        grids: of the model.
        constants: of the model.
    """

    def __init__(self, grids: Grids, constants: ConstantEvaluator) -> None:
        self._grids, self._constants = grids, constants

    def refused_layers(self, nodes: Iterable[ir.Node]) -> Iterator[LayerEntry]:
        """Recurrent layers, products written as Einsum, and operators outside of the specification."""
        for node in nodes:
            what = _why_refused(node)
            if what is None:
                continue
            read, note, table = self._read(node), noted_refusal(node), self._table(node)
            reason, detail = what
            if read is not None:
                detail = f"{detail}; it reads the quantized '{read.name}'"
            elif note is not None:
                detail = f"{detail}; {note.detail}"
            elif fact_of(node) or table is not None:
                detail = f"{detail}; it {fact_of(node) or f'reads the integers {_named(table)}'}"
            else:
                continue
            yield LayerEntry(
                name=known_as(node),
                op_type=node.op_type,
                verdict=REFUSED,
                reason=reason,
                detail=detail,
                remedy=KEEP_FLOAT,
                source_output=main_output(node.outputs).name or "",
            )

    def _table(self, node: ir.Node) -> ir.Value | None:
        """The first constant of 8 bits or fewer that an operator outside of the specification reads."""
        if node.domain in ("", "ai.onnx"):
            return None
        return next(
            (v for v in node.inputs if v is not None and v.dtype in TABLES and self._constants.is_constant(v)), None
        )

    def others(self, nodes: Iterable[ir.Node], told: Collection[str], kept: Collection[str]) -> Iterator[FloatOperator]:
        """The other operators that get rounded numbers, or a dequantized constant.

        Left out are those that only select elements, and those that the ledger names elsewhere.

        Nodes that stand for one of the user's file are one row under its name.

        Args:
            nodes: of the model.
            told: names of layers and of what they absorb.
            kept: tensors that a pair rounds in the outputs.
        """
        listed, rounded = set(told), dict.fromkeys(kept, True)
        for node in nodes:
            name, op_type = stands_for(node)
            if not listed.isdisjoint((node.name or "", name)) or is_op(node, QUANTIZE, DEQUANTIZE):
                continue
            read = self._read(node, rounded)
            moves = node.domain == "" and (node.op_type in CONDITIONAL or bool(data_inputs(node)))
            if node.op_type in SILENT or read is None or (moves and not self._constants.is_constant(read)):
                continue
            listed.add(name)
            yield FloatOperator(name, op_type, users_tensor(read).name or "")

    def _read(self, node: ir.Node, rounded: dict[str, bool] | None = None) -> ir.Value | None:
        """The first input that a quantizer made; None where there is none, or the node computes a constant.

        Args:
            node: any.
            rounded: see ``_is_rounded``; None to ask for the source.
        """
        if all(v is None or self._constants.is_constant(v) for v in node.inputs):
            return None
        quantized = (v for v in node.inputs if v is not None and self._is_quantized(v))
        return next((v for v in quantized if rounded is None or self._is_rounded(v, rounded)), None)

    def _is_rounded(self, value: ir.Value, rounded: dict[str, bool]) -> bool:
        """Whether a pair that is in the outputs made a tensor, or the elements that it consists of.

        Args:
            value: a tensor.
            rounded: the answer by the name of a tensor, as far as it is known; more are added.
        """
        if self._constants.is_constant(value):
            return True
        stack, seen = [value], {value}
        found = False
        while stack and not found:
            current = stack.pop()
            known, node = rounded.get(current.name or ""), current.producer()
            found = bool(known)
            if known is not None or node is None:
                continue
            first = is_op(node, QUANTIZE, DEQUANTIZE) or (node.domain == "" and node.op_type in CONDITIONAL)
            passes = (0,) if first else data_inputs(node)
            inputs = [v for index in passes if (v := node.inputs[index]) is not None and v not in seen]
            stack += inputs
            seen.update(inputs)
        rounded.update({value.name or "": True} if found else dict.fromkeys((v.name or "" for v in seen), False))
        return found

    def _is_quantized(self, value: ir.Value) -> bool:
        node = value.producer()
        if not self._constants.is_constant(value):
            return is_op(node, DEQUANTIZE) or self._grids.of(value) is not None
        while node is not None and not is_op(node, DEQUANTIZE) and node.inputs and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        return is_op(node, DEQUANTIZE)


def _named(value: ir.Value | None) -> str:
    return f"'{value.name}'" if value is not None else ""


def _why_refused(node: ir.Node) -> tuple[Reason, str] | None:
    """Reason code and detail; None for an operator that is not a layer."""
    if node.domain not in ("", "ai.onnx") and not is_op(node, QUANTIZE, DEQUANTIZE):
        known = "" if fact_of(node) else "is not known here and "
        why = f"stays as it is: {noted_form(node)}" if noted_form(node) else f"{known}stays as it is"
        return "foreign-operator", f"{node.op_type} of domain '{node.domain}' {why}"
    if node.op_type in RECURRENT:
        return "recurrent-layer", f"{node.op_type} has no int8 form on Ascend"
    if node.op_type == "Einsum" and node.op_type not in LAYER_KINDS:
        equation = node.attributes["equation"].as_string() if "equation" in node.attributes else ""
        neither = (
            "is neither the product of an activation and a constant matrix, nor a MatMul of two activations with "
            "symmetric quantizers"
        )
        return "einsum", f"its equation '{equation}' {noted_form(node) or neither}"
    return None
