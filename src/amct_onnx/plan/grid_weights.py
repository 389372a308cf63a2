"""Recover integers and scale of a float weight that was rounded to a grid before export.

TensorFlow QAT through tf2onnx, and some eager exporters, write w = q * s as plain floats. With m the largest integer of
a channel, w * m / max|w| is then integral for every element. The smallest such m is searched per channel; the weight
is taken only if s * q restores every float to a few units in its last place.
"""

from __future__ import annotations

import numpy as np

from amct_onnx.common.arrays import Array, Float32

MAX_INTEGER = 128
"""Largest magnitude of an int8."""
TOLERANCE = 2.0**-20
"""Of |w - q*s| relative to the channel's max|w|: the exporter rounded w = q*s once, and folding BatchNormalization into
it once or twice more, each time by at most 2^-24 of the element; s itself is known to 2^-24. Ordinary floats pass
with a probability of about (m * 2^-19)^(n-1) for n elements and each m: below 1e-6 from n = 4 on."""
SAMPLE = 64
"""Elements of a channel that choose m before all of them decide."""


def recover_grid(
    weight: Array, channel_axis: int | None, largest_integer: int = MAX_INTEGER
) -> tuple[Float32, int | None] | None:
    """The scale, per-tensor if one fits all (axis None), else one per channel of ``channel_axis``.

    Args:
        weight: float array of any shape.
        channel_axis: axis of the output channels; None for a MatMul by a vector, which has none.
        largest_integer: magnitude up to which integers are searched; 128 for what int8 holds.

    Returns:
        (scale float32 [1] or [channels], axis or None), or None when the weight does not lie on such a grid.
    """
    if weight.size == 0 or weight.dtype not in (np.float32, np.float16) or not np.all(np.isfinite(weight)):
        return None
    whole = _scales(weight.reshape(1, -1), largest_integer)
    if whole is not None:
        return whole, None
    if channel_axis is None:
        return None
    channels = np.moveaxis(weight, channel_axis, 0).reshape(weight.shape[channel_axis], -1)
    scale = _scales(channels, largest_integer)
    return None if scale is None else (scale, channel_axis)


def _scales(rows: Array, limit: int) -> Float32 | None:
    """One scale per row, or None when a row does not lie on a grid."""
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    scale = np.zeros(len(rows), np.float64)
    for index in np.flatnonzero(largest):
        row_scale = _scale(rows[index], largest[index], limit)
        if row_scale is None:
            return None
        scale[index] = row_scale
    # a row of zeros lies on every grid
    scale[largest == 0] = scale.max() or 1.0
    return scale.astype(np.float32)


def _scale(row: Array, largest: float, limit: int) -> float | None:
    sample = row[np.flatnonzero(row)[:SAMPLE]].astype(np.float64) / largest
    multiples = np.outer(np.arange(1, limit + 1), sample)
    fits = np.abs(multiples - np.rint(multiples)).max(axis=1) <= TOLERANCE * np.arange(1, limit + 1)
    for m in (np.flatnonzero(fits) + 1).tolist():
        exact = row.astype(np.float64)
        integers = np.rint(exact * (m / largest))
        if np.abs(exact - integers * (largest / m)).max() > TOLERANCE * largest or integers.max() == MAX_INTEGER:
            continue
        # a coarse grid is also every finer one; the finest rounds the bias least
        finer = max(1, (MAX_INTEGER - 1) // m)
        scale = float(exact @ integers) / float(integers @ integers) / finer
        # the float32 scale must give the same integers
        if np.array_equal(np.rint(row.astype(np.float32) / np.float32(scale)), integers * finer):
            return scale
    return None
