"""Tables and commands fit the screen, and what is left out is said."""

from __future__ import annotations

import io
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.common.console import (
    MAX_ROWS,
    PLAIN_WIDTH,
    Line,
    Names,
    Text,
    _SafeConsole,
    command_lines,
    console_for,
    html_of,
    print_parts,
    rows_that_matter,
    table_of,
)


@pytest.mark.parametrize(("columns", "width"), [("61", 61), ("", PLAIN_WIDTH), ("0", PLAIN_WIDTH), ("x", PLAIN_WIDTH)])
def test_pipe_is_as_wide_as_columns_says(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert console_for(io.StringIO()).width == width


@given(st.lists(st.integers(0, 9), max_size=80))
def test_rows_that_matter_stay_in_their_order(weights: list[int]) -> None:
    rows, rest = rows_that_matter(weights, float, everything=False)
    assert rows == sorted(rows) and all(weights[n] == w for n, w in rows)
    assert len(rows) == min(len(weights), MAX_ROWS)
    left = sorted(weights)[: len(weights) - len(rows)]
    assert not left or max(left) <= min(w for _, w in rows)
    assert bool(rest) == bool(left)
    assert rows_that_matter(weights, float, everything=True) == (list(enumerate(weights)), "")


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=30), min_size=1, max_size=12))
def test_command_can_be_copied_from_the_screen(words: list[str]) -> None:
    lines = command_lines(words, 40)
    assert shlex.split(" ".join(line.removesuffix("\\") for line in lines[:-1]) + lines[-1]) == words
    assert all(line.endswith(" \\") for line in lines[:-1]) and not lines[-1].endswith(" \\")
    assert all(len(line) <= 40 or len(shlex.split(line.removesuffix("\\"))) == 1 for line in lines)


@given(st.lists(st.text("ab/._ ", max_size=50), min_size=1, max_size=4), st.integers(12, 60))
def test_nothing_is_lost_at_the_edge(names: list[str], width: int) -> None:
    table = table_of("Node", "Finding")
    for name in names:
        table.add_row(Text(name), Text(f"'{name}' is wrong"))
    console = console_for(io.StringIO())
    lines = [str(line) for name in names for line in Text(name).wrap(console, width)]
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join("".join(names).split())


def test_a_long_name_ends_behind_its_parts() -> None:
    table = table_of("Rule", "Node", whole=("Rule",))
    table.add_row("leftover-quantizer", Text("/stages.2/blocks.11/self_attention/QuantizeLinear_17"))
    console = _SafeConsole(file=io.StringIO(), width=45)
    with console.capture() as held:
        console.print(table)
    lines = [line.split("│")[2].strip() for line in held.get().splitlines() if line.startswith("│")]
    assert lines == ["/stages.2/blocks.11/", "self_attention/", "QuantizeLinear_17"]


@pytest.mark.parametrize("size", [10, 40, 78, 400])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_name_takes_two_lines_of_a_table_and_none_looks_like_another(size: int, width: int) -> None:
    whole = [f"/model{'/stage.block' * (size // 12)}_{i}/{'part_' * max(0, size // 5 - 4)}Conv" for i in range(12)]
    names, figures = Names(whole), ("Model", "Mean LSB", "SQNR dB")
    table = table_of("#", "Layer", *figures, whole=("#", *figures))
    for i, name in enumerate(whole):
        table.add_row(str(i), names.cell(name, "bold"), "deploy@ascend950", "0.000846", "")
    console = _SafeConsole(file=io.StringIO(), width=width)
    with console.capture() as held:
        console.print(table)
    shown: dict[int, str] = {}
    for line in held.get().splitlines():
        if line.startswith("│"):
            number, part = (cell.strip() for cell in line.split("│")[1:3])
            if number:
                rows = 0
                shown[len(shown)] = ""
            rows += 1
            shown[len(shown) - 1] += part
            assert rows <= 2
        assert len(line) <= width
    assert len(shown) == len(set(shown.values())) == 12
    assert all(text == name or "…" in text for text, name in zip(shown.values(), whole, strict=True))


def test_table_without_rows_is_left_out() -> None:
    full, empty = table_of("Layer"), table_of("Nothing")
    full.add_row("conv")
    shown = io.StringIO()
    print_parts(lambda width: (empty, full), shown)
    assert "conv" in shown.getvalue() and "Nothing" not in shown.getvalue()
    assert "Nothing" not in html_of(lambda width: (empty, full))


def test_line_of_a_command_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/home/somebody/with/a/long/path/" + "folder/" * 12 + "model.onnx"
    file = io.StringIO()
    print_parts(lambda width: map(Line, command_lines(("amct_onnx", "check", "--model", path), 80)), file)
    assert shlex.split(file.getvalue().replace("\\\n", "")) == ["amct_onnx", "check", "--model", path]
