"""A weight that does not fit int8 after subtracting its zero point: it is shifted into int8, at the price of a sum.

With w = (q + shift) * scale, sum(x * w) = scale * sum(x * q) + scale * shift * sum(x). The last sum is a layer of one
output channel whose weights are all 1; it reads the same quantized input. Nothing is rounded on the way but the two
float results and their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT8_MAX, INT8_MIN
from amct_onnx.common.arrays import Array, Int8, Int64
from amct_onnx.files.file_tensor import Index
from amct_onnx.graph.layers import along, part_of
from amct_onnx.graph.refused import Refusal
from amct_onnx.plan.settings import SUM, PlanSettings

MOVED = "asymmetric weight moved to zero point 0, which int8 holds for these values"
SHIFTED = (
    "asymmetric weight shifted into int8; the sum of the layer's input, times the shift, is added by a layer of one "
    "output channel"
)


Blocks = Iterator[tuple[Index, Array]]
"""Consecutive parts of a tensor and where they lie; each is overwritten by the next one."""


def ends_of(blocks: Blocks, shape: tuple[int, ...], axis: int | None, size: int) -> tuple[Int64, Int64]:
    """Smallest and largest integer (0 included) of each slice along the axis, of the whole tensor when it is None.

    A grouped ConvTranspose with a factor for each output channel (``size`` exceeds the axis) is taken as a whole.
    """
    if axis is not None and size != shape[axis]:
        axis = None
    low, high = (np.zeros(1 if axis is None else shape[axis], np.int64) for _ in range(2))
    for index, block in blocks:
        others = tuple(a for a in range(block.ndim) if a != axis)
        here = index[axis] if axis is not None and axis < len(index) else slice(None)
        low[here] = np.minimum(low[here], block.min(axis=others, initial=0))
        high[here] = np.maximum(high[here], block.max(axis=others, initial=0))
    return low, high


def shift_into_int8(ends: tuple[Int64, Int64], value: ir.Value, settings: PlanSettings) -> Int64 | None:
    """The smallest number for each slice that brings its integers into int8 when subtracted; None when all are 0.

    Raises:
        Refusal: Integers beyond int8, unless the settings ask for the sum that makes up for a shift.
    """
    low, high = ends
    shift = np.maximum(high - INT8_MAX, 0) + np.minimum(low - INT8_MIN, 0)
    if not np.any(shift):
        return None
    fits = bool(np.all(high - low <= INT8_MAX - INT8_MIN))
    if not fits or settings.asymmetric_weights != SUM:
        remedy = "Train with symmetric weights: Ascend requires offset_w = 0."
        raise Refusal(
            "weight-asymmetric",
            f"its weight '{value.name}' is asymmetric: after subtracting the zero point its integers reach from "
            f"{int(low.min())} to {int(high.max())}, which does not fit int8",
            f"{remedy} Or convert with asymmetric_weights 'sum'." if fits else remedy,
        )
    return shift


def shifted(
    numbers: Callable[[], Blocks],
    shift: Int64 | None,
    shape: tuple[int, ...],
    axis: int | None,
) -> Callable[[], Iterator[Int8]]:
    """The integers minus their shift, which fit int8."""
    wide = None if shift is None else along(shift.astype(np.int16), shape, axis)

    def blocks() -> Iterator[Int8]:
        for index, part in numbers():
            moved = part if wide is None else part - part_of(wide, index)
            yield moved.astype(np.int8, copy=False)

    return blocks
