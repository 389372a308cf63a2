"""A weight by output channels: one scale and one sign for each."""

from __future__ import annotations

import numpy as np

from amct_onnx.common import arithmetic
from amct_onnx.common.arrays import Float32, Int8
from amct_onnx.graph.layers import Layout
from amct_onnx.graph.refused import Refusal
from amct_onnx.plan.factors import Weight
from amct_onnx.plan.weights import ResolvedWeight


def channel_scales(weight: ResolvedWeight, layout: Layout) -> Float32:
    """The weight's scales along the output channels: float32 [1] or [channels].

    A grouped ConvTranspose that holds those of one group has them repeated for each. Equal scales may lie on any axis;
    in a depthwise ConvTranspose the axis of the inputs tells the output channels as well.

    Raises:
        Refusal: The scales belong to another axis, or their number fits no axis; a grouped asymmetric weight.
    """
    rank, channels, group = len(weight.shape), layout.channels(weight.shape), layout.group
    channel_axis = layout.channel_axis(rank)
    if weight.axis is not None and weight.axis != channel_axis:
        if weight.shift is None and np.all(weight.scale == weight.scale[0]):
            return weight.scale[:1]
        if (
            layout.kind.groups_on_inputs
            and weight.axis == layout.input_axis(rank)
            and group == weight.shape[weight.axis]
        ):
            # one input channel for each group: its scale is that of all output channels of the group
            return np.repeat(weight.scale, channels // group)
        raise Refusal(
            "weight-axis",
            f"the scales of '{weight.name}' belong to axis {weight.axis}; the output channels are axis {channel_axis}",
            "Quantize the weight along its output channels.",
        )
    if weight.shift is not None and group > 1:
        raise Refusal(
            "weight-asymmetric",
            f"its weight '{weight.name}' is asymmetric beyond int8, and a sum of the input for each of {group} groups "
            "would cost more than it gains",
            "Train with symmetric weights: Ascend requires offset_w = 0.",
        )
    if weight.scale.size in (1, channels):
        return weight.scale
    if layout.kind.groups_on_inputs and weight.scale.size * group == channels:
        return np.tile(weight.scale, group)
    raise Refusal(
        "weight-scale-length", f"{weight.scale.size} scales for {channels} output channels", "Export the model again."
    )


def negatable(weight: ResolvedWeight, signs: Int8, layout: Layout) -> bool:
    """Whether flipping the signs makes no -128 into 128."""
    if not np.any(signs < 0):
        return True
    integers = weight.integers()
    lowest = integers == arithmetic.INT8_MIN
    return not bool(np.any(lowest & (layout.along_channels(signs, weight.shape) < 0)))


def signed_weight(
    resolved: ResolvedWeight,
    scale: Float32,
    signs: Int8,
    layout: Layout,
) -> Weight:
    """The weight in the layout of the output models, each channel times its sign (-1, 0 or 1).

    Args:
        resolved: int8 integers.
        scale: float32 [1] or [channels], already positive.
        signs: int8 [1] or [channels].
        layout: layout of the weight in the source; a transposed one is turned.
    """
    turned = layout.transposed

    def integers() -> Int8:
        result = resolved.integers()
        if np.any(signs != 1):
            result = result * layout.along_channels(signs, resolved.shape)
        return np.ascontiguousarray(result.T) if turned else result

    straight = not turned and not np.any(signs != 1)
    return Weight(
        integers,
        resolved.shape[::-1] if turned else resolved.shape,
        scale,
        resolved.name,
        (*resolved.key, turned, signs.tobytes() if np.any(signs != 1) else b""),
        resolved.blocks if straight else None,
    )
