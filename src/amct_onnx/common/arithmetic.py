"""Quantization arithmetic on numpy arrays, one small pure function per formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_onnx.common.arrays import Array, Float32, Float64, Int64

INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
FLOAT16_TINY, FLOAT16_MAX = 2.0**-14, 65504.0
"""Smallest normal and largest finite float16."""
COMMON_DEQUANT_SCALE = FLOAT16_TINY
"""The one AscendDequant scale of a per-channel Gemm or MatMul.

A power of two, so that int32 -> float32 -> times scale adds no rounding (nor does the device's truncation of the
scale to 10 mantissa bits); the smallest non-zero accumulator, 1, maps to the smallest normal float16, and the float16
range is left only by an accumulator beyond 65504 * 2^14, about 2^30.
"""


def reciprocal(scale_d: np.float32) -> np.float32:
    """AscendQuant's ``scale`` attribute: float32(1 / scale_d)."""
    with np.errstate(over="ignore"):
        return np.float32(1.0) / np.float32(scale_d)


Limit = int | Int64


class QuantizationScratch:
    """Quotients and integers of one block, overwritten by the next: fresh memory would cost as much as the arithmetic.

    Args:
        dtype: of the integers.
    """

    def __init__(self, dtype: type[np.signedinteger[Any]]) -> None:
        self._quotients = np.empty(0, np.float32)
        self._integers: Array = np.empty(0, dtype)

    def of(self, shape: tuple[int, ...]) -> tuple[Float32, Array]:
        """Two arrays of a shape, of any content."""
        size = math.prod(shape)
        if size > self._quotients.size:
            self._quotients, self._integers = (np.empty(size, a.dtype) for a in (self._quotients, self._integers))
        return self._quotients[:size].reshape(shape), self._integers[:size].reshape(shape)


def quantize_weight(
    values: npt.NDArray[np.generic],
    scale: Float32,
    low: Limit,
    high: Limit,
    scratch: QuantizationScratch,
) -> Array:
    """clip(round(values / scale), low, high) with the division in float32 (ONNX QuantizeLinear less its zero point).

    Args:
        values: float array.
        scale: float32, broadcastable against values.
        low: smallest result; an array broadcastable against values where zero points differ.
        high: largest result, likewise.
        scratch: where the result lies until the next call; its type must hold low and high.

    Raises:
        ValueError: A value is infinite or not a number.
    """
    ratio, integers = scratch.of(values.shape)
    with np.errstate(over="ignore"):
        # the quotient of a finite value may become infinite, which saturates
        np.divide(values.astype(np.float32, copy=False), scale, out=ratio)
    np.rint(ratio, out=ratio)
    if ratio.size:
        # both ends are cheaper than clipping, which most weights do not need; no comparison holds for a NaN
        lowest, highest = ratio.min(), ratio.max()
        if not (np.max(low) <= lowest and highest <= np.min(high)):
            if not (np.isfinite(lowest) and np.isfinite(highest)) and not np.all(np.isfinite(values)):
                position = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
                raise ValueError(f"it holds {values[tuple(position)]}, for which no integer stands")
            np.clip(ratio, low, high, out=ratio)
    np.copyto(integers, ratio, casting="unsafe")
    return integers


def dequantize_scale(scale_d: np.float32, scale_w: Float32) -> Float32:
    """float32(scale_w * scale_d), shape of scale_w."""
    with np.errstate(over="ignore"):
        return np.asarray(scale_w, np.float32) * np.float32(scale_d)


def common_scale_ratio(deq_scale: Float32) -> Float32:
    """deq_scale / COMMON_DEQUANT_SCALE, which only changes the exponent; infinite beyond 2^114."""
    with np.errstate(over="ignore"):
        return deq_scale / np.float32(COMMON_DEQUANT_SCALE)


def bias_integers(bias: npt.NDArray[np.generic], deq_scale: Float32) -> Float64:
    """round(bias / deq_scale) with the division in float32, as integer-valued float64 so that overflow stays visible.

    Args:
        bias: float array [channels].
        deq_scale: float32, length 1 or channels.
    """
    with np.errstate(over="ignore"):
        result: Float64 = np.rint(bias.astype(np.float32) / deq_scale).astype(np.float64)
    return result


def pack_deq_scale(deq_scale: Float32) -> npt.NDArray[np.uint64]:
    """The float32 bits of each scale, zero-extended to uint64 (shift N and offset_w are 0)."""
    return np.ascontiguousarray(deq_scale, np.float32).view(np.uint32).astype(np.uint64)
