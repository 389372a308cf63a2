"""Sentences in a given number of lines: long names lose their middle, then the end is left out; no word is split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from amct_onnx.common.short_names import LIMIT, distinct

LIMITS = (LIMIT, 48, 36, 28, 20)
"""Characters of a name, tried in turn."""
WORD = re.compile(r"(?P<before>['\"(\[]*)(?P<core>\S*?)(?P<behind>['\")\],.;:]*)")
MORE = "…"


def fitted(text: str, width: int, rows: int, names: Iterable[str] = ()) -> list[str]:
    """The text in so many lines at most.

    Args:
        text: in one line, without control characters.
        width: columns of a line.
        rows: lines.
        names: of the model: no name in the text is shortened to what another would look like.
    """
    known = list(names)
    short = text
    for limit in LIMITS:
        short = _shortened(text, limit, known)
        lines = _wrapped(short, width)
        if len(lines) <= rows and all(cell_len(line) <= width for line in lines):
            return lines
    return _cut(short, width, rows)


def laid_out(texts: Sequence[str], width: int, rows: int, names: Iterable[str] = ()) -> list[list[str]]:
    """The lines of each text, all together ``rows`` at most when there are no more texts.

    What one line holds takes one; the lines that are left go to the first texts that need them.
    """
    spare, known, made = rows - len(texts), list(names), []
    for text in texts:
        lines = fitted(text, width, 1 + max(0, spare), known)
        spare -= len(lines) - 1
        made.append(lines)
    return made


def _shortened(text: str, limit: int, names: list[str]) -> str:
    found = [m for w in text.split() if (m := WORD.fullmatch(w)) is not None]
    short = distinct([*(m["core"] for m in found), *names], limit)
    return " ".join(f"{m['before']}{short[m['core']]}{m['behind']}" for m in found)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that end between words; a word that is wider than a line stands alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _cut(text: str, width: int, rows: int) -> list[str]:
    """The beginning, up to the last word that leaves room to say that there is more."""
    lines = [""]
    for word in text.split():
        room = width - (2 if len(lines) == rows else 0)
        line = f"{lines[-1]} {word}".strip()
        if cell_len(line) <= room:
            lines[-1] = line
        elif len(lines) < rows and cell_len(word) <= width - 2:
            lines.append(word)
        else:
            break
    end = lines[-1].rfind(". ") + 1
    last = lines[-1][:end] if 2 * end > len(lines[-1]) else lines[-1]  # a sentence is better than half of the next
    return [*lines[:-1], f"{last} {MORE}".strip()]
