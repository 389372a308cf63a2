"""Integers that no QuantizeLinear of the model made: a uint8 or int8 graph input, a table, other rounding operators.

DequantizeLinear reads them: they are the quantized activation already. An int8 layer needs an AscendQuant in front of
it, which alone tells the compiler the zero point that it folds into the bias. So x = DequantizeLinear(i) becomes
DequantizeLinear(QuantizeLinear((i - zero) * scale)), with the factors of the node itself. This is exact: fl((i - zero)
* scale) / scale differs from the integer i - zero by less than 255 * 2^-22 in float32, and by less than 255 * 3 * 2^-12
< 0.19 where AscendQuant computes in float16; rounding gives i - zero back, and adding the zero point gives i.

The same holds for whole numbers times a scale, however they were rounded (sign(x) * floor(|x| / s + 0.5) * s, a Cast
to an integer and back): the operators that round them stay, and a pair behind them gives the layer its integers.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import STANDS_FOR, GraphEditor, nodes_of, stands_for
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, integer_type, is_op
from amct_onnx.graph.refused import note_form
from amct_onnx.normalise.integer_valued import IntegerValues, Span, product

QUANTIZED = (ir.DataType.INT8, ir.DataType.UINT8)
PASSED_BY = frozenset("Identity Clip Cast".split())
FLOAT16_NORMAL = 2.0**-14
"""Below it float16 loses bits: (i - zero) * scale would not stay within the bound above."""
FLOAT16_LARGE = 65504.0
ORDERED = frozenset({"Relu", "Clip"})
"""They may stand between a tensor on a grid and a layer: the plan sees whether they keep to it."""
MAX_FACTORS = 4
"""Products within a product."""


def quantize_integer_inputs(model: ir.Model) -> None:
    """Rewrite the graph in place; per-tensor factors of a size that float16 holds."""
    constants, editor = ConstantEvaluator(opset_of(model)), GraphEditor(model)
    _quantize_whole_numbers(model, constants, editor)
    for node in nodes_of(model):
        if node.domain != "" or not node.inputs:
            continue
        if node.op_type != "DequantizeLinear" or not _is_typed(node):
            continue
        if _is_input(node.inputs[0], integer_type(node, constants), constants) and _factors_fit(node, constants):
            _rewrite(node, integer_type(node, constants), editor)


def _is_typed(node: ir.Node) -> bool:
    """Whether the type of the integers is known: by the zero point, or without one by what the model says of them."""
    value, zero = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    return zero is not None or (value is not None and value.dtype is not None)


def _is_input(value: ir.Value | None, kind: ir.DataType | None, constants: ConstantEvaluator) -> bool:
    """Whether the integers are of 8 bits, not constant, and no QuantizeLinear made them."""
    if value is None or constants.is_constant(value) or kind not in QUANTIZED:
        return False
    node = value.producer()
    while node is not None and node.op_type in PASSED_BY and node.domain == "" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is None or node.op_type != "QuantizeLinear"


def _quantize_whole_numbers(model: ir.Model, constants: ConstantEvaluator, editor: GraphEditor) -> None:
    """Put a pair in front of each layer with a quantized weight whose input is whole numbers times one scale."""
    values = IntegerValues(constants)
    for node in nodes_of(model):
        if node.op_type not in LAYER_KINDS or node.domain != "" or not _has_quantized_weight(node, constants):
            continue
        value, found = node.inputs[0], None
        while value is not None and not constants.is_constant(value) and not is_op(value.producer(), DEQUANTIZE):
            found, maker = _factors_of(value, values), value.producer()
            if found is not None or maker is None or not (data_inputs(maker) == (0,) or maker.op_type in ORDERED):
                break
            value = maker.inputs[0]
        if found is None or value is None or (maker := value.producer()) is None:
            continue
        quantizer = _eight_bits(*found)
        if quantizer is None:
            note_form(maker, f"whole numbers {_named(found[0])}, times {found[1]:.6g}, which one scale of 8 bits lacks")
        elif value.dtype in (None, ir.DataType.FLOAT):
            _quantize(value, *quantizer, editor)


def _factors_of(value: ir.Value | None, values: IntegerValues, depth: int = MAX_FACTORS) -> tuple[Span, float] | None:
    """The integers and the scale whose product a tensor is; None when it is something else."""
    span = values.of(value)
    node = value.producer() if value is not None else None
    if span.whole:
        return span, 1.0
    if span.low == span.high and math.isfinite(span.low) and span.low:
        return Span(1.0, 1.0, True), span.low
    if node is None or node.domain or node.op_type not in ("Mul", "Div") or not depth:
        return None
    parts = [p for v in node.inputs if (p := _factors_of(v, values, depth - 1)) is not None]
    if len(parts) != 2:
        return None
    (first, scale), (second, other) = parts
    if node.op_type == "Mul":
        return product(first, second), scale * other
    divisor = second.low * other
    return (first, scale / divisor) if second.low == second.high and divisor else None


def _eight_bits(span: Span, scale: float) -> tuple[ir.DataType, float, int] | None:
    """The type, scale and zero point that hold these multiples of a scale; None where 8 bits do not."""
    low, high = (span.low, span.high) if scale > 0 else (-span.high, -span.low)
    scale = abs(scale)
    if not (low <= 0 <= high and high - low <= 255 and FLOAT16_NORMAL <= scale <= FLOAT16_LARGE / 255):
        return None
    if low >= 0 and high > 127:
        return ir.DataType.UINT8, scale, 0
    return ir.DataType.INT8, scale, 0 if low >= -128 and high <= 127 else int(-128 - low)


def _named(span: Span) -> str:
    """The bounds of whole numbers, in words."""
    return f"from {span.low:g} to {span.high:g}" if math.isfinite(span.high - span.low) else "without bounds"


def _has_quantized_weight(layer: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether a layer multiplies by a constant that a DequantizeLinear makes, or a Cast of 8-bit integers."""
    value = layer.inputs[1] if len(layer.inputs) > 1 else None
    if value is None or not constants.is_constant(value):
        return False
    node = value.producer()
    while node is not None and not is_op(node, DEQUANTIZE) and node.inputs and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return node is not None or value.dtype in QUANTIZED


def _quantize(value: ir.Value, kind: ir.DataType, scale: float, zero: int, editor: GraphEditor) -> None:
    """Put a Q/DQ pair behind a tensor that lies on that grid already."""
    maker = value.producer()
    assert maker is not None  # a graph input is not whole
    factors = (
        editor.constant(f"{maker.name}/scale", np.asarray(scale, np.float32)),
        editor.constant(f"{maker.name}/zero", np.asarray(zero, kind.numpy())),
    )
    readers = list(value.uses())
    integers, floats = (editor.node_names.take(f"{maker.name}/{label}") for label in ("quantize", "dequantize"))
    first = editor.insert("QuantizeLinear", [value, *factors], integers, after=maker)
    second = editor.insert("DequantizeLinear", [first.outputs[0], *factors], floats, after=first)
    for node in (first, second):
        node.meta[STANDS_FOR] = stands_for(maker)
    first.outputs[0].type, first.outputs[0].shape = ir.TensorType(kind), value.shape
    second.outputs[0].type, second.outputs[0].shape = value.type or ir.TensorType(ir.DataType.FLOAT), value.shape
    for use in readers:
        use.node.replace_input_with(use.idx, second.outputs[0])


def _factors_fit(node: ir.Node, constants: ConstantEvaluator) -> bool:
    factors = [v for v in node.inputs[1:] if v is not None]
    if not all(constants.is_constant(v) for v in factors):
        return False
    arrays = [np.asarray(constants.array(v)) for v in factors]
    scale = float(arrays[0].reshape(-1)[0]) if arrays[0].size else 0.0
    return all(a.size == 1 for a in arrays) and FLOAT16_NORMAL <= scale <= FLOAT16_LARGE / 255


def _rewrite(node: ir.Node, integer_kind: ir.DataType, editor: GraphEditor) -> None:
    integers, scale, zero = node.inputs[0], node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert integers is not None and scale is not None
    kind = scale.dtype or ir.DataType.FLOAT
    to_float = [ir.AttrInt64("to", int(kind))]

    def make(
        op_type: str, inputs: list[ir.Value | None], label: str, attributes: list[ir.Attr] | None = None
    ) -> ir.Value:
        value = editor.node(op_type, inputs, node, label, attributes or [])
        first = inputs[0]
        value.type, value.shape = ir.TensorType(kind), None if first is None else first.shape
        return value

    value = make("Cast", [integers], "cast", to_float)
    if zero is None:
        zero = editor.constant(f"{node.name}/zero", np.zeros((), integer_kind.numpy()))
    else:
        value = make("Sub", [value, make("Cast", [zero], "zero", to_float)], "centred")
    value = make("Mul", [value, scale], "scaled")
    quantized = editor.node("QuantizeLinear", [value, scale, zero], node, "quantize")
    quantized.type, quantized.shape = ir.TensorType(integer_kind), integers.shape
    node.replace_input_with(0, quantized)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, zero)
