"""One layer in detail: what is clipped, and in which picture a fault is red."""

from __future__ import annotations

from typing import Any

import pytest

from amct_onnx.verbs.compare.present.html.details import RANGE, SIDE, Detail, detail
from support.comparison_reports import example


def with_input(counts: dict[int, int], values: int, binned: int | None = None) -> Detail:
    """The first layer, with so many numbers in each bin; NaN is what is missing."""
    report = example()
    layer = report["layers"][0]
    bins = [counts.get(i, 0) for i in range(2 * SIDE + RANGE)]
    layer["input"].update(low=-1.0, high=1.0, values=values if binned is None else binned, counts=bins)
    clipped = values - sum(bins[SIDE : SIDE + RANGE]) if binned is None else 7
    layer["counts"][0].update(values=values, saturated=clipped)
    return detail(report, 0)


def test_each_side_of_the_range_has_its_share() -> None:
    chart = with_input({SIDE - 1: 1, SIDE + 3: 92, SIDE + RANGE: 2, SIDE + RANGE + 4: 3}, 100).input
    assert chart is not None and chart.text == (
        "The quantizer holds -1 to 1. Clipped: 8 % of 100 values (1 % below the range, 5 % above it, 2 % NaN)."
    )
    assert chart.inside.count("M") == 1 and chart.clipped.count("M") == 3
    assert [t.label for t in chart.ticks] == ["-1", "1"] and chart.low < chart.high


def test_bars_of_some_batches_say_so() -> None:
    chart = with_input({SIDE - 1: 1, SIDE + 3: 19}, 100, 20).input
    assert chart is not None and chart.text == (
        "The quantizer holds -1 to 1. Clipped: 7 % of 100 values. "
        "The bars count every eighth batch, 20 values (5 % below the range)."
    )


def test_what_is_not_clipped_is_said_and_no_share_looks_like_none() -> None:
    chart = with_input({SIDE: 5}, 5).input
    assert chart is not None and chart.text.endswith("None of 5 values is clipped.") and not chart.clipped
    few = with_input({SIDE: 10**7 - 1, SIDE + RANGE: 1}, 10**7).input
    assert few is not None and "Clipped: less than 0.001 % of 10,000,000 values" in few.text
    assert with_input({}, 0).input is None


@pytest.mark.parametrize(
    ("changes", "source", "deploy"),
    [
        # in the deploy model the node is wrong; what it lacks is seen in the source; a fake-quant model has no picture
        (
            {"model": "deploy@a2", "node": "block2/depthwise.quant"},
            {},
            {"block2/depthwise.quant": "wrong in deploy@a2"},
        ),
        (
            {"model": "deploy@a2", "cause": "node-missing", "node": "block2/depthwise/q"},
            {"block2/depthwise/q": "missing in deploy@a2"},
            {},
        ),
        (
            {"model": "fake-quant", "node": "block2/depthwise.fakedequant.mul"},
            {"block2/depthwise": "wrong in fake-quant"},
            {},
        ),
        ({"model": "deploy@a2", "cause": "ties"}, {}, {}),
    ],
)
def test_a_fault_is_red_where_its_node_is_drawn(
    changes: dict[str, Any], source: dict[str, str], deploy: dict[str, str]
) -> None:
    report = example()
    report["divergences"] = [{**report["divergences"][0], **changes}]
    made = detail(report, 4)
    assert made.source is not None and made.deploy is not None
    assert {b.whole: b.fault for b in made.source.boxes if b.fault} == source
    assert {b.whole: b.fault for b in made.deploy.boxes if b.fault} == deploy
    assert made.opened == bool(source or deploy)
