"""Many warnings that say the same of different names: the first of each kind is told, and how many more there are."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PARTICULARS = re.compile(r"'[^']*'|\[[^\]]*\]|[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
"""Names, shapes and numbers: what differs between two sentences of one kind."""


def first_of_each_kind(sentences: Sequence[str], rest: str = "in the ledger") -> list[str]:
    """One sentence of each kind, in their order.

    Args:
        sentences: all of them; names stand in quotes.
        rest: where the others are.
    """
    kinds: dict[str, list[str]] = {}
    for sentence in sentences:
        kinds.setdefault(_PARTICULARS.sub("", sentence), []).append(sentence)
    return [s[0] if len(s) == 1 else f"{s[0]} ({len(s) - 1:,} more of this kind {rest}.)" for s in kinds.values()]
