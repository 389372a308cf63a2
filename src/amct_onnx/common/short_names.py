"""Long names on a screen or a page: their middle is left out; JSON holds them whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from os.path import commonprefix

LIMIT = 60
"""Characters of a name in running text and in tables."""
WORD = re.compile(r"(?P<before>['\"(\[]*)(?P<core>\S*?)(?P<behind>['\")\],.;:]*)")
"""A name with the marks around it."""
SEPARATORS = "/._"
"""What stands between the parts of a name; a name is cut rather at the first than at the last."""


def middle_out(name: str, limit: int = LIMIT) -> str:
    """The beginning and the end of a long name, cut between its parts; names of one network differ at both."""
    if len(name) <= limit:
        return name
    size = limit * 2 // 3
    return f"{_head(name[: limit - size - 1])}…{_tail(name, size)}"


def _head(head: str) -> str:
    """Up to the last part that is whole, when most of it is left."""
    whole = re.match(r"(.*[/._])", head)
    return whole[1] if whole is not None and 2 * len(whole[1]) > len(head) else head


def _tail(name: str, size: int) -> str:
    """The end of a name, from a part's beginning on, when most of it is left."""
    tail = name[-size:]
    if name[-size - 1 : -size] == SEPARATORS[0]:
        return tail
    return next((tail[at:] for c in SEPARATORS if 0 <= 2 * (at := tail.find(c)) < size), tail)


def _parts_kept(names: Sequence[str], limit: int) -> dict[str, str]:
    """Names with the same last part: each as that and the parts in which those of as many parts differ."""
    made = {}
    split = {name: name.split(SEPARATORS[0]) for name in names}
    for count in dict.fromkeys(map(len, split.values())):
        same = {name: parts for name, parts in split.items() if len(parts) == count}
        kept = [len(set(column)) > 1 for column in zip(*same.values(), strict=True)]
        kept[-1] = True
        for name, parts in same.items():
            told = [part if keep else "…" for part, keep in zip(parts, kept, strict=True)]
            text = SEPARATORS[0].join(p for i, p in enumerate(told) if p != "…" or i == 0 or told[i - 1] != p)
            if len(text) <= limit:
                made[name] = text
    return made


def _difference_kept(names: Sequence[str], limit: int) -> dict[str, str]:
    """Names with the same last part, each with the part where they begin to differ and with its end."""
    common = len(commonprefix(list(names)))
    made: dict[str, str] = {}
    for name in names:
        near = name[:common][-limit // 3 :]
        back = next((len(near) - at for c in SEPARATORS if (at := near.rfind(c)) >= 0), min(2, common))
        rest = name[common - back :]
        tail = _tail(name, limit // 3)
        head = _head(name[: limit // 6]) if limit >= LIMIT // 2 else ""
        room = limit - len(head) - 2 - len(tail)
        middle = rest[:room]
        made[name] = f"{head}…{middle}…{tail}" if len(rest) > room + len(tail) + 1 else f"{head}…{rest}"
    return made


def distinct(names: Iterable[str], limit: int = LIMIT) -> dict[str, str]:
    """Every name as it is shown; no two names are shown alike: such ones show where they differ, or more of it all."""
    shown: dict[str, str] = {}
    taken: set[str] = set()

    def take(short: dict[str, str]) -> None:
        """Keep the short forms that stand for one name only."""
        for text, alike in _alike(short).items():
            if len(alike) == 1 and text not in taken:
                shown[alike[0]] = text
                taken.add(text)

    left = list(dict.fromkeys(names))
    while left:
        short = {name: middle_out(name, limit) for name in left}
        take(short)
        for shorten in (_parts_kept, _difference_kept):
            rest = {
                n: n.rpartition(SEPARATORS[0])[2] if SEPARATORS[0] in n else short[n] for n in left if n not in shown
            }
            for ending_alike in _alike(rest).values():
                take(shorten(ending_alike, limit))
        left = [name for name in left if name not in shown]
        limit = limit * 3 // 2
    return shown


def shortened(text: str) -> str:
    """The text with its long words without their middle; no two of them look alike."""
    short = distinct(whole for _, whole in pieces(text) if whole)
    return "".join(shown for shown, _ in pieces(text, shorten=lambda word, _: short[word]))


def _alike(short: dict[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, text in short.items():
        groups.setdefault(text, []).append(name)
    return groups


def pieces(text: str, limit: int = LIMIT, shorten: Callable[[str, int], str] = middle_out) -> list[tuple[str, str]]:
    """The text cut at its long words: each piece as it is shown, and the whole word behind it or ""."""
    found = []
    for piece in re.split(rf"(\S{{{limit + 1},}})", text):
        word = WORD.fullmatch(piece) if len(piece) > limit else None
        if word is None or len(word["core"]) <= limit:
            found.append((piece, ""))
        else:
            found += [(word["before"], ""), (shorten(word["core"], limit), word["core"]), (word["behind"], "")]
    return [p for p in found if p[0]]
