"""The sign test of a comparison: exact, and beyond some size near enough, in no time."""

from __future__ import annotations

import time
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.verbs.compare.present.verdict import EXACT_CHANGES, by_chance


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
