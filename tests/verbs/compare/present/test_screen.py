"""A comparison on screens of any width: names stay whole."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from amct_onnx.graph.reasons import REASONS
from amct_onnx.plan.ledger import REFUSED
from amct_onnx.verbs.compare.present.screen import parts
from support.comparison_cases import Case


def shown(report: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_names_are_whole_on_any_screen(digits: Case) -> None:
    report = digits.compare()
    for width in (60, 77, 78, 80, 144, 145):
        text = shown(report, width)
        assert all(layer in text for layer in digits.layers), width
        assert max(map(len, text.splitlines())) <= width


def test_a_reason_breaks_between_its_words(digits: Case) -> None:
    report = digits.compare()
    for reason in REASONS:
        refused = replace(report.layers[0], name="/decoder/ConvTranspose", verdict=REFUSED, reason=reason)
        text = shown(replace(report, layers=(refused, *report.layers[1:])), 80)
        rows = [line.split("│") for line in text[text.index("Verdict") :].splitlines() if line.startswith("│")]
        last = next(k for k, row in enumerate(rows) if row[1].strip() == "2")
        width = len(rows[0][3]) - 2
        cells = [row[3].strip() for row in rows[:last] if row[3].strip()]
        assert "".join(cells).replace(" ", "") == f"float:{reason}"
        whole = [word for word in reason.split("-") if len(word) <= width]
        assert all(any(word in cell for cell in cells) for word in whole), reason


def test_what_is_not_judged_alike_is_told_once(digits: Case) -> None:
    """Figures of two devices differ by a number as well, and are both told."""
    report = digits.compare()
    figures = [f"deploy@{device}: top-1 99 %." for device in (310, 910)]
    sentences = (figures[0], *(f"Not judged: what makes 'y{k}'" for k in range(200)), figures[1])
    many = replace(report, verdict=replace(report.verdict, sentences=sentences))
    for everything, count in ((False, 1), (True, 200)):
        told = [str(p) for p in parts(many, 80, verbose=True, everything=everything)]
        assert sum(t.startswith("Not judged: ") for t in told) == count
        assert all(f in told for f in figures)
        assert ("Not judged: what makes 'y0' (199 more of this kind with --all.)" in told) != everything
