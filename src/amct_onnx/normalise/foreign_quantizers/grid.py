"""The grid that a fake-quant node rounds to, and its arithmetic.

    q = round(min(max(x / scale + zero_point, low), high)),    y = (q - zero_point) * scale

QuantizeLinear adds the zero point after rounding: at an exact tie an odd zero point picks the other neighbour, one step
away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array

ROUNDING: dict[str, tuple[bool, float, str]] = {
    "ROUND": (False, 0.0, "Round"),
    "HALF_EVEN": (False, 0.0, "Round"),
    "CEIL": (False, 0.0, "Ceil"),
    "FLOOR": (False, 0.0, "Floor"),
    "UP": (True, 0.0, "Ceil"),
    "DOWN": (True, 0.0, "Floor"),
    "ROUND_TO_ZERO": (True, 0.0, "Floor"),
    "HALF_UP": (True, 0.5, "Floor"),
    "HALF_DOWN": (True, -0.5, "Ceil"),
}
"""Mode -> (on the magnitude, the sign put back after; what is added first; the operator that rounds)."""
NUMPY = {"Round": np.rint, "Ceil": np.ceil, "Floor": np.floor}
TYPES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
"""Types of a quantized activation: the first that holds range and zero point is taken."""
ZERO_POINT_TOLERANCE = 1e-3
"""A zero point computed from a float32 range is integral to about 256 * 2^-24 * 2; farther off, zero is on no grid."""


@dataclass(frozen=True)
class Grid:
    """What a foreign node computes: q from ``scale`` and ``zero``, the result from ``out_scale`` and ``out_zero``.

    Attributes:
        scale, zero: broadcastable against the tensor; zero in float64.
        low, high: smallest and largest q.
        rounding: a key of ROUNDING.
        out_scale, out_zero: like scale and zero.
    """

    scale: Array
    zero: Array
    low: int
    high: int
    out_scale: Array
    out_zero: Array
    rounding: str = "ROUND"

    @classmethod
    def of(cls, scale: Array, zero: Array, low: int, high: int, rounding: str = "ROUND") -> Grid:
        """A grid whose results lie on it."""
        return cls(scale, zero, low, high, scale, zero, rounding)

    @property
    def same_out(self) -> bool:
        """Whether the result lies on the grid that was rounded to."""
        return np.array_equal(self.scale, self.out_scale) and np.array_equal(self.zero, self.out_zero)

    @property
    def factors(self) -> tuple[Array, Array, Array, Array]:
        """Scale and zero point, then those of the result."""
        return self.scale, self.zero, self.out_scale, self.out_zero


def integers(x: Array, grid: Grid) -> Array:
    """The q of the formula: the division in float32, the rest exact."""
    ratio = (x.astype(np.float32) / grid.scale).astype(np.float64) + grid.zero
    ratio = np.clip(ratio, grid.low, grid.high)
    magnitude, first, op_type = ROUNDING[grid.rounding]
    if magnitude:
        return np.asarray(np.sign(ratio) * NUMPY[op_type](np.abs(ratio) + first))
    return np.asarray(NUMPY[op_type](ratio + first))


def integer_range(bits: int, signed: bool | int, narrow: bool | int = False) -> tuple[int, int]:
    """Smallest and largest integer of so many bits; a narrow range lacks the one that has no counterpart."""
    if signed:
        return int(bool(narrow)) - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - int(bool(narrow))


def integral(zero: Array) -> Array:
    """Zero points, rounded where they miss an integer by float32 rounding only."""
    near = np.rint(zero)
    return np.where(np.abs(zero - near) < ZERO_POINT_TOLERANCE, near, zero)


def toward_int8(grid: Grid) -> Grid:
    """The same grid counted from zero where it fits int8, because symmetric quantizers are simplest to use."""
    zero = int(grid.zero.reshape(-1)[0])
    if np.any(grid.zero != zero) or grid.low - zero < -128 or grid.high - zero > 127:
        return grid
    none = np.zeros_like(grid.zero)
    return replace(grid, low=grid.low - zero, high=grid.high - zero, zero=none, out_zero=none)


def limits(kind: ir.DataType) -> tuple[int, int]:
    """Smallest and largest integer of a type."""
    info = np.iinfo(kind.numpy())
    return int(info.min), int(info.max)


def holds(kind: ir.DataType, grid: Grid, zero: Array) -> bool:
    """Whether a type holds the integers of a grid and this zero point."""
    first, last = limits(kind)
    return bool(first <= min(grid.low, zero.min()) and max(grid.high, zero.max()) <= last)


def type_for(grid: Grid) -> ir.DataType | None:
    """The first of TYPES that holds a grid, if any."""
    return next((t for t in TYPES if holds(t, grid, grid.zero)), None)
