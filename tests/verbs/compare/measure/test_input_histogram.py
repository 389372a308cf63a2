"""Histograms of what a quantizer reads: every number in one bin, what saturates outside the range, no order matters."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amct_onnx.common.arrays import Array
from amct_onnx.verbs.compare.job import Quantized
from amct_onnx.verbs.compare.measure.input_histogram import BINS, BLOCK, INSIDE, OUTSIDE, STEPS, input_bins, saturated
from amct_onnx.verbs.compare.measure.statistics import QuantizerStatistics

QUANTIZERS = st.builds(
    Quantized,
    st.just(0),
    st.just("x"),
    st.floats(2.0**-140, 2.0**20, width=32),  # subnormal scales as well
    st.integers(-128, 127),
)
NUMBERS = arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))
"""NaN, infinities and subnormal numbers among them."""


@given(NUMBERS, QUANTIZERS)
def test_what_saturates_lies_outside_and_nothing_is_lost(values: Array, quantizer: Quantized) -> None:
    bins, (below, above, nan) = input_bins(values, quantizer), saturated(values, quantizer)
    assert len(bins) == BINS and min(bins) >= 0
    inside = (values >= np.float32(quantizer.low)) & (values < np.float32(quantizer.high))
    assert below + above + nan == values.size - np.count_nonzero(inside)
    assert sum(bins) == values.size - np.count_nonzero(np.isnan(values))
    assert sum(bins[OUTSIDE : OUTSIDE + INSIDE]) == np.count_nonzero(inside)
    assert sum(bins[:OUTSIDE]) == np.count_nonzero(values < np.float32(quantizer.low))


@given(st.integers(-400, 400), QUANTIZERS)
def test_integers_of_a_quantizer_lie_in_their_bin(number: int, quantizer: Quantized) -> None:
    """Numbers in the middle of a step, far from all edges; the outermost bins hold what lies beyond them."""
    values = np.asarray([(number - quantizer.offset) * quantizer.scale], np.float64)
    expected = min(max((number + 128) // STEPS + OUTSIDE, 0), BINS - 1)
    assert np.flatnonzero(input_bins(values, quantizer)).tolist() == [expected]


@given(NUMBERS, st.integers(0, 40), QUANTIZERS)
def test_parts_add_up_to_the_whole(values: Array, cut: int, quantizer: Quantized) -> None:
    made = QuantizerStatistics()
    for part in (values[cut:], values[:cut]):
        made.merge(_statistics(part, quantizer))
    assert made == _statistics(values, quantizer)


def _statistics(values: Array, quantizer: Quantized) -> QuantizerStatistics:
    clipped = sum(saturated(values, quantizer))
    return QuantizerStatistics(values.size, clipped, binned=values.size, bins=input_bins(values, quantizer))


def test_more_numbers_than_a_block_are_all_counted() -> None:
    quantizer = Quantized(0, "x", 0.5, 0)
    values = np.resize(np.arange(-200, 200, dtype=np.float32) / 2, 3 * BLOCK + 7)
    whole = np.zeros(BINS, np.int64)
    for number, count in zip(*np.unique(values, return_counts=True), strict=True):
        whole += count * np.asarray(input_bins(np.asarray([number]), quantizer))
    assert input_bins(values, quantizer) == tuple(whole.tolist())
