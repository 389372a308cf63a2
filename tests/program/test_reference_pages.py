"""The reference pages are what the parsers and the public names say."""

from __future__ import annotations

import pytest

import amct_onnx
from reference_pages import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_page_is_what_the_command_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to white space: versions of Python break lines in their own ways."""
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written.split() == PAGES[name]().split(), "run python tests/reference_pages.py"


def test_every_public_name_is_on_the_page() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert [n for n in amct_onnx.__all__ if n not in page and not n.startswith("__")] == []
