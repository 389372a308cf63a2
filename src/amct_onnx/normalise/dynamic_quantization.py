"""Dynamic quantization in float operators: DynamicQuantizeLinear, ConvInteger, MatMulInteger, com.microsoft's fusions.

ATC has no plugin for these operators, and a scale that is computed from each input has no AscendQuant. The rest of the
model still converts, so a dynamic layer becomes a float layer on integer-valued tensors, and its refusal is noted. The
integers and the result are those of the source while every accumulator stays below 2^24 in magnitude, where float32
holds integers exactly; beyond, sums are rounded to 24 bits.

A ConvInteger or MatMulInteger of a graph input, or behind a QuantizeLinear with constant factors, is static: it becomes
DequantizeLinear -> Conv or MatMul, which the planner takes, and division by the scale gives the integers back (rounding
removes what the two float32 operations added).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from amct_onnx.errors import NoQuantizerError, UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, known_as, nodes_of
from amct_onnx.graph.moves import FIRST_INPUT
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.reasons import Reason
from amct_onnx.graph.refused import note_form, note_refusal

REASON: Reason = "dynamic-quantization"
REMEDY = "Quantize the activation with a static scale: calibrate or train it, and export with QuantizeLinear."


def expand_dynamic_quantization(model: ir.Model) -> None:
    """Rewrite the operators in place and note the refusal on each layer.

    Raises:
        NoQuantizerError: The model is quantized dynamically only.
    """
    nodes = [n for n in nodes_of(model) if n.domain in ("", "com.microsoft")]
    dynamic_nodes = [n for n in nodes if n.op_type in RULES]
    if not dynamic_nodes:
        return
    named = f"'{dynamic_nodes[0].name}' ({dynamic_nodes[0].op_type})"
    rewriter = _Rewriter(model)
    for node in nodes:
        if node.op_type in RULES:
            RULES[node.op_type](rewriter, node)
        elif node.op_type == "DequantizeLinear" and _input(node, 1) in rewriter.dynamic_scales:
            rewriter.dequantize(node)
    if not any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes_of(model)):
        raise NoQuantizerError(
            f"Node {named}: the model is quantized dynamically, its scales are computed from each input. Export the "
            "model with static quantizers (QuantizeLinear/DequantizeLinear)."
        )


class _Rewriter:
    def __init__(self, model: ir.Model) -> None:
        self.edit = GraphEditor(model)
        self.constants = ConstantEvaluator(opset_of(model))
        self.dynamic_scales: set[ir.Value | None] = set()

    def quantize(self, node: ir.Node) -> None:
        """DynamicQuantizeLinear: the range of x with zero in it gets the integers 0..255."""
        integers, scale, zero = self._quantize(node, _required(node, 0))
        values = [self._cast(node, integers, ir.DataType.UINT8), scale, self._cast(node, zero, ir.DataType.UINT8)]
        self.dynamic_scales.add(scale)
        self.edit.replace(node, values)

    def _quantize(self, node: ir.Node, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Integer-valued float tensors q and zero point, and the scale (ONNX DynamicQuantizeLinear)."""
        none, most = self._constant(node, 0.0), self._constant(node, 255.0)
        flat = [ir.AttrInt64("keepdims", 0)]
        low = self._op(node, "Min", self.edit.node("ReduceMin", [x], node, "min", flat), none)
        high = self._op(node, "Max", self.edit.node("ReduceMax", [x], node, "max", flat), none)
        span = self._op(node, "Sub", high, low)
        # all zeros: any scale is right, and onnxruntime takes 1
        empty = self._op(node, "Equal", span, none)
        step = self._op(node, "Div", span, most)
        scale = self.edit.node("Where", [empty, self._constant(node, 1.0), step], node, "scale")
        scale.type, scale.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        zero = self._op(node, "Div", self._op(node, "Sub", none, low), scale)
        zero = self.edit.node("Round", [zero], node, "zero_point")
        zero = self._op(node, "Min", self._op(node, "Max", zero, none), most)
        q = self.edit.node("Round", [self._op(node, "Div", x, scale)], node, "round")
        q = self._op(node, "Add", q, zero)
        q = self._op(node, "Min", self._op(node, "Max", q, none), most)
        q.type, q.shape = ir.TensorType(ir.DataType.FLOAT), x.shape
        return q, scale, zero

    def dequantize(self, node: ir.Node) -> None:
        """A DequantizeLinear at a dynamic scale; what reads it stays float."""
        x, scale = _required(node, 0), _required(node, 1)
        value = self._op(node, "Mul", self._centred(node, x, _input(node, 2)), scale, last=True)
        for use in node.outputs[0].uses():
            self._note(use.node, node)
        self.edit.replace(node, [value])

    def layer(self, node: ir.Node) -> None:
        """ConvInteger, MatMulInteger: x, w, zero point of x, zero point of w; an int32 result."""
        x, w = _required(node, 0), _required(node, 1)
        static = self._static(node, x, _input(node, 2))
        if static is None:
            self._note_integers(node, x, _input(node, 2))
            left, scale = self._centred(node, x, _input(node, 2)), None
            right = self._centred(node, w, _input(node, 3))
        else:
            left, scale = static
            one = self._constant(node, 1.0)
            zero = _input(node, 3)
            factors = [w, one] if zero is None else [w, one, zero]
            right = self.edit.node("DequantizeLinear", factors, node, "w/dequantize", self._weight_axis(node, zero))
        value = self._product(node, left, right)
        if scale is not None:
            value = self.edit.node("Round", [self._op(node, "Div", value, scale)], node, "integers")
        self.edit.replace(node, [self._cast(node, value, ir.DataType.INT32)])

    def integer_to_float(self, node: ir.Node) -> None:
        """MatMulIntegerToFloat: a, b, scale of a, scale of b, zero point of a, zero point of b, bias."""
        factors = [_required(node, 2), _required(node, 3), _input(node, 4), _input(node, 5)]
        if all(f is None or self.constants.is_constant(f) for f in factors):
            self._static_product(node)
            return
        left = self._centred(node, _required(node, 0), _input(node, 4))
        right = self._centred(node, _required(node, 1), _input(node, 5))
        self._scaled(node, left, right, (_required(node, 2), _required(node, 3)), _input(node, 6))

    def _static_product(self, node: ir.Node) -> None:
        """With constant scales the integers of a and b are dequantized ones; factors of b belong to its columns."""
        sides = []
        for label, value, scale, zero in (("a", 0, 2, 4), ("b", 1, 3, 5)):
            factors = [_required(node, scale), *([] if _input(node, zero) is None else [_required(node, zero)])]
            arrays = [np.asarray(self.constants.array(f)) for f in factors]
            size = max(a.size for a in arrays)
            if size > 1 or any(a.ndim for a in arrays):
                shape = (size,) if size > 1 else ()
                wide = [np.broadcast_to(a.reshape(-1), (size,)).reshape(shape) for a in arrays]
                factors = [
                    self.edit.constant(f"{f.name}/wide", np.array(a)) for f, a in zip(factors, wide, strict=True)
                ]
            inputs = [_required(node, value), *factors]
            axis = [ir.AttrInt64("axis", -2 if label == "a" else -1)] if size > 1 else []
            made = self.edit.node("DequantizeLinear", inputs, node, f"{label}.dequantize", axis)
            made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), _required(node, value).shape
            sides.append(made)
        result, bias = self._product(node, *sides), _input(node, 6)
        self.edit.replace(node, [result if bias is None else self._op(node, "Add", result, bias)])

    def dynamic_matmul(self, node: ir.Node) -> None:
        """DynamicQuantizeMatMul: a (float), b, scale of b, zero point of b, bias."""
        integers, scale, zero = self._quantize(node, _required(node, 0))
        right = self._centred(node, _required(node, 1), _input(node, 3))
        left = self._op(node, "Sub", integers, zero)
        self._scaled(node, left, right, (scale, _required(node, 2)), _input(node, 4))

    def keep(self, node: ir.Node) -> None:
        """An operator that no float operators express stays, with its line in the ledger."""
        note_form(node, "no float operators express it")
        self._note(node, node)

    # -- shared parts -------------------------------------------------------------------------------------------

    def _scaled(
        self, node: ir.Node, left: ir.Value, right: ir.Value, scales: tuple[ir.Value, ir.Value], bias: ir.Value | None
    ) -> None:
        self._note(node, node)
        value = self._product(node, left, right)
        value = self._op(node, "Mul", value, self._op(node, "Mul", *scales))
        self.edit.replace(node, [value if bias is None else self._op(node, "Add", value, bias)])

    def _product(self, node: ir.Node, left: ir.Value, right: ir.Value) -> ir.Value:
        """The float layer under the node's name; it takes over what is noted on the node."""
        convolution = node.op_type.startswith("Conv")
        attributes = list(node.attributes.values()) if convolution else []
        value = self.edit.node("Conv" if convolution else "MatMul", [left, right], node, attributes=attributes)
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), node.outputs[0].shape
        layer = value.producer()
        assert layer is not None
        layer.meta.update(node.meta)
        return value

    def _note(self, layer: ir.Node, cause: ir.Node) -> None:
        note_refusal(layer, REASON, f"its activation is quantized by {cause.op_type} at run time", REMEDY)

    def _note_integers(self, node: ir.Node, x: ir.Value, zero: ir.Value | None) -> None:
        """Why the integers of a ConvInteger or MatMulInteger are not a quantized activation with constant factors."""
        source = self._behind_moves(x)
        made_by = source.producer()
        own = None if made_by is None or made_by.op_type != "QuantizeLinear" else self._integer(_input(made_by, 2))
        other = self._integer(zero)
        if made_by is None or own is None or other is None or own == other:
            self._note(node, node)
            return
        note_refusal(
            node,
            "activation-zero-point",
            f"it takes {other} for the zero point of its input, QuantizeLinear '{made_by.name}' has {own}",
            "Export the model with one zero point for both.",
        )

    def _static(self, node: ir.Node, x: ir.Value, zero: ir.Value | None) -> tuple[ir.Value, ir.Value | None] | None:
        """The dequantized activation and its scale, when a QuantizeLinear with constant, scalar factors is behind x.

        The integers of a graph input have no scale: they are dequantized with 1, and None is returned in its place.
        """
        source = self._behind_moves(x)
        producer = source.producer()
        if source.is_graph_input() and x.dtype in (ir.DataType.INT8, ir.DataType.UINT8):
            if self._integer(zero) is None:
                return None
            factors = [x, self._constant(node, 1.0), *([] if zero is None else [zero])]
            value = self.edit.node("DequantizeLinear", factors, node, "x/dequantize")
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), x.shape
            return value, None
        if producer is None or producer.op_type != "QuantizeLinear":
            return None
        scale, own_zero = producer.inputs[1], _input(producer, 2)
        if scale is None or not self.constants.is_constant(scale) or self.constants.array(scale).size != 1:
            return None
        own, other = self._integer(own_zero), self._integer(zero)
        if own is None or own != other:
            return None
        factors = [x, scale] if own_zero is None else [x, scale, own_zero]
        value = self.edit.node("DequantizeLinear", factors, node, "x/dequantize")
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), x.shape
        return value, scale

    def _behind_moves(self, value: ir.Value) -> ir.Value:
        """The tensor whose elements a value consists of."""
        producer = value.producer()
        while producer is not None and producer.op_type in FIRST_INPUT and producer.inputs[0] is not None:
            value, producer = producer.inputs[0], producer.inputs[0].producer()
        return value

    def _integer(self, zero: ir.Value | None) -> int | None:
        if zero is None:
            return 0
        return int(self.constants.array(zero).reshape(-1)[0]) if self.constants.is_constant(zero) else None

    def _weight_axis(self, node: ir.Node, zero: ir.Value | None) -> list[ir.Attr]:
        if zero is None or not self.constants.is_constant(zero) or self.constants.array(zero).size == 1:
            return []
        return [ir.AttrInt64("axis", 0 if node.op_type == "ConvInteger" else -1)]

    def _centred(self, node: ir.Node, value: ir.Value, zero: ir.Value | None) -> ir.Value:
        """Value minus zero point, in float; a vector of zero points lies along the output channels or rows."""
        result = self._cast(node, value, ir.DataType.FLOAT)
        if zero is None or (self.constants.is_constant(zero) and not np.any(self.constants.array(zero))):
            return result
        centre = self._cast(node, zero, ir.DataType.FLOAT)
        first, size = value is node.inputs[0], tuple(zero.shape) if zero.shape is not None else ()
        if size and size[0] != 1 and len(size) == 1 and (first or node.op_type == "ConvInteger"):
            rank = len(value.shape) if value.shape is not None else 4
            shape = np.asarray([-1, 1] if first else [-1, *[1] * (rank - 1)], np.int64)
            centre = self.edit.node(
                "Reshape", [centre, self.edit.constant(f"{node.name}/shape", shape)], node, "zero_point.reshape"
            )
        return self._op(node, "Sub", result, centre)

    def _cast(self, node: ir.Node, value: ir.Value, kind: ir.DataType) -> ir.Value:
        result = self.edit.node("Cast", [value], node, f"to_{kind.name.lower()}", [ir.AttrInt64("to", int(kind))])
        result.type, result.shape = ir.TensorType(kind), value.shape
        return result

    def _op(self, node: ir.Node, op_type: str, left: ir.Value, right: ir.Value, *, last: bool = False) -> ir.Value:
        return self.edit.node(op_type, [left, right], node, "" if last else op_type.lower())

    def _constant(self, node: ir.Node, number: float) -> ir.Value:
        return self.edit.constant(f"{node.name}/{number:g}", np.asarray(number, np.float32))


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _required(node: ir.Node, index: int) -> ir.Value:
    value = _input(node, index)
    if value is None:
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}) lacks its input {index}. Export the model again."
        )
    return value


RULES: dict[str, Callable[[_Rewriter, ir.Node], None]] = {
    "DynamicQuantizeLinear": _Rewriter.quantize,
    "ConvInteger": _Rewriter.layer,
    "MatMulInteger": _Rewriter.layer,
    "MatMulIntegerToFloat": _Rewriter.integer_to_float,
    "DynamicQuantizeMatMul": _Rewriter.dynamic_matmul,
    "DynamicQuantizeLSTM": _Rewriter.keep,
}
