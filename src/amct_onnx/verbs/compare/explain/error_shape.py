"""The form of an error: is it a constant per channel, or a factor?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amct_onnx.common.arrays import Array


@dataclass(frozen=True)
class Look:
    """How much of a squared error has a simple form.

    Attributes:
        constant: share that a constant per channel explains.
        linear: share that a constant and a factor per channel explain.
        worst: channel with the largest squared error.
        offset, factor: other = offset + factor * own in that channel.
    """

    constant: float
    linear: float
    worst: int
    offset: float
    factor: float


def look(own: Array, other: Array, axis: int | None, wrong: Array) -> Look:
    """Fit other - own = offset + slope * own for each wrong channel along ``axis``.

    Args:
        own: float64.
        other: float64, the same shape.
        axis: of the channels; None for one channel.
        wrong: bool per channel; the others are noise.
    """
    if axis is None:
        a, b = own.reshape(1, -1), other.reshape(1, -1)
    else:
        a, b = (np.moveaxis(v, axis, 0).reshape(v.shape[axis], -1) for v in (own, other))
    channels = np.flatnonzero(wrong)
    a, d = a[channels], (b - a)[channels]
    squares = (d**2).sum(axis=1)
    total = float(squares.sum())
    if total == 0 or not np.isfinite(total):
        return Look(0.0, 0.0, int(channels[0]) if channels.size else 0, 0.0, 1.0)
    mean = d.mean(axis=1, keepdims=True)
    centred_a, centred_d = a - a.mean(axis=1, keepdims=True), d - mean
    power = (centred_a**2).sum(axis=1)
    slope = np.divide((centred_a * centred_d).sum(axis=1), power, out=np.zeros(len(a)), where=power > 0)
    left_by_mean = float((centred_d**2).sum())
    left_by_line = float(((centred_d - slope[:, None] * centred_a) ** 2).sum())
    worst = int(squares.argmax())
    offset = float(mean[worst, 0] - slope[worst] * a[worst].mean())
    return Look(
        1 - left_by_mean / total, 1 - left_by_line / total, int(channels[worst]), offset, 1 + float(slope[worst])
    )
