"""The notebook of the examples runs, and shows what is stored in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def shown(notebook: Any) -> list[list[tuple[str, str, bool]]]:
    """Of each cell: kind and text of its outputs, and whether there is HTML, which holds times."""
    return [
        [
            (o.output_type, o.get("text") or o.get("data", {}).get("text/plain", ""), "text/html" in o.get("data", {}))
            for o in cell.get("outputs", [])
        ]
        for cell in notebook.cells
    ]


@pytest.mark.slow  # .ci/run runs it as well
def test_notebook_shows_what_is_stored_in_it(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "digits.ipynb", as_version=4)
    stored = shown(notebook)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert shown(notebook) == stored
    kinds = [kind for cell in stored for kind, _, _ in cell]
    assert set(kinds) == {"execute_result", "stream"}, "an error, or a report shown twice"
    assert sum(html for cell in stored for _, _, html in cell) == 3
