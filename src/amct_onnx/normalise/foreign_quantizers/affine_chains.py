"""Chains of operators around a Round that scale, shift and clip one tensor by constants, and the grid they round to.

    n = round(clip(a * x + b)),    y = e * clip(n) + f

That is a quantizer of scale e where e = 1 / a, f = -e * b, b is integral and the bounds of n are integers. Where a < 0
it is one of scale -e and integers -n: rounding to even is symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.normalise.foreign_quantizers.grid import ZERO_POINT_TOLERANCE, Grid

INT8, UINT8, INT16 = (-128, 127), (0, 255), (-32768, 32767)


@dataclass(frozen=True)
class Step:
    """One operator: value * sign * factor + offset, then clipped to low..high; each broadcastable, in float64.

    Attributes:
        sign: -1 where the operator negates.
        factor, offset: of the step.
        low, high: of the step; of a Cast to an integer type what the type holds.
        integer: True for a Cast to an integer type, False for one to a float type, else None.
    """

    sign: float = 1.0
    factor: Array | float | None = None
    offset: Array | float = 0.0
    low: Array | float = -np.inf
    high: Array | float = np.inf
    integer: bool | None = None


SAME = Step()


def grid_of(before: list[Step], after: list[Step], floor: float, tolerance: float) -> Grid | str | None:
    """The grid that a chain rounds to.

    Args:
        before: the steps in front of Round, from the first on.
        after: those behind it.
        floor: what the chain's input is never below: 0 behind a Relu, else -inf.
        tolerance: of e * a, by the float type.

    Returns:
        The grid; why the chain is not a quantizer, where it is near one; None where it is something else.
    """
    if not all(any(s.factor is not None for s in steps) for steps in (before, after)):
        return None
    factors = [s.factor for s in [*before, *after] if s.factor is not None]
    if _ends_integer(after):
        return None
    clips = any(np.any(np.isfinite(s.low)) or np.any(np.isfinite(s.high)) for s in [*before, *after])
    if not all(np.all(np.isfinite(f) & np.not_equal(f, 0)) for f in factors):
        return "has a scale that is 0 or not finite" if clips else None
    try:
        first = _Line.of(before, floor, np.inf)
        if first is None:
            return None
        second = _Line.of(after, np.rint(first.low), np.rint(first.high))
        if second is None:
            return None
        if not np.all(np.abs(first.factor * second.factor - 1) <= tolerance):
            return "scales back by another number than it divides by" if clips else None
        scale, zero = np.abs(second.factor), np.rint(first.offset) * np.sign(second.factor)
        apart = np.abs(first.offset + second.offset / second.factor)
        low, high = (second.low - second.offset) / scale, (second.high - second.offset) / scale
    except ValueError:  # factors of different axes
        return None
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        return None
    off_integer = np.abs(first.offset - np.rint(first.offset))
    if np.any(off_integer > ZERO_POINT_TOLERANCE) or np.any(apart > ZERO_POINT_TOLERANCE):
        return "has a zero point that is not an integer"
    if _halfway(first.low) or _halfway(first.high) or _fractional(low) or _fractional(high):
        return "clips at numbers that are not on its grid"
    return _written(scale, zero, np.rint(low), np.rint(high))


@dataclass(frozen=True)
class _Line:
    """What steps make of a number: number * factor + offset, in low..high."""

    factor: Array
    offset: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, steps: list[Step], low: Array | float, high: Array | float) -> _Line | None:
        """The steps together, for numbers in low..high; None where a Cast meets numbers that its type lacks."""
        factor, offset = np.ones(()), np.zeros(())
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        for step in steps:
            scale = step.sign * (1.0 if step.factor is None else step.factor)
            factor, offset = factor * scale, offset * scale + step.offset
            ends = low * scale + step.offset, high * scale + step.offset
            low, high = np.minimum(*ends), np.maximum(*ends)
            if step.integer and not (np.all(low >= step.low) and np.all(high <= step.high)):
                return None
            low, high = np.clip(low, step.low, step.high), np.clip(high, step.low, step.high)
        return cls(factor, offset, low, high)


def _ends_integer(steps: list[Step]) -> bool:
    casts = [s.integer for s in steps if s.integer is not None]
    return bool(casts and casts[-1])


def _written(scale: Array, zero: Array, low: Array, high: Array) -> Grid | str:
    """The grid with a zero point that an integer type holds."""
    if np.any(low >= high):
        return "clips to less than two steps"
    first, last = np.unique(low - zero), np.unique(high - zero)
    if first.size == last.size == 1:
        start, end = int(first[0]), int(last[0])
        fitting = (start, end)
        if not any(kind[0] <= start and end <= kind[1] for kind in (INT8, UINT8)):
            wide = INT8 if end - start <= 255 else INT16
            if wide is INT16 and INT16[0] <= start and end <= INT16[1]:
                wide = fitting
            fitting = (wide[0], wide[0] + end - start)
        shift = fitting[0] - start
        return Grid.of(scale.astype(np.float32), np.full(scale.shape, float(shift)), *fitting)
    if np.unique(low).size == np.unique(high).size == 1:
        return Grid.of(scale.astype(np.float32), zero, int(low.flat[0]), int(high.flat[0]))
    return "clips each channel to a range of its own"


def _fractional(bounds: Array) -> bool:
    finite = bounds[np.isfinite(bounds)]
    return bool(np.any(np.abs(finite - np.rint(finite)) > ZERO_POINT_TOLERANCE))


def _halfway(bounds: Array) -> bool:
    """Whether rounding a bound could go either way."""
    finite = bounds[np.isfinite(bounds)]
    return bool(np.any(np.abs(finite - np.floor(finite) - 0.5) < ZERO_POINT_TOLERANCE))
