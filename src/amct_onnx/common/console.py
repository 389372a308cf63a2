"""The screen on which reports are printed: nothing that a stranger wrote commands the terminal."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any, TextIO, TypeVar

import rich.text
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.containers import Lines
from rich.segment import Segment
from rich.table import Column, Table

from amct_onnx.common.plain_text import escaped, shown
from amct_onnx.common.short_names import LIMIT, distinct, shortened

PLAIN_WIDTH = 10_000
"""Columns when the output is not a terminal and COLUMNS says nothing, so that names stay whole."""
HTML_WIDTH = 110
"""Columns of a notebook's cell."""
HTML_FORMAT = '<pre style="font-family:monospace;line-height:1.2;overflow-x:auto">{code}</pre>'
PART = re.compile(r".+?(?:(?<=[/._:@…\\-])(?=\w)|(?<=[a-z])(?=[A-Z])|\s+|$)")
"""A part of a long name, with the separator behind it: of a path, of snake_case or CamelCase."""
NAME_LINES = 2
"""Lines that a name takes in a table."""
NAME_LIMITS = (LIMIT, 50, 42, 36, 30, 26, 22, 18, 14, 10)
"""Characters of a name in a table, tried in turn."""
MAX_ROWS = 30
"""Rows of a table that still fit on a screen or two."""
Row = TypeVar("Row")
Part = str | rich.text.Text | Table
"""What a report on the screen consists of; a str is never read as markup."""


class Text(rich.text.Text):
    """What a model's author, or another stranger, wrote: nothing in it commands the terminal.

    Its lines end between words; what is wider than a line, such as a path or the name of a node, ends behind one of its
    parts.
    """

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(shown(text), *arguments, **options)

    def wrap(self, console: Console, width: int, **options: Any) -> Lines:
        """As rich does it, but for words that are wider than a line."""
        if options.get("no_wrap") or all(cell_len(word) <= width for word in self.plain.split()):
            return super().wrap(console, width, **options)
        broken = Lines(part for line in self.split(allow_blank=True) for part in line.divide(_ends(line.plain, width)))
        return Lines(lines for part in broken for lines in part.wrap(console, width, **options))


class Sentence(Text):
    """What names nodes or tensors, and no path: long names lose their middle."""

    def __init__(self, text: str) -> None:
        super().__init__(shortened(text))


class Line(Text):
    """A line that the screen may break, and nobody else: it can be copied whole."""


class Names:
    """The names in a table: each takes ``NAME_LINES`` lines of its cell at most, and no two look alike.

    Args:
        names: all of the table.
    """

    def __init__(self, names: Iterable[str]) -> None:
        known = list(names)
        self._short = cache(lambda limit: distinct(known, limit))

    def cell(self, name: str, style: str = "") -> Text:
        """What the table holds of one of them."""
        return _Name(lambda limit: self._short(limit)[name], style)


class _Name(Text):
    """A name that is as long as the lines of its cell allow.

    Args:
        short: the name in so many characters.
        style: of it.
    """

    def __init__(self, short: Callable[[int], str], style: str = "") -> None:
        super().__init__(short(LIMIT), style)
        self._short = short

    def wrap(self, console: Console, width: int, **options: Any) -> Lines:
        """In the longest form that fits."""
        forms = (Text(self._short(limit), self.style) for limit in NAME_LIMITS)
        made = (form.wrap(console, width, **options) for form in forms)
        lines = next(made)
        for shorter in made:
            if len(lines) <= NAME_LINES:
                break
            lines = shorter
        return lines


def _ends(line: str, width: int) -> list[int]:
    """Where a line is cut so that no word is wider than ``width``; each of its parts stays whole when it fits."""
    ends, start, filled = [], 0, 0
    for word in re.finditer(r"\S+\s*", line):
        long = cell_len(word[0].rstrip()) > width
        if filled and (long or filled + cell_len(word[0].rstrip()) > width):
            ends.append(word.start())
            filled = 0
        start = word.start()
        for part in PART.findall(word[0]) if long else [word[0]]:
            if filled and filled + cell_len(part.rstrip()) > width:
                ends.append(start)
                filled = 0
            start += len(part)
            filled += cell_len(part)
    return ends


class _SafeConsole(Console):
    """Also escapes what is not a ``Text``, if only after the layout; a notebook shows nothing behind our back."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, force_jupyter=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))


def console_for(file: TextIO) -> Console:
    """Where a report is printed, without markup; lines end between words."""
    told = os.environ.get("COLUMNS", "")
    width = None if file.isatty() else int(told) if told.isdecimal() and int(told) > 0 else PLAIN_WIDTH
    return _SafeConsole(file=file, width=width)


def table_of(*headers: str, whole: Collection[str] = ()) -> Table:
    """A table whose cells are never cut, or two would look alike.

    Args:
        headers: of the columns.
        whole: those whose cells stay on one line: identifiers and numbers; the others break.
    """
    return Table(*(Column(h, overflow="fold", no_wrap=h in whole) for h in headers))


def _filled(parts: Iterable[Part]) -> Iterable[Part]:
    """Without tables that have a head alone."""
    return (p for p in parts if not isinstance(p, Table) or p.row_count)


def print_parts(parts: Callable[[int], Iterable[Part]], file: TextIO) -> None:
    """Print a report.

    Args:
        parts: called with the columns of the screen.
        file: where to.
    """
    console = console_for(file)
    for part in _filled(parts(console.width)):
        console.print(part, soft_wrap=isinstance(part, Line))


class Laid:
    """A report as something that rich prints, for consoles of the user's own."""

    def __init__(self, parts: Callable[[int], Iterable[Part]]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        """Laid out without markup, whatever the console reads as such."""
        safe = console_for(io.StringIO())
        for part in _filled(self._parts(options.max_width)):
            text = Text(part) if isinstance(part, str) else part
            yield from safe.render(text, options)


def html_of(parts: Callable[[int], Iterable[Part]]) -> str:
    """A report as a preformatted HTML fragment, as a notebook shows it."""
    console = _SafeConsole(file=io.StringIO(), record=True, width=HTML_WIDTH)
    for part in _filled(parts(HTML_WIDTH)):
        console.print(part)
    return console.export_html(inline_styles=True, code_format=HTML_FORMAT)


def command_lines(words: Sequence[str], width: int) -> list[str]:
    """A command for a shell, with a backslash at the end of each line but the last, so that it can be copied."""
    lines = [" "]
    for word in map(shlex.quote, words):
        if len(lines[-1]) + len(word) + 3 > width and lines[-1].strip():  # blank, word, blank and backslash
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return lines


def rows_that_matter(
    rows: Sequence[Row], weight: Callable[[Row], float], *, everything: bool
) -> tuple[list[tuple[int, Row]], str]:
    """The rows of a table that are shown, each with its number, and what to say of the others.

    Args:
        rows: all of them, in their order.
        weight: how much a row matters.
        everything: show all.

    Returns:
        All rows, or the MAX_ROWS of the largest weight in their order; a sentence when some are left out, else "".
    """
    numbered = list(enumerate(rows))
    if everything or len(numbered) <= MAX_ROWS:
        return numbered, ""
    chosen = sorted(numbered, key=lambda n: (-weight(n[1]), n[0]))[:MAX_ROWS]
    return sorted(chosen, key=lambda n: n[0]), (
        f"{MAX_ROWS} of {len(numbered):,} rows: those that matter most. --all shows all of them."
    )
