"""Let small models have data files."""

from __future__ import annotations

import pytest

from amct_onnx.files import compose


def external(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small models have data files, so that the set has all kinds of files."""
    monkeypatch.setattr(compose, "INLINE_LIMIT", 0)
    monkeypatch.setattr(compose, "EXTERNAL_FROM", 1)
