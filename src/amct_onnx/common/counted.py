"""Numbers with their nouns: 1 sample, 2 samples."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts.

    Args:
        number: of them.
        noun: for one; with its verb where one follows: ``sample is``.
        plural: for others; the noun with an s when left out.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
