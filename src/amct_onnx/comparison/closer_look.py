"""A second look at one layer's output on one batch: is the error a constant per channel, or a factor?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Look:
    """How much of a layer's squared error has a simple form.

    Attributes:
        constant: share that a constant per channel explains.
        linear: share that a constant and a factor per channel explain.
        offset: the constant of each channel, float64 [channels].
        factor: median over the channels of other / source.
    """

    constant: float
    linear: float
    offset: Array
    factor: float


def look(source: Array, other: Array, axis: int) -> Look:
    """Fit other - source = offset + slope * source for each channel along ``axis``."""
    a = np.moveaxis(source.astype(np.float64), axis, 0).reshape(source.shape[axis], -1)
    b = np.moveaxis(other.reshape(source.shape).astype(np.float64), axis, 0).reshape(source.shape[axis], -1)
    d = b - a
    total = float((d**2).sum())
    if total == 0 or not np.isfinite(total):
        return Look(0.0, 0.0, np.zeros(len(a)), 1.0)
    mean = d.mean(axis=1, keepdims=True)
    centred_a, centred_d = a - a.mean(axis=1, keepdims=True), d - mean
    power = (centred_a**2).sum(axis=1)
    slope = np.divide((centred_a * centred_d).sum(axis=1), power, out=np.zeros(len(a)), where=power > 0)
    left_by_mean = float((centred_d**2).sum())
    left_by_line = float(((centred_d - slope[:, None] * centred_a) ** 2).sum())
    return Look(1 - left_by_mean / total, 1 - left_by_line / total, mean.reshape(-1), float(1 + np.median(slope)))
