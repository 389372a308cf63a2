"""Sign test and intervals: exact, beyond some size near enough, in no time; intervals hold what they promise."""

from __future__ import annotations

import time
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.verbs.compare.explain.chance import (
    EXACT_CHANGES,
    at_least,
    by_chance,
    loss_interval,
    samples_for,
    share_interval,
)

HUNDREDTHS = [Fraction(i, 100) for i in range(101)]


@given(lost=st.integers(0, 60), gained=st.integers(0, 60))
def test_few_changes_are_counted_out(lost: int, gained: int) -> None:
    changed = lost + gained
    tail = Fraction(sum(comb(changed, k) for k in range(min(lost, gained) + 1)), 2**changed)
    assert by_chance(lost, gained) == float(min(Fraction(1), 2 * tail))


@pytest.mark.parametrize("changed", [EXACT_CHANGES + 1, EXACT_CHANGES + 2, 2 * EXACT_CHANGES])
def test_approximation_keeps_its_bounds_where_it_takes_over(changed: int) -> None:
    """By exact integers, for every split down to probabilities of 1e-30."""
    ways = tail = 1
    for gained in range(1, changed // 2 + 1):
        ways = ways * (changed - gained + 1) // gained
        tail += ways
        if gained < changed // 2 - 6 * int(changed**0.5):
            continue
        exact = min(1.0, 2 * tail / 2**changed)
        found = by_chance(changed - gained, gained)
        assert found == by_chance(gained, changed - gained)
        assert abs(found - exact) < 1e-5
        if exact > 1e-9:
            assert abs(found - exact) < 0.01 * exact, (gained, exact, found)


def test_any_number_of_changes_ends_at_once() -> None:
    started = time.process_time()
    assert by_chance(16_100, 15_900) == pytest.approx(0.266, abs=1e-3)
    assert by_chance(EXACT_CHANGES // 2, EXACT_CHANGES // 2) == 1.0
    assert by_chance(1 << 79, 1 << 79) == 1.0
    assert by_chance(1 << 80, 0) == 0.0
    assert by_chance(0, 0) == by_chance(1, 0) == 1.0
    assert time.process_time() - started < 1.0


@given(samples=st.integers(1, 60), count=st.integers(-1, 62), hundredths=st.integers(0, 100))
def test_tail_is_the_binomial_sum(samples: int, count: int, hundredths: int) -> None:
    share = Fraction(hundredths, 100)
    terms = range(max(0, count), samples + 1)
    exact = sum((comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in terms), Fraction(0))
    # float64: the rounding of some hundred operations, and of the share
    assert at_least(count, samples, float(share)) == pytest.approx(float(exact), rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("samples", [1, 2, 7, 20])
def test_interval_holds_the_share_as_often_as_it_says(samples: int) -> None:
    """By exact binomial sums, for every hundredth; a missing sample is one whose interval lies beside the share."""
    intervals = [share_interval(right, samples) for right in range(samples + 1)]
    for share in HUNDREDTHS:
        missed = [k for k, (low, high) in enumerate(intervals) if not low <= share <= high]
        assert sum(comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in missed) <= Fraction(5, 100)


@given(right=st.integers(0, 40), more=st.integers(0, 40))
def test_ends_of_the_interval_are_where_the_tail_is_half_the_doubt(right: int, more: int) -> None:
    samples = max(1, right + more)
    low, high = share_interval(right, samples)
    if right:
        assert at_least(right, samples, low) == pytest.approx(0.025, rel=1e-6)  # 2^-40 times the tail's slope
    if right < samples:
        assert at_least(samples - right, samples, 1 - high) == pytest.approx(0.025, rel=1e-6)
    assert low <= right / samples <= high and (low > 0) == (right > 0) and (high < 1) == (right < samples)


@pytest.mark.parametrize("samples", [1, 5, 9])
def test_interval_of_a_loss_holds_it_as_often_as_it_says(samples: int) -> None:
    """By exact trinomial sums: the shares of lost, gained and unchanged answers in steps of a twentieth."""
    counts = [(b, c) for b in range(samples + 1) for c in range(samples + 1 - b)]
    intervals = {pair: loss_interval(*pair, samples) for pair in counts}
    for lost in range(21):
        for gained in range(21 - lost):
            kept = 20 - lost - gained
            low_high = ((pair, *intervals[pair]) for pair in counts)
            missed = [pair for pair, low, high in low_high if not 20 * low <= lost - gained <= 20 * high]
            ways = (
                comb(samples, b) * comb(samples - b, c) * lost**b * gained**c * kept ** (samples - b - c)
                for b, c in missed
            )
            assert 20 * sum(ways) <= 20**samples


def test_samples_that_would_do_are_found() -> None:
    """Without changes the bound is 1 - (0.05 / 4)^(1 / n)."""
    assert 436 <= samples_for(0, 0, 20, 0.01) <= 444
    found = samples_for(6, 2, 200, 0.01)
    low, high = loss_interval(round(0.03 * found), round(0.01 * found), found)
    assert 0.028 < high <= 0.0305 and low < 0.02
    started = time.process_time()
    # 2.24 standard deviations (1.25 % on a side) of each share: 2.24 * (sqrt(0.25) + sqrt(0.24)) / 1e-4, squared
    assert samples_for(500_000, 400_000, 1_000_000, 1e-4) == pytest.approx(4.92e8, rel=0.05)
    assert time.process_time() - started < 1.0
