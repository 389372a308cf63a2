"""MatMul and Gemm whose first operand is the weight, as the terms of an Einsum.

An int8 layer takes its weight as the second operand: W x is the transpose of x^T W^T.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, integer_type, is_op
from amct_onnx.graph.shapes import known_shape, stored_shape

EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)
BATCH = "abcdefgh"
"""Letters of the axes in front of a matrix."""


def weight_first(node: ir.Node, constants: ConstantEvaluator) -> tuple[int, str, str, str] | None:
    """Index of the activation, its axes, those of the weight and of the result; None for another layer.

    Both operands have a quantizer of 8 bits: without one the product stays float, in the form that it has.
    """
    if node.op_type not in ("MatMul", "Gemm") or len(node.inputs) < 2:
        return None
    weight, value = node.inputs[:2]
    shape = stored_shape(weight)
    if shape is None or len(shape) != 2:
        return None
    if not constants.is_constant(weight) or constants.is_constant(value):
        return None
    if not (_has_quantizer(weight, constants, 0) and _has_quantizer(value, constants, None)):
        return None
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        weight_axes = "km" if attribute(node, "transA", 0) else "mk"
        return (1, "nk" if attribute(node, "transB", 0) else "kn", weight_axes, "mn") if plain else None
    rank = len(known_shape(value) or ())
    batch = BATCH[: max(0, rank - 2)]
    if rank != len(batch) + 2:
        return None
    return 1, f"{batch}kn", "mk", f"{batch}mn"


def _has_quantizer(value: ir.Value | None, constants: ConstantEvaluator, channel_axis: int | None) -> bool:
    """Whether a tensor comes from a DequantizeLinear of 8 bits and one scale, with nothing but movement between.

    Args:
        value: the tensor.
        constants: of the model.
        channel_axis: axis along which a DequantizeLinear right in front may have several scales.
    """
    axis = channel_axis
    while value is not None and (node := value.producer()) is not None:
        if is_op(node, DEQUANTIZE):
            scale = node.inputs[1]
            if scale is None or not constants.is_constant(scale) or attribute(node, "block_size", 0):
                return False
            if integer_type(node, constants) not in EIGHT_BITS:
                return False
            several = np.asarray(constants.array(scale)).size != 1
            return not several or (axis is not None and attribute(node, "axis", 1) == axis)
        value, axis = node.inputs[0] if data_inputs(node) == (0,) else None, None
    return False
