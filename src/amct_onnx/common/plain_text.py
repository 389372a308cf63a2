"""Texts of strangers, such as names in a model, as they may reach a terminal, a log or a page."""

from __future__ import annotations

import re

MAX_SHOWN = 2_000
"""Characters that are shown of a text."""
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1: they command terminals
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # they turn or break the text around them
    "\ud800-\udfff]"  # halves of characters, which UTF-8 does not have
)
_BREAK = re.compile(r"\s*\n\s*")


def escaped(text: str) -> str:
    r"""The text with what commands a terminal, or turns the direction of reading, written as ``\u001b``.

    Within JSON this is the same text.
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """The text escaped, in one line, and of a long one the beginning and the end."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} [{len(text) - 2 * half:,} characters left out] {text[-half:]}"
    return escaped(_BREAK.sub(" ", text))
