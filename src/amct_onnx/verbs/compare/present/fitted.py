"""Sentences in a given number of lines: the fact stands, names lose their middle, and no word is split.

What does not fit loses first its further sentences, then what stands in brackets and behind a semicolon, then its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from rich.cells import cell_len

from amct_onnx.common.short_names import LIMIT, WORD, distinct

LIMITS = (LIMIT, 48, 36, 28, 20, 14)
"""Characters of a name, tried in turn."""
READABLE = 28
"""A name is made shorter than this only where the fact would not fit else."""
FACT = re.compile(r"(?!No fault found\. ).*?[.?!](?= )")
"""The first sentence; what follows on "No fault found." belongs to it."""
BRACKETS = re.compile(r" \([^()]*\)")
MORE = "…"
WHERE = "Where: "
"""How a text begins that is left out first: the headline says the most of it."""
WHY = "Why: "
"""How the text begins that gets the lines before all others."""


class Fitter:
    """Lays out texts whose names are those of one model.

    Args:
        texts: each in one line, without control characters.
        width: columns of a line.
        names: of the model: no name in a text is shortened to what another would look like.
    """

    def __init__(self, texts: Iterable[str], width: int, names: Iterable[str] = ()) -> None:
        self._width = width
        cores = [m["core"] for t in texts for w in t.split() if (m := WORD.fullmatch(w)) is not None]
        known = [*cores, *names]
        self._short = cache(lambda limit: distinct(known, limit))

    def fitted(self, text: str, rows: int) -> list[str]:
        """The text in so many lines at most."""
        return next(
            (lines for form, limits in _forms(text) if (lines := self._in(form, limits, rows))),
            [],
        ) or _cut(self._shortened(_forms(text)[-1][0].removesuffix(f" {MORE}"), LIMITS[-1]), self._width, rows)

    def needed(self, text: str, rows: int, forms: slice) -> int:
        """The lines, ``rows`` at most, that one of these forms of the text takes."""
        wanted = _forms(text)[forms]
        fits = (n for n in range(1, rows) if any(self._in(form, limits, n) for form, limits in wanted))
        return next(fits, rows)

    def _in(self, text: str, limits: Iterable[int], rows: int) -> list[str]:
        """With the longest names that fit; [] when none do."""
        for limit in limits:
            lines = _wrapped(self._shortened(text, limit), self._width)
            if len(lines) <= rows and all(cell_len(line) <= self._width for line in lines):
                return lines
        return []

    def _shortened(self, text: str, limit: int) -> str:
        found = [m for w in text.split() if (m := WORD.fullmatch(w)) is not None]
        short: Mapping[str, str] = self._short(limit)
        return " ".join(f"{m['before']}{short.get(m['core'], m['core'])}{m['behind']}" for m in found)


WHOLE, FACTS, CORE = slice(0, 1), slice(0, 2), slice(0, 4)
"""Which forms a text may take: all of it, its first sentence, less than that."""


def _forms(text: str) -> list[tuple[str, Sequence[int]]]:
    """All of the text, its fact, the fact without brackets, and without what a semicolon adds; names as they fit."""
    first = FACT.match(text)
    fact = text if first is None else f"{first[0]} {MORE}"
    bare = BRACKETS.sub("", fact)
    clause = bare if "; " not in bare else f"{bare.partition('; ')[0]} {MORE}"
    readable = [n for n in LIMITS if n >= READABLE]
    return [(text, readable), (fact, readable), (bare, LIMITS), (clause, LIMITS)]


def fitted(text: str, width: int, rows: int, names: Iterable[str] = ()) -> list[str]:
    """The text in so many lines at most.

    Args:
        text: in one line, without control characters.
        width: columns of a line.
        rows: lines.
        names: see ``Fitter``.
    """
    return Fitter([text], width, names).fitted(text, rows)


def laid_out(
    texts: Sequence[str], width: int, rows: int, names: Iterable[str] = (), brief_end: str = ""
) -> list[list[str]]:
    """The lines of each text, all together ``rows`` at most when there are no more texts.

    Each text has one line. What is left goes first to the facts, that behind WHY before all, then to the rest of the
    texts. Where the facts do not fit, the text that begins with WHERE has no line; if they still do not, nor has the
    last one, and its short form stands behind the one before.

    Args:
        texts: each in one line, without control characters.
        width: columns of a line.
        rows: lines.
        names: see ``Fitter``.
        brief_end: the short form of the last text.
    """
    fitter = Fitter([*texts, brief_end], width, names)
    shown = dict(enumerate(texts))
    made: dict[int, list[str]] = {}
    if len(shown) > rows or sum(fitter.needed(t, rows, FACTS) for t in shown.values()) > rows:
        shown = {i: t for i, t in shown.items() if not t.startswith(WHERE)}
    if sum(fitter.needed(t, rows, CORE) for t in shown.values()) > rows and 2 * cell_len(brief_end) < width:
        del shown[len(texts) - 1]
        before, text = shown.popitem()
        left = max(1, rows - sum(fitter.needed(t, rows, CORE) for t in shown.values()))
        *whole, begin = Fitter([text], width - cell_len(brief_end) - 1, names).fitted(text, left)
        made[before] = [*whole, f"{begin.replace(f'. {MORE}', '.')} {brief_end}"]
    given = _given(shown, rows - sum(map(len, made.values())), fitter)
    made |= {i: fitter.fitted(t, given[i]) for i, t in shown.items()}
    return [made.get(i, []) for i in range(len(texts))]


def _given(texts: Mapping[int, str], rows: int, fitter: Fitter) -> dict[int, int]:
    """The lines of each text."""
    given, spare = dict.fromkeys(texts, 1), rows - len(texts)
    order = sorted(texts, key=lambda i: not texts[i].startswith(WHY))
    for forms in (CORE, FACTS, WHOLE):
        for i in order:
            more = max(0, min(spare, fitter.needed(texts[i], given[i] + spare, forms) - given[i]))
            given[i] += more
            spare -= more
    return given


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
    """The beginning, up to the last word that leaves room to say that there is more, with no bracket left open."""
    words = text.split()
    for count in range(len(words) - 1, 0, -1):
        lines = _wrapped(f"{_closed(' '.join(words[:count]))} {MORE}", width)
        if len(lines) <= rows and all(cell_len(line) <= width for line in lines):
            return lines
    return [MORE]


def _closed(text: str) -> str:
    """Without a bracket or a quotation that is still open at the end, and without a comma there."""
    for opened, closed in (("(", ")"), ("[", "]")):
        if text.count(opened) > text.count(closed):
            text = text[: text.rindex(opened)]
    quotes = [m.start() for m in re.finditer(r"(?<!\S)['\"]", text)]
    if quotes and not re.search(r"['\"](?=[\s,.;:)\]]|$)", text[quotes[-1] + 1 :]):
        text = text[: quotes[-1]]
    return text.rstrip(" ,;:(")
