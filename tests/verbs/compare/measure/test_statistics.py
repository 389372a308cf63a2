"""Differences in steps of the next quantizer: what it clips is none."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.plan.next_quantizers import Passage
from amct_onnx.verbs.compare.measure.statistics import CLIPPED_FROM, SourceTensor

STEP = 0.25
INT8 = Passage(-128 * STEP, 127 * STEP, 255 * STEP)
VALUES = st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=20)


@given(VALUES, st.randoms(use_true_random=False))
def test_no_difference_is_larger_than_the_quantizer_lets_through(values: list[float], random: object) -> None:
    a, b = np.asarray(values, np.float32), np.asarray(values[::-1], np.float32)
    found = SourceTensor(a).compare(b, STEP, passage=INT8).difference("m", STEP)
    steps = np.abs(a.astype(np.float64) - b) / STEP
    if steps.max() > CLIPPED_FROM:
        own, other = (np.clip(v.astype(np.float64), INT8.low, INT8.high) / STEP for v in (a, b))
        steps = np.abs(own - other)
    assert found.max_lsb is not None and found.mean_lsb is not None
    # float32 sums of 20 numbers: at most 2^-19 relative
    assert abs(found.max_lsb - steps.max()) <= 255 * 2**-19 and found.max_lsb <= 255
    assert abs(found.mean_lsb - steps.mean()) <= 255 * 2**-19
    assert found.max_abs == np.abs(a - b).max()  # in the tensor's own unit nothing is clipped


def test_sums_of_batches_are_those_of_all() -> None:
    """Each batch is clipped by itself."""
    a, b = np.asarray([0.0, 500.0], np.float32), np.asarray([1000.0, 400.0], np.float32)
    whole = SourceTensor(a).compare(b, STEP, passage=INT8)
    parts = [SourceTensor(a[i : i + 1]).compare(b[i : i + 1], STEP, passage=INT8) for i in (0, 1)]
    parts[0].merge(parts[1])
    assert parts[0] == whole and (whole.passed_largest, whole.off_by_lsb) == (127 * STEP, 1)


def test_no_rounding_of_a_scale_leads_beyond_the_range() -> None:
    for scale in map(float, np.random.default_rng(0).random(50, np.float32)):
        passage = Passage(-128 * scale, 127 * scale, 255 * scale)
        a, b = np.asarray([-1e3], np.float32), np.asarray([1e3], np.float32)
        found = SourceTensor(a).compare(b, scale, passage=passage).difference("m", scale).max_lsb
        # both bounds are rounded to float32, and so is their difference
        assert found is not None and 255 * (1 - 2**-22) <= found <= 255


def test_without_a_quantizer_all_passes() -> None:
    found = SourceTensor(np.zeros(2, np.float32)).compare(np.asarray([3.0, 900.0], np.float32), STEP)
    assert found.passed_largest == found.largest == 900 and found.passed == found.absolute
