"""Floating-point types of 8 and 4 bits: which numbers they hold, and rounding to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from amct_onnx.common.arrays import Array, Float32


@dataclass(frozen=True)
class SmallFloat:
    """A type of small floating-point numbers, as the ONNX specification's tables of Cast and QuantizeLinear give it.

    Attributes:
        name: as ONNX names it.
        lowest_exponent: exponent of the smallest normal number; the smaller ones are evenly spaced.
        mantissa: bits of the fraction.
        largest: largest finite number.
        beyond: what a number beyond it becomes where it does not saturate; NaN or infinity.
        saturates: whether a number beyond it becomes the largest one.
    """

    name: str
    lowest_exponent: int
    mantissa: int
    largest: int
    beyond: float = math.nan
    saturates: bool = True

    @property
    def binades(self) -> int:
        """How many exponents the normal numbers have."""
        return math.frexp(self.largest)[1] - self.lowest_exponent

    @property
    def limit(self) -> float:
        """Smallest magnitude that rounds beyond the largest number, or the one just below it: see ``limit_rounds_up``.

        It is the middle between the largest number and the one that would follow.
        """
        return self.largest + 2.0 ** (math.frexp(self.largest)[1] - 2 - self.mantissa)

    @property
    def limit_rounds_up(self) -> bool:
        """Whether the middle itself goes beyond: it goes to the neighbour whose last bit is 0."""
        return bool(self.largest >> (math.frexp(self.largest)[1] - 1 - self.mantissa) & 1)

    def rounded(self, numbers: Array) -> Float32:
        """The nearest numbers of the type, float32 of the shape of ``numbers``; a tie goes to the even one."""
        x = numbers.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            inside = np.clip(x, -self.largest, self.largest)
            exponent = np.maximum(np.frexp(inside)[1] - 1, self.lowest_exponent)
            step = np.ldexp(np.float32(1), exponent - self.mantissa)
            result = np.rint(inside / step) * step
            if not self.saturates:
                over = np.greater_equal if self.limit_rounds_up else np.greater
                result = np.where(over(np.abs(x), self.limit), np.copysign(np.float32(self.beyond), x), result)
        return np.asarray(result, np.float32)


SMALL_FLOATS = {
    f.name: f
    for f in (
        SmallFloat("FLOAT8E4M3FN", -6, 3, 448),
        SmallFloat("FLOAT8E4M3FNUZ", -7, 3, 240),
        SmallFloat("FLOAT8E5M2", -14, 2, 57344, math.inf),
        SmallFloat("FLOAT8E5M2FNUZ", -15, 2, 57344),
        SmallFloat("FLOAT4E2M1", 0, 1, 6),
    )
}
"""Name -> the type."""
