"""Figures as people read them."""

from __future__ import annotations

LONGEST = 1e6
"""From here on the powers of ten are easier to read."""


def percent(share: float, digits: int = 0) -> str:
    """In running text, with a blank: 95 %."""
    return f"{100 * share:.{digits}f} %"


def figure(value: float, digits: int = 3) -> str:
    """So many significant digits; in decimal notation where that is short: 1080, not 1.08e+03."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(value) < LONGEST else text
