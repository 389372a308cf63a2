"""A depthwise convolution whose activation has one scale per channel gets one scale, and the others into its weight.

Each output channel o of a depthwise convolution reads one input channel c. So the scale s[c] moves behind the sum:
(q - zero) * s[c] * w[o] = (q - zero) * (s[c] * w[o]). Without it, Q(s[c]) of x is Q(1) of x * (1 / s[c]): one
AscendQuant behind a Mul. The integers are those of an AscendQuant with s[c], which multiplies by the same reciprocal.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Float32
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import CONVOLUTIONS
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op

EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)


def scale_depthwise_activations(model: ir.Model) -> None:
    """Rewrite the graph in place: float32 activations of 8 bits with one zero point, weights with a quantizer."""
    constants = ConstantEvaluator(opset_of(model))
    editor: GraphEditor | None = None
    made: dict[ir.Node, ir.Value] = {}
    for node in nodes_of(model):
        pair = _pair_per_channel(node, constants) if node.op_type in CONVOLUTIONS and node.domain == "" else None
        weight = _scaled_weight(node, pair[2], constants) if pair is not None else None
        if pair is not None and weight is not None:
            editor = editor or GraphEditor(model)
            q, dq, scale = pair
            if dq not in made:
                made[dq] = _scaled_pair(q, dq, scale, len(weight[0].shape), constants, editor)
            node.replace_input_with(0, made[dq])
            _replace_weight(node, *weight, editor)


def _pair_per_channel(node: ir.Node, constants: ConstantEvaluator) -> tuple[ir.Node, ir.Node, Float32] | None:
    """The Q and the DQ in front of a depthwise convolution, and their float32 scales [channels]; else None."""
    if attribute(node, "group", 1) == 1:
        return None
    dq = node.inputs[0].producer() if node.inputs[0] is not None else None
    if not is_op(dq, DEQUANTIZE) or dq is None or dq.inputs[0] is None:
        return None
    q = dq.inputs[0].producer()
    if not is_op(q, QUANTIZE) or q is None or q.inputs[0] is None:
        return None
    factors, others = _factors(q, constants), _factors(dq, constants)
    if factors is None or others is None or not all(map(np.array_equal, factors, others)):
        return None
    scale, zero = factors
    rank = len(q.inputs[0].shape) if q.inputs[0].shape is not None else None
    on_channels = all(attribute(n, "axis", 1) in (1, None if rank is None else 1 - rank) for n in (q, dq))
    usable = np.all(np.isfinite(scale)) and np.all(scale >= np.finfo(np.float32).tiny)  # with a finite reciprocal
    alike = np.all(zero == zero[0]) and integer_type(q, constants) in EIGHT_BITS
    depthwise = scale.size > 1 and attribute(node, "group", 1) == scale.size
    single = float_type_of(q.inputs[0]) == ir.DataType.FLOAT
    return (q, dq, scale) if on_channels and usable and alike and depthwise and single else None


def _factors(node: ir.Node, constants: ConstantEvaluator) -> tuple[Float32, Array] | None:
    """Scale and zero point of a Q or DQ, flat and of equal length; None where they are not constant, or of blocks."""
    known = [v for v in node.inputs[1:3] if v is not None]
    if attribute(node, "block_size", 0) or not all(constants.is_constant(v) for v in known):
        return None
    scale = np.asarray(constants.array(known[0]), np.float32).reshape(-1)
    zero = np.asarray(constants.array(known[1])).reshape(-1) if len(known) > 1 else np.zeros(1, np.uint8)
    return (scale, np.broadcast_to(zero, scale.shape)) if zero.size in (1, scale.size) else None


def _scaled_weight(node: ir.Node, scale: Float32, constants: ConstantEvaluator) -> tuple[Array, Float32, Array] | None:
    """Integers, scales and zero points [output channels of axis 0] of the weight with the activation's scales in it.

    None where the weight has no quantizer of its own right in front of the layer, or one along another axis.
    """
    value = node.inputs[1]
    dq = value.producer() if value is not None else None
    if not is_op(dq, DEQUANTIZE) or dq is None or value is None or not constants.is_constant(value):
        return None
    factors = _factors(dq, constants)
    integers = np.asarray(constants.array(dq.inputs[0])) if factors is not None and dq.inputs[0] is not None else None
    if factors is None or integers is None:
        return None
    rows = integers.shape[0]
    along_rows = factors[0].size == 1 or (attribute(dq, "axis", 1) in (0, -integers.ndim) and factors[0].size == rows)
    if not along_rows or rows % scale.size:
        return None
    own, zero = (np.broadcast_to(f, (rows,)) for f in factors)
    return integers, own * np.repeat(scale, rows // scale.size), zero


def _scaled_pair(
    q: ir.Node, dq: ir.Node, scale: Float32, rank: int, constants: ConstantEvaluator, editor: GraphEditor
) -> ir.Value:
    """What the layers read instead of the pair's result: Mul, Q and DQ with the scale 1 beside the pair."""
    source, name, kind = q.inputs[0], q.name or QUANTIZE, integer_type(q, constants)
    assert source is not None
    ratio = editor.constant(f"{name}/ratio", (np.float32(1) / scale).reshape(1, -1, *[1] * (rank - 2)))
    scaled = editor.node("Mul", [source, ratio], q, "scaled", like=source)
    zero = q.inputs[2] if len(q.inputs) > 2 else None
    first = 0 if zero is None else np.asarray(constants.array(zero)).reshape(-1)[0]
    factors = _factor_inputs(editor, name, np.ones((), np.float32), np.asarray(first, kind.numpy()))
    integers = editor.node(QUANTIZE, [scaled, *factors], q, "quantize")
    integers.type, integers.shape = ir.TensorType(kind), source.shape
    return editor.node(DEQUANTIZE, [integers, *factors], dq, "dequantize", like=source)


def _replace_weight(node: ir.Node, integers: Array, scale: Float32, zero: Array, editor: GraphEditor) -> None:
    old = node.inputs[1]
    maker = old.producer() if old is not None else None
    assert maker is not None
    name = f"{node.name}/weight"
    factors = _factor_inputs(editor, name, scale, zero.astype(integers.dtype))
    held = editor.constant(name, integers)
    axis = [ir.AttrInt64("axis", 0)]
    node.replace_input_with(1, editor.node(DEQUANTIZE, [held, *factors], maker, "dequantize", axis, like=old))


def _factor_inputs(editor: GraphEditor, name: str, scale: Float32, zero: Array) -> tuple[ir.Value, ir.Value]:
    return editor.constant(f"{name}/scale", scale), editor.constant(f"{name}/zero", zero)
