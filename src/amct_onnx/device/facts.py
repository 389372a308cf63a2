"""Static facts of an integer layer: what is known about its accumulator and scales without running it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from amct_onnx.common.arithmetic import FLOAT16_MAX, FLOAT16_TINY, INT8_MAX, INT8_MIN, INT32_MAX
from amct_onnx.common.arrays import Int64
from amct_onnx.graph.layers import Layout

Kernel = Literal["float32", "split", "integer", "average"]
EXACT_IN_FLOAT32 = 2**24
"""float32 holds every integer up to this."""


@dataclass(frozen=True)
class LayerFacts:
    """Facts about one integer layer of a deploy model.

    Attributes:
        name, op_type: of the layer's node.
        quantizer: name of the AscendQuant that it reads, "" when it reads another int8 tensor.
        dequantizer: name of its AscendDequant, "" when there is none.
        scale, offset: of that AscendQuant (scale is the reciprocal of scale_d); None without one.
        kernel: ``float32`` (proven exact), ``split`` (parts of the input channels, each proven exact in float32, summed
            in int32), ``integer`` (ConvInteger, MatMulInteger) or ``average`` (an int8 AveragePool, in float32).
        largest_sum: bound of any partial sum of (q - offset) * w plus |bias|; at most 2^24 for kernel ``float32``. None
            when both operands are activations.
        worst_accumulator: |bias| + |offset * sum(w)| + 128 * sum(|w|), the device's bound; None as above.
        deq_scale: smallest and largest dequantization scale, or None.
        warnings: what is out of specification or not simulated, one sentence each.
    """

    JSON_ALSO = ("exact_in_float32", "deq_scale_in_float16")

    name: str
    op_type: str
    quantizer: str
    dequantizer: str
    scale: float | None
    offset: int | None
    kernel: Kernel
    largest_sum: int | None
    worst_accumulator: int | None
    deq_scale: tuple[float, float] | None
    warnings: tuple[str, ...]

    @property
    def exact_in_float32(self) -> bool:
        """The certificate: float32 holds every partial sum."""
        return self.largest_sum is not None and self.largest_sum <= EXACT_IN_FLOAT32

    @property
    def deq_scale_in_float16(self) -> bool:
        """Whether all dequantization scales lie in float16's normal range; else 310 and 910 apply their roots twice."""
        return self.deq_scale is None or (self.deq_scale[0] >= FLOAT16_TINY and self.deq_scale[1] <= FLOAT16_MAX)


@dataclass(frozen=True)
class WeightSums:
    """Sums over the weights of each output channel: one of the positive weights, one of the negated negative ones."""

    positive: Int64
    negative: Int64


def weight_sums(layout: Layout, weight: npt.NDArray[np.generic]) -> WeightSums:
    """Per output channel, shape [channels].

    Args:
        layout: layout of the layer.
        weight: int8 in the operator's layout.
    """
    view, axes = layout.summed(weight)
    # int32 sums take half the time, and hold those of 2^23 weights for each channel
    dtype = np.int32 if math.prod(view.shape[a] for a in axes) <= 2**23 else np.int64
    total = view.sum(axis=axes, dtype=dtype).astype(np.int64)
    positive = np.maximum(view, 0).sum(axis=axes, dtype=dtype).astype(np.int64)
    return WeightSums(positive.reshape(-1), (positive - total).reshape(-1))


def bias_bound(bias: npt.NDArray[np.int32], sums: WeightSums | None, *, by_channel: bool = True) -> Int64:
    """|bias| per output channel, shape [channels]; its largest element, shape [1], when it is not one row of them.

    Args:
        bias: int32, any shape that broadcasts against the result.
        sums: sums of the layer; None when its channels are unknown.
        by_channel: False when the result's last axis is not that of the channels.
    """
    size: Int64 = np.abs(bias.astype(np.int64))
    channels = sums.positive.size if sums is not None else None
    row = by_channel and size.ndim > 0 and size.size == size.shape[-1] == channels
    return size.reshape(-1) if row else size.max(initial=0).reshape(1)


def largest_sum(sums: WeightSums, offset: int, bias: Int64) -> int:
    """Bound of |any partial sum of (q - offset) * w| + |bias| over channels, in whatever order the terms are added.

    ``bias`` has shape [channels] or [1].

    q - offset lies in [-128 - offset, 127 - offset], which holds 0. A partial sum is largest when it takes every
    positive term and no other. For offset 0 this is at most 128 * sum(|w|) + |bias|.
    """
    low, high = offset - INT8_MIN, INT8_MAX - offset
    up = sums.positive * high + sums.negative * low
    down = sums.positive * low + sums.negative * high
    return int((np.maximum(up, down) + np.abs(bias)).max(initial=0))


def worst_accumulator(sums: WeightSums, offset: int, bias: Int64) -> int:
    """Max over channels of |bias| + |offset * sum(w)| + 128 * sum(|w|): the device folds the offset into the bias.

    ``bias`` has shape [channels] or [1].
    """
    folded = np.abs(offset * (sums.positive - sums.negative))
    return int((folded + 128 * (sums.positive + sums.negative) + np.abs(bias)).max(initial=0))


def out_of_specification(worst: int | None, scale: float | None, deq_scale: tuple[float, float] | None) -> list[str]:
    """Warnings: accumulators beyond int32, scales beyond float16."""
    sentences: list[str] = []
    if worst is not None and worst > INT32_MAX:
        sentences.append(
            f"out of specification: its accumulator may reach {worst}, beyond 2^31 - 1; what a device then does is not "
            "public"
        )
    if scale is not None and not FLOAT16_TINY <= scale <= FLOAT16_MAX:
        sentences.append(
            f"AscendQuant's scale {scale:.6g} lies outside float16's range [2^-14, 65504]: GE applies its root twice"
        )
    if deq_scale is not None and deq_scale[1] > FLOAT16_MAX:
        sentences.append(f"its dequantization scale {deq_scale[1]:.6g} exceeds float16's largest number")
    return sentences
