"""The kernels that compute an integer layer exactly: float32, float32 in parts, ConvInteger and MatMulInteger."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Int8, Int64
from amct_onnx.device.facts import EXACT_IN_FLOAT32, WeightSums, largest_sum, weight_sums
from amct_onnx.device.lowering.blocked_layout import blocked_convolution, blocked_weight
from amct_onnx.device.lowering.state import Int8Tensor, LoweringState
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import Layout

SHIFT = 128
"""From int8 to uint8."""
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def float_kernel(
    state: LoweringState,
    node: ir.Node,
    layout: Layout,
    int8: Int8Tensor,
    weight: ir.Value,
    integers: Int8,
    bias: Array | None,
) -> ir.Value:
    """The unchanged layer on float32; weight (``integers``) and bias are exact in it."""
    addend = None if bias is None else state.edit.constant(bias.astype(np.float32))
    blocked = _blocked(state, node, int8.value, integers, addend)
    if blocked is not None:
        state.replaced.append(node)
        return blocked
    key = (id(node.graph), weight)
    if key not in state.float_weights:
        # cast while running: int8 weights keep the session as small as the fake-quant model's
        state.float_weights[key] = state.edit.cast(weight, ir.DataType.FLOAT)
    node.replace_input_with(0, int8.value)
    node.replace_input_with(1, state.float_weights[key])
    if addend is not None and layout.kind.bias_input is not None:
        node.replace_input_with(layout.kind.bias_input, addend)
    return node.outputs[0]


def _blocked(
    state: LoweringState, node: ir.Node, x: ir.Value, integers: Int8, bias: ir.Value | None
) -> ir.Value | None:
    """The layer in the blocked layout; None where it does not fit it."""
    ordered = blocked_weight(node, integers)
    if ordered is None:
        return None
    factor = state.edit.cast(state.edit.constant(ordered), ir.DataType.FLOAT)
    channels = (ordered.shape[1] * attribute(node, "group", 1), ordered.shape[0])
    return blocked_convolution(state.edit, node, x, factor, channels, bias)


def integer_kernel(
    state: LoweringState,
    node: ir.Node,
    layout: Layout,
    int8: Int8Tensor,
    weight: ir.Value,
    bias: Array | None,
    rank: int,
) -> ir.Value:
    """MatMulInteger on int8 x int8, or ConvInteger on uint8 x uint8, with zero points, then the int32 bias.

    Kernels of mixed signs saturate on some CPUs, and ONNX Runtime has a ConvInteger of int8 x int8 since 1.24: both
    factors are shifted by 128, which the zero points take back. ConvInteger pads with the input's.
    """
    operator = layout.kind.integer_operator
    assert operator is not None  # the caller asks
    if layout.kind.convolution:
        x, w = _as_uint8(state, state.integers_of(int8), node), _as_uint8(state, weight, node)
        zeros = [state.edit.constant(np.uint8(int8.offset + SHIFT)), state.edit.constant(np.uint8(SHIFT))]
        result = state.edit.node(operator, [x, w, *zeros], node.attributes.values())
        if bias is not None:
            bias = layout.along_result(bias, rank)
    else:
        q = state.integers_of(int8)
        state.edit.before(node)
        factors = [state.edit.constant(np.int8(int8.offset))]
        if weight in state.int8:
            other = state.int8[weight]
            weight = state.integers_of(other)
            state.edit.before(node)
            factors.append(state.edit.constant(np.int8(other.offset)))
        swap = [ir.AttrInt64s("perm", [1, 0])]
        if attribute(node, "transA", 0):
            q = state.edit.node("Transpose", [q], swap)
        if attribute(node, "transB", 0):
            weight = state.edit.node("Transpose", [weight], swap)
        result = state.edit.node(operator, [q, weight, *factors])
    if bias is not None:
        result = state.edit.node("Add", [result, state.edit.constant(bias)])
    state.replaced.append(node)
    return result


def _as_uint8(state: LoweringState, integers: ir.Value, reader: ir.Node) -> ir.Value:
    """int8 integers, shifted by 128."""
    state.edit.before(reader)
    whole = state.edit.cast(integers, ir.DataType.FLOAT)
    return state.edit.cast(state.edit.node("Add", [whole, state.edit.number(SHIFT)]), ir.DataType.UINT8)


def parts_needed(node: ir.Node, layout: Layout, weight: Array, whole: WeightSums, offset: int) -> int | None:
    """The number of parts into which a layer's input channels are split, so that float32 holds each part's sums.

    Args:
        node: the layer.
        layout: layout of its weight.
        weight: its integers.
        whole: their sums.
        offset: offset of its input.

    Returns:
        1 where the bias alone is too large, None where no number of parts will do.
    """
    if attribute(node, "transA", 0):
        return None
    if largest_sum(whole, offset, np.zeros(1, np.int64)) <= EXACT_IN_FLOAT32:
        return 1
    for count in (2, 3, 4, 6, 8):
        sums = (weight_sums(layout, part) for _, part in _channel_slices(layout, weight, count))
        if all(largest_sum(s, offset, np.zeros(1, np.int64)) <= EXACT_IN_FLOAT32 for s in sums):
            return count
    return None


def split_kernel(
    state: LoweringState,
    node: ir.Node,
    layout: Layout,
    int8: Int8Tensor,
    weight: Array,
    parts: int,
    bias: Array | None,
) -> ir.Value:
    """The layer on parts of its input channels, each proven exact in float32, summed in int32.

    Costs about as much as the layer in one piece, ConvInteger several times that; for ConvTranspose there is none.
    """
    total: ir.Value | None = None
    for channels, part in _channel_slices(layout, weight, parts):
        source = int8.value
        if parts > 1:
            axis = [ir.AttrInt64("axis", layout.kind.result_axis)]
            source = state.edit.node("Gather", [source, state.edit.constant(channels)], axis)
        result = _blocked(state, node, source, part, None)
        if result is None:
            factor = state.edit.cast(state.edit.constant(np.ascontiguousarray(part)), ir.DataType.FLOAT)
            result = state.edit.node(node.op_type, [source, factor], node.attributes.values())
        result = state.edit.cast(result, ir.DataType.INT32)
        total = result if total is None else state.edit.node("Add", [total, result])
    assert total is not None
    if bias is not None:
        if layout.kind.convolution:
            bias = layout.along_result(bias, weight.ndim)
        total = state.edit.node("Add", [total, state.edit.constant(bias)])
    state.replaced.append(node)
    return total


def _channel_slices(layout: Layout, weight: Array, count: int) -> Iterator[tuple[Int64, Array]]:
    """(input channels, their weights) of each of ``count`` parts; a part takes the same share of every group."""
    axis, in_groups = layout.input_axis(weight.ndim), layout.kind.groups_on_inputs
    if in_groups:
        weight = weight.reshape(layout.group, weight.shape[0] // layout.group, *weight.shape[1:])
        axis += 1
    size = weight.shape[axis]
    for share in np.array_split(np.arange(size), min(count, size)):
        part = np.take(weight, share, axis=axis)
        if in_groups:
            part = part.reshape(-1, *part.shape[2:])
        yield (np.arange(layout.group)[:, None] * size + share).reshape(-1), part
