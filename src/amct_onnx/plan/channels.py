"""A weight seen by its output channels: one scale and one sign for each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.plan.factors import Weight
from amct_onnx.plan.refusal import Refusal
from amct_onnx.plan.weights import ResolvedWeight


def channel_scales(
    node: ir.Node, weight: ResolvedWeight, channel_axis: int, channels: int, group: int
) -> npt.NDArray[np.float32]:
    """The weight's scales along the output channels: float32 [1] or [channels].

    A grouped ConvTranspose that holds those of one group has them repeated for each.

    Raises:
        Refusal: The scales belong to another axis, or their number fits no axis; a grouped asymmetric weight.
    """
    if weight.axis is not None and weight.axis != channel_axis:
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
    if node.op_type == "ConvTranspose" and weight.scale.size * group == channels:
        return np.tile(weight.scale, group)
    raise Refusal(
        "weight-scale-length", f"{weight.scale.size} scales for {channels} output channels", "Export the model again."
    )


def _by_channel(
    integers: npt.NDArray[np.int8], channel_axis: int, signs: npt.NDArray[np.int8], group: int
) -> npt.NDArray[np.int8]:
    """Factors -1, 0, 1 of each output channel, broadcastable against the weight."""
    layout = [1] * integers.ndim
    if signs.size == 1:
        return signs.reshape(layout)
    layout[channel_axis] = integers.shape[channel_axis]
    if signs.size == integers.shape[channel_axis]:
        return signs.reshape(layout)
    # grouped ConvTranspose: [Cin, Cout / group, ...], the rows of one group after another
    layout[0] = group
    return np.repeat(signs.reshape(layout), integers.shape[0] // group, axis=0)


def negatable(weight: ResolvedWeight, channel_axis: int, signs: npt.NDArray[np.int8], group: int) -> bool:
    """Whether no -128 would become 128."""
    if not np.any(signs < 0):
        return True
    integers = weight.integers()
    lowest = integers == arithmetic.INT8_MIN
    return not bool(np.any(lowest & (_by_channel(integers, channel_axis, signs, group) < 0)))


def signed_weight(
    resolved: ResolvedWeight,
    scale: npt.NDArray[np.float32],
    channel_axis: int,
    signs: npt.NDArray[np.int8],
    group: int,
    turned: bool,
) -> Weight:
    """The weight in the layout of the output models, each channel times its sign (-1, 0 or 1).

    Args:
        resolved: int8 integers.
        scale: float32 [1] or [channels], already positive.
        channel_axis: axis of the output channels in the source's layout.
        signs: int8 [1] or [channels].
        group: of a convolution.
        turned: whether the layer reads the weight transposed (Gemm transB).
    """

    def integers() -> npt.NDArray[np.int8]:
        result = resolved.integers()
        if np.any(signs != 1):
            result = result * _by_channel(result, channel_axis, signs, group)
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
