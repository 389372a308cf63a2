"""Long names on a page: their middle is left out, the whole name is shown on demand."""

from __future__ import annotations

import re

LIMIT = 60
"""Characters of a name in running text and in tables."""


def middle_out(name: str, limit: int = LIMIT) -> str:
    """The beginning and the end of a long name; names of one network differ at both."""
    if len(name) <= limit:
        return name
    tail = limit * 2 // 3
    return f"{name[: limit - tail - 1]}…{name[-tail:]}"


def pieces(text: str, limit: int = LIMIT) -> list[tuple[str, str]]:
    """The text cut at its long words: each piece as it is shown, and the whole word behind it or ""."""
    found = []
    for piece in re.split(rf"(\S{{{limit + 1},}})", text):
        long = len(piece) > limit and not re.search(r"\s", piece)
        found.append((middle_out(piece, limit), piece) if long else (piece, ""))
    return [p for p in found if p[0]]
