"""Run the fenced blocks of a page in docs/, in order, in the current folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run_blocks(name: str, run_commands: Callable[[Example], None]) -> None:
    """Every Python block, and every bash block by ``run_commands``; none is passed over."""
    page = DOCS / name
    parsers = [PythonCodeBlockParser(), CodeBlockParser("bash", run_commands)]
    examples = list(Sybil(parsers=parsers).parse(page).examples())
    text = page.read_text(encoding="utf-8")
    assert examples and len(examples) == text.count("\n```python") + text.count("\n```bash")
    for example in examples:
        example.evaluate()
