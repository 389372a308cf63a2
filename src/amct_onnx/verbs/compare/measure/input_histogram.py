"""Where a quantizer's range lies in what it reads: counts of equally wide bins, exact in any order of batches.

The bins depend on the quantizer alone, so counts of batches are added as integers: memory is that of 66 numbers for
each layer, and no order, resumption or cluster changes them. Whether a batch is counted depends on its number alone.
"""

from __future__ import annotations

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.verbs.compare.job import Quantized

STEPS = 8
"""Integers of a quantizer in one bin."""
INSIDE = 256 // STEPS
"""Bins of its range."""
OUTSIDE = INSIDE // 2 + 1
"""Bins on each side of it, as wide; the outermost one holds all that lies beyond."""
BINS = INSIDE + 2 * OUTSIDE
EVERY = 8
"""One batch in so many is counted, from the first on: the picture needs no more, and each number costs six passes."""
BLOCK = 1 << 15
"""Numbers that are counted at once: ``numpy.bincount`` needs eight bytes for each, which then stay in the cache."""


def saturated(values: Array, quantizer: Quantized) -> tuple[int, int, int]:
    """How many numbers lie below the range, above it, and are NaN; decided by the range's exact edges.

    Args:
        values: float32 or float64, any shape.
        quantizer: whose range it is.
    """
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    below = above = nan = 0
    if not low >= quantizer.low:
        below = int(np.count_nonzero(values < np.float32(quantizer.low)))
    if not high < quantizer.high:
        above = int(np.count_nonzero(values >= np.float32(quantizer.high)))
    if np.isnan(low):
        nan = int(np.count_nonzero(np.isnan(values)))
    return below, above, nan


def input_bins(values: Array, quantizer: Quantized) -> tuple[int, ...]:
    """How many numbers lie in each bin.

    Args:
        values: float32 or float64, any shape. NaN lies in no bin.
        quantizer: whose range and step the bins follow. Whether a number saturates is decided by its exact edges; into
            which bin it falls otherwise by float arithmetic, so that a number at an edge may be its neighbour's.

    Returns:
        ``BINS`` counts.
    """
    below, above, nan = saturated(values, quantizer)
    numbers = values.reshape(-1)
    if nan:
        numbers = numbers[~np.isnan(numbers)]
    counts = np.zeros(BINS, np.int64)
    for start in range(0, numbers.size, BLOCK):
        counts += np.bincount(_places(numbers[start : start + BLOCK], quantizer), minlength=BINS)
    # what rounding has put on the wrong side of an end of the range lies in the bin beside it
    left, right = OUTSIDE, OUTSIDE + INSIDE
    moved = int(counts[:left].sum()) - below, int(counts[right:].sum()) - above
    counts[left - 1 : left + 1] += (-moved[0], moved[0])
    counts[right - 1 : right + 1] += (moved[1], -moved[1])
    return tuple(counts.tolist())


def _places(values: Array, quantizer: Quantized) -> Array:
    """The number of each one's bin."""
    kind = values.dtype.type
    with np.errstate(over="ignore"):
        places = values / kind(STEPS * quantizer.scale)
    places += kind((quantizer.offset + 128.5) / STEPS + OUTSIDE)
    np.clip(places, 0, BINS - 0.5, out=places)
    return np.asarray(places, np.intp)
