"""How many examples a property-based test draws: few by default, AMCT_EXAMPLES times as many when that is set."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """The number of examples for a test that draws ``count`` by default."""
    return count * int(os.environ.get("AMCT_EXAMPLES", "1"))
