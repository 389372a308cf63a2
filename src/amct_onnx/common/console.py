"""The screen on which reports are printed: nothing that a stranger wrote commands the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

import rich.text
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from amct_onnx.common.plain_text import escaped, shown

PLAIN_WIDTH = 10_000
"""Columns when the output is not a terminal, so that names stay whole."""


class Text(rich.text.Text):
    """What a model's author, or another stranger, wrote: nothing in it commands the terminal."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(shown(text), *arguments, **options)


class _SafeConsole(Console):
    """Also escapes what is not a ``Text``, if only after the layout."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))


def console_for(file: TextIO) -> Console:
    """Where a report is printed, without markup."""
    return _SafeConsole(
        file=file, width=None if file.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False
    )
