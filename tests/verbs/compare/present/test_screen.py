"""A comparison on screens of any width: names stay whole."""

from __future__ import annotations

import io

from rich.console import Console

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
