"""Long names on a screen or a page: their middle is left out; JSON holds them whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

LIMIT = 60
"""Characters of a name in running text and in tables."""


def middle_out(name: str, limit: int = LIMIT) -> str:
    """The beginning and the end of a long name, cut between its parts; names of one network differ at both."""
    if len(name) <= limit:
        return name
    size = limit * 2 // 3
    head, tail = name[: limit - size - 1], name[-size:]
    whole = re.match(r"(.*[/._])", head)
    start = re.search(r"[/._]", tail)
    if whole is not None and 2 * len(whole[1]) > len(head):
        head = whole[1]
    if start is not None and 2 * start.start() < len(tail):
        tail = tail[start.start() :]
    return f"{head}…{tail}"


def distinct(names: Iterable[str], limit: int = LIMIT) -> dict[str, str]:
    """Every name as it is shown; no two names are shown alike: such ones keep more of their middle."""
    shown: dict[str, str] = {}
    left = dict.fromkeys(names)
    while left:
        short = {name: middle_out(name, limit) for name in left}
        alike = Counter(short.values())
        shown |= {name: text for name, text in short.items() if alike[text] == 1}
        left = {name: None for name in left if name not in shown}
        limit *= 2
    return shown


def pieces(text: str, limit: int = LIMIT) -> list[tuple[str, str]]:
    """The text cut at its long words: each piece as it is shown, and the whole word behind it or ""."""
    found = []
    for piece in re.split(rf"(\S{{{limit + 1},}})", text):
        long = len(piece) > limit and not re.search(r"\s", piece)
        found.append((middle_out(piece, limit), piece) if long else (piece, ""))
    return [p for p in found if p[0]]
