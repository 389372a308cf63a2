"""Why one layer stays float, while the rest of the model converts."""

from __future__ import annotations


class Refusal(Exception):
    """A layer cannot become int8: reason code, what is at fault, what would help."""

    def __init__(self, reason: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.remedy = reason, detail, remedy
