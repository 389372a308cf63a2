"""Conv, ConvTranspose, Gemm and MatMul on int8: what they must be, their facts, and which kernel computes them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.device.facts import EXACT_IN_FLOAT32, bias_bound, weight_sums
from amct_onnx.device.lowering.kernels import float_kernel, integer_kernel, parts_needed, split_kernel
from amct_onnx.device.lowering.state import Accumulator, Int8Tensor, IntegerLayer, LoweringState
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import Layout, bias_of, layout_of


def lower_layer(state: LoweringState, node: ir.Node) -> None:
    """Lower one integer layer: as one float32 operator, in parts, or as an integer operator.

    Raises:
        UnsupportedModelError: ATC refuses it, or no ONNX operator computes it exactly.
    """
    value, weight = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or weight is None:
        raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}) lacks an input. Write the model again.")
    _check_form(state, node, weight)
    int8 = state.held_int8(value, node)
    layout = layout_of(node)
    assert layout is not None  # only operators of the table are lowered here
    array = _constant_weight(state, node, layout, weight)
    bias = _bias(state, node)
    layer = _layer_of(node, layout, int8, array, bias)
    second = state.int8.get(weight)
    if second is not None and (int8.offset or second.offset):
        layer.warnings.append(
            f"both of its inputs are activations, with the offsets {int8.offset} and {second.offset}: ATC compensates "
            "none of them; the simulation does"
        )
    state.layers.append(layer)
    state.edit.before(node)
    bound, parts = layer.bound(), None
    may_be_float = not state.integer_kernels or layout.kind.integer_operator is None
    in_float = may_be_float and bound is not None and bound <= EXACT_IN_FLOAT32
    if may_be_float and not in_float and array is not None and layer.sums is not None:
        parts = parts_needed(node, layout, array, layer.sums, int8.offset)
    if array is not None and in_float:
        result = float_kernel(state, node, layout, int8, weight, array, bias)
    elif array is not None and parts is not None:
        layer.kernel = "split"
        result = split_kernel(state, node, layout, int8, array, parts, bias)
    elif layout.kind.integer_operator is not None:
        layer.kernel = "integer"
        result = integer_kernel(state, node, layout, int8, weight, bias, layer.rank)
    else:
        raise UnsupportedModelError(
            f"Node '{node.name}': the accumulator of a single input channel may exceed 2^24, which no ONNX "
            f"operator computes exactly for {node.op_type}. Use a smaller kernel."
        )
    summed = Accumulator(result, in_float, layer, layout.kind.result_axis)
    layer.accumulator = summed
    state.int32[node.outputs[0]] = summed


def _check_form(state: LoweringState, node: ir.Node, weight: ir.Value) -> None:
    if not state.is_int8(node, 1):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): reads int8 but its weight '{weight.name}' is not int8. Write "
            "the model again."
        )
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0):
        raise UnsupportedModelError(
            f"Node '{node.name}': a Gemm on integers needs alpha = beta = 1; ATC would multiply the int32 result. "
            "Convert the model again."
        )


def _constant_weight(state: LoweringState, node: ir.Node, layout: Layout, weight: ir.Value) -> Array | None:
    """The weight's integers; None when another operand is computed in its place, as a MatMul may have it."""
    if weight not in state.int8 and state.constants.is_constant(weight):
        return state.constants.array(weight)
    if layout.kind.convolution:
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): its weight '{weight.name}' is not constant, ATC needs an int8 "
            "initializer. Convert the model again."
        )
    return None


def _layer_of(
    node: ir.Node, layout: Layout, int8: Int8Tensor, weight: Array | None, bias: Array | None
) -> IntegerLayer:
    """The layer with the facts that weight and bias decide."""
    sums, rank = None, 2
    if weight is not None:
        rank = weight.ndim
        if rank < (3 if layout.kind.convolution else 1) or not weight.size:
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): its weight has shape {list(weight.shape)}, which it does "
                "not take. Write the model again."
            )
        if layout.group < 1 or weight.shape[0] % layout.group:
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): its weight has shape {list(weight.shape)}, which "
                f"{layout.group} groups do not divide. Write the model again."
            )
        sums = weight_sums(layout, weight)
    size = np.zeros(1, np.int64) if bias is None else bias_bound(bias, sums)
    return IntegerLayer(node, int8, sums, size, "float32", rank, _warnings(int8))


def _warnings(int8: Int8Tensor) -> list[str]:
    sentences = []
    if int8.moved and int8.offset:
        sentences.append(
            f"'{int8.moved[-1]}' stands between AscendQuant and the layer: by public sources ATC then does not "
            f"fold the offset {int8.offset}; the simulation does"
        )
    if int8.quantizer is None:
        sentences.append("its int8 input comes from no AscendQuant; its offset is taken as 0")
    return sentences


def _bias(state: LoweringState, node: ir.Node) -> Array | None:
    value = bias_of(node)
    if value is None:
        return None
    if not state.constants.is_constant(value):
        raise UnsupportedModelError(
            f"Node '{node.name}': its bias '{value.name}' is not constant. Use an int32 initializer."
        )
    array = state.constants.array(value)
    if array.dtype != np.int32:
        raise UnsupportedModelError(
            f"Node '{node.name}': its bias '{value.name}' is {array.dtype}, a layer on int8 needs int32. Convert "
            "the model again."
        )
    return array
