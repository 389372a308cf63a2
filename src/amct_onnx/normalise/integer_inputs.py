"""Integers that no QuantizeLinear of the model made: a uint8 or int8 graph input, a Gather from a table of integers.

DequantizeLinear reads them: they are the quantized activation already. An int8 layer needs an AscendQuant in front of
it, which alone tells the compiler the zero point that it folds into the bias. So x = DequantizeLinear(i) becomes
DequantizeLinear(QuantizeLinear((i - zero) * scale)), with the factors of the node itself. This is exact: fl((i - zero)
* scale) / scale differs from the integer i - zero by less than 255 * 2^-22 in float32, and by less than 255 * 3 * 2^-12
< 0.19 where AscendQuant computes in float16; rounding gives i - zero back, and adding the zero point gives i.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, integer_type, is_op

QUANTIZED = (ir.DataType.INT8, ir.DataType.UINT8)
PASSED_BY = frozenset("Identity Clip Cast".split())
FLOAT16_NORMAL = 2.0**-14
"""Below it float16 loses bits: (i - zero) * scale would not stay within the bound above."""
FLOAT16_LARGE = 65504.0


def quantize_integer_inputs(model: ir.Model) -> None:
    """Rewrite the graph in place; per-tensor factors of a size that float16 holds."""
    constants = ConstantEvaluator(opset_of(model))
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.domain != "" or not node.inputs:
            continue
        if node.op_type == "Cast" and node.attributes["to"].as_int() == int(ir.DataType.FLOAT):
            found = _written_out(node, constants)
            if found is not None:
                editor = editor or GraphEditor(model)
                _quantize(*found, editor)
        elif node.op_type == "DequantizeLinear" and _is_input(node.inputs[0], integer_type(node, constants), constants):
            if _factors_fit(node, constants):
                editor = editor or GraphEditor(model)
                _rewrite(node, integer_type(node, constants), editor)


def _is_input(value: ir.Value | None, kind: ir.DataType | None, constants: ConstantEvaluator) -> bool:
    """Whether the integers are of 8 bits, not constant, and no QuantizeLinear made them."""
    if value is None or constants.is_constant(value) or kind not in QUANTIZED:
        return False
    node = value.producer()
    while node is not None and node.op_type in PASSED_BY and node.domain == "" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is None or node.op_type != "QuantizeLinear"


def _written_out(cast: ir.Node, constants: ConstantEvaluator) -> tuple[ir.Node, ir.DataType, float, int] | None:
    """A Cast, Sub and Mul (or Div) that stand for a DequantizeLinear in front of a layer with a quantized weight.

    Returns:
        The last of these nodes, the integers' type, their scale and zero point; None for anything else.
    """
    value = cast.inputs[0]
    kind = value.dtype if value is not None else None
    if not _is_input(value, kind, constants) or kind is None:
        return None
    last, scale, zero = cast, 1.0, 0.0
    for op_type in ("Sub", "Mul", "Div"):
        step = _only_reader(last)
        number = _number(step, constants) if step is not None and step.op_type == op_type else None
        if step is None or number is None or step.inputs[0] is not last.outputs[0]:
            continue
        last = step
        if op_type == "Sub":
            zero = number
        elif number != 0:
            scale = scale * number if op_type == "Mul" else scale / number
    low, high = (-128, 127) if kind == ir.DataType.INT8 else (0, 255)
    reader = _only_reader(last)
    weight = reader.inputs[1] if reader is not None and reader.op_type in LAYER_KINDS else None
    quantized = weight is not None and is_op(weight.producer(), DEQUANTIZE)
    fits = FLOAT16_NORMAL <= scale <= FLOAT16_LARGE / 255 and zero.is_integer() and low <= zero <= high
    return (last, kind, scale, int(zero)) if quantized and fits else None


def _only_reader(node: ir.Node) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None


def _number(node: ir.Node, constants: ConstantEvaluator) -> float | None:
    """The second operand, where it is one constant number."""
    value = node.inputs[1]
    if value is None or not constants.is_constant(value):
        return None
    array = np.asarray(constants.array(value))
    return float(array.reshape(-1)[0]) if array.size == 1 else None


def _quantize(last: ir.Node, kind: ir.DataType, scale: float, zero: int, editor: GraphEditor) -> None:
    """Put a Q/DQ pair behind a node whose result lies on that grid already."""
    reader = _only_reader(last)
    assert reader is not None
    factors = (
        editor.constant(f"{last.name}/scale", np.asarray(scale, np.float32)),
        editor.constant(f"{last.name}/zero", np.asarray(zero, kind.numpy())),
    )
    source = last.outputs[0]
    integers = editor.node("QuantizeLinear", [source, *factors], reader, "quantize")
    integers.type, integers.shape = ir.TensorType(kind), source.shape
    value = editor.node("DequantizeLinear", [integers, *factors], reader, "dequantize", like=source)
    reader.replace_input_with(0, value)


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
        value.type, value.shape = ir.TensorType(kind), integers.shape
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
