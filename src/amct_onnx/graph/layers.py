"""Where Conv, ConvTranspose, Gemm and MatMul keep weight, bias and channels: one entry for each operator.

A layer sums products of an activation (its first input) and a weight (its second). All that depends on the operator's
layout is asked here; what a layer becomes is decided in ``plan/layers.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.graph.attributes import attribute


@dataclass(frozen=True)
class LayerKind:
    """One operator.

    Attributes:
        op_type: operator type, in the default domain.
        convolution: whether kernel axes follow the first two axes of the weight, spatial axes those of the result.
        channel_axis: axis of the output channels in the weight. Negative: counted from the end, where a weight of more
            axes holds a batch of matrices.
        input_axis: axis of the weight along which products are summed, beside those of the kernel.
        groups_on_inputs: whether the groups of a convolution lie on ``input_axis``, so that ``channel_axis`` holds the
            output channels of one group; else they lie on ``channel_axis``.
        bias_input: index of the bias; None when a following Add holds it.
        result_axis: axis of the output channels in the result, 1 or -1.
        int8_ranks: ranks of a weight that have an int8 form on a device.
        integer_operator: ONNX operator that sums its integers exactly; None when there is none.
    """

    op_type: str
    convolution: bool
    channel_axis: int
    input_axis: int
    groups_on_inputs: bool
    bias_input: int | None
    result_axis: int
    int8_ranks: tuple[int, ...]
    integer_operator: str | None


LAYER_KINDS = {
    k.op_type: k
    for k in (
        LayerKind("Conv", True, 0, 1, False, 2, 1, (3, 4, 5), "ConvInteger"),
        LayerKind("ConvTranspose", True, 1, 0, True, 2, 1, (3, 4), None),
        LayerKind("Gemm", False, 1, 0, False, 2, -1, (2,), "MatMulInteger"),
        LayerKind("MatMul", False, -1, -2, False, None, -1, (2,), "MatMulInteger"),
    )
}
"""Operator type -> its entry."""
CONVOLUTIONS = tuple(k.op_type for k in LAYER_KINDS.values() if k.convolution)
PRODUCTS = tuple(k.op_type for k in LAYER_KINDS.values() if not k.convolution)


@dataclass(frozen=True)
class Layout:
    """The layout of one node's weight.

    Attributes:
        kind: kind of the operator.
        group: number of groups of a convolution; 1 for others.
        transposed: whether the weight's two axes are exchanged (Gemm with transB = 1).
    """

    kind: LayerKind
    group: int = 1
    transposed: bool = False

    def channel_axis(self, rank: int) -> int:
        """Axis of the output channels in a weight of that rank; 0 where a vector stands for one channel."""
        axis = self.kind.input_axis if self.transposed else self.kind.channel_axis
        return max(0, axis + rank if axis < 0 else axis)

    def input_axis(self, rank: int) -> int:
        """Axis along which products are summed, beside those of the kernel."""
        axis = self.kind.channel_axis if self.transposed else self.kind.input_axis
        return max(0, axis + rank if axis < 0 else axis)

    def channels(self, shape: tuple[int, ...]) -> int:
        """Output channels of the layer, from its weight's shape."""
        return shape[self.channel_axis(len(shape))] * (self.group if self.kind.groups_on_inputs else 1)

    def terms(self, shape: tuple[int, ...]) -> int:
        """How many products are added for one element of the result."""
        rank = len(shape)
        kernel = math.prod(shape[2:]) if self.kind.convolution else 1
        return shape[self.input_axis(rank)] * kernel // (self.group if self.kind.groups_on_inputs else 1)

    def along_channels(self, factor: Array, shape: tuple[int, ...]) -> Array:
        """One factor per output channel, or one for all, made broadcastable against the weight."""
        return along(factor, shape, None if factor.size == 1 else self.channel_axis(len(shape)))

    def along_result(self, factor: Array, rank: int) -> Array:
        """One factor per output channel, made broadcastable against a result of that rank."""
        return factor.reshape([-1, *[1] * (rank - 2)]) if self.kind.result_axis == 1 else factor.reshape(-1)

    def summed(self, weight: Array) -> tuple[Array, tuple[int, ...]]:
        """A view of the weight, and those of its axes over which one output channel sums.

        The axes that are left hold the output channels in their order (behind a batch, for a MatMul of more axes).
        """
        if not self.kind.convolution:
            return weight, (self.input_axis(weight.ndim),)
        if self.kind.groups_on_inputs:
            return weight.reshape(self.group, weight.shape[0] // self.group, weight.shape[1], -1), (1, 3)
        return weight.reshape(weight.shape[0], -1), (1,)

    def by_channel(self, weight: Array) -> Array:
        """The weight as [output channels, products]."""
        view, axes = self.summed(weight)
        left = [a for a in range(view.ndim) if a not in axes]
        return view.transpose(*left, *axes).reshape(math.prod(view.shape[a] for a in left), -1)


def layout_of(node: ir.Node) -> Layout | None:
    """The layout of a node's weight; None when the operator is not in the table."""
    kind = LAYER_KINDS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if kind is None:
        return None
    group = attribute(node, "group", 1) if kind.convolution else 1
    return Layout(kind, group, node.op_type == "Gemm" and bool(attribute(node, "transB", 0)))


def bias_of(node: ir.Node) -> ir.Value | None:
    """The bias of a layer; None when it has none or its operator takes none."""
    kind = LAYER_KINDS.get(node.op_type)
    index = kind.bias_input if kind is not None else None
    return node.inputs[index] if index is not None and len(node.inputs) > index else None


def along(factor: Array, shape: tuple[int, ...], axis: int | None) -> Array:
    """A flat factor laid along one axis, so that it broadcasts against an array of that shape.

    Args:
        factor: [1], [shape[axis]], or a multiple of that: one per output channel of a grouped ConvTranspose, whose axis
            counts the channels of one group. Its rows along axis 0 are those of one group after another.
        shape: shape of the array.
        axis: None for one factor for all.
    """
    layout = [1] * len(shape)
    if axis is None:
        return factor.reshape(layout)
    if factor.size == shape[axis]:
        layout[axis] = -1
        return factor.reshape(layout)
    layout[0], layout[axis] = factor.size // shape[axis], shape[axis]
    return np.repeat(factor.reshape(layout), shape[0] // layout[0], axis=0)


def part_of(factor: Array, index: tuple[slice, ...]) -> Array:
    """The part of a factor laid ``along`` a weight that belongs to a block of the weight.

    Args:
        factor: array of the weight's rank; an axis of size 1 holds one factor for all.
        index: where the block lies, by the leading axes.
    """
    return factor[tuple(i if n > 1 else slice(None) for i, n in zip(index, factor.shape, strict=False))]
