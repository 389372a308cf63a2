"""Sums of floats without rounding, so that the order in which parts are merged cannot matter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from amct_onnx.common.json_values import JsonText

FRACTION_BITS = 1074
"""Every finite float64 is a multiple of 2^-1074, its smallest subnormal number."""


@dataclass
class ExactSum(JsonText):
    """A sum of float64 numbers, held as an integer in units of 2^-1074."""

    units: int = 0

    def add(self, number: float) -> None:
        """Add one finite number."""
        whole, parts = number.as_integer_ratio()  # parts is a power of two, 2^1074 at most
        self.units += whole << (FRACTION_BITS + 1 - parts.bit_length())

    def add_all(self, numbers: Iterable[float]) -> None:
        """Add finite numbers; ``fsum`` is no shortcut here, as it rounds."""
        for number in numbers:
            self.add(number)

    def merge(self, other: ExactSum) -> None:
        """Add another sum."""
        self.units += other.units

    @property
    def value(self) -> float:
        """The sum, rounded once; infinity beyond float64."""
        try:
            return float(Fraction(self.units, 2**FRACTION_BITS))
        except OverflowError:
            return math.inf if self.units > 0 else -math.inf

    def to_text(self) -> str:
        """For a file."""
        return hex(self.units)

    @classmethod
    def from_text(cls, text: str) -> ExactSum:
        """From a file."""
        return cls(int(text, 16))
