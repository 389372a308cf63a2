"""Where a quantizer's range lies in what it reads: counts of equally wide bins, exact in any order of batches.

The bins depend on the quantizer alone, so counts of batches are added as integers: memory is that of 66 numbers for
each layer, and no order, resumption or cluster changes them.
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
BLOCK = 1 << 15
"""Numbers that are counted at once: ``numpy.bincount`` needs eight bytes for each, which then stay in the cache."""


def input_bins(values: Array, quantizer: Quantized) -> tuple[tuple[int, ...], int]:
    """How many numbers lie in each bin, and how many saturate.

    Args:
        values: float32 or float64, any shape. NaN saturates and lies in no bin.
        quantizer: whose range and step the bins follow. Whether a number saturates is decided by its exact edges; into
            which bin it falls otherwise by float arithmetic, so that a number at an edge may be its neighbour's.

    Returns:
        ``BINS`` counts, and those outside the range with NaN.
    """
    numbers = values.reshape(-1)
    low, high = numbers.min(initial=np.inf), numbers.max(initial=-np.inf)
    if np.isnan(low):
        numbers = numbers[~np.isnan(numbers)]
    counts = np.zeros(BINS, np.int64)
    for start in range(0, numbers.size, BLOCK):
        counts += np.bincount(_places(numbers[start : start + BLOCK], quantizer), minlength=BINS)
    below = above = 0
    if not (low >= quantizer.low and high < quantizer.high):
        below = int(np.count_nonzero(numbers < np.float32(quantizer.low)))
        above = int(np.count_nonzero(numbers >= np.float32(quantizer.high)))
    # what rounding has put on the wrong side of an end of the range lies in the bin beside it
    left, right = OUTSIDE, OUTSIDE + INSIDE
    moved = int(counts[:left].sum()) - below, int(counts[right:].sum()) - above
    counts[left - 1 : left + 1] += (-moved[0], moved[0])
    counts[right - 1 : right + 1] += (moved[1], -moved[1])
    return tuple(counts.tolist()), below + above + values.size - numbers.size


def _places(values: Array, quantizer: Quantized) -> Array:
    """The number of each one's bin."""
    kind = values.dtype.type
    with np.errstate(over="ignore"):
        places = values / kind(STEPS * quantizer.scale)
    places += kind((quantizer.offset + 128.5) / STEPS + OUTSIDE)
    np.clip(places, 0, BINS - 0.5, out=places)
    return np.asarray(places, np.intp)
