"""A stage imports only stages before it, and every module stands in the map of the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import amct_onnx

ROOT = Path(amct_onnx.__file__).parent
BASE = {"errors", "plain_text", "arithmetic", "file_tensor", "proto_scan", "log", "json_text", "cpu_count"}
"""What every stage may use."""
MAY_IMPORT = {
    "read": {"graph_check"},
    "graph_check": set(),
    "normalise": set(),
    "plan": {"normalise", "report"},
    "emit": {"normalise", "plan"},
    "compose": {"emit"},
    "write": {"transaction", "hidden_folder", "compose", "output_files"},
    "output_files": set(),
    "transaction": {"hidden_folder", "replace_set"},
    "replace_set": {"hidden_folder"},
    "hidden_folder": set(),
    "report": {"acceptance"},
    "acceptance": {"normalise", "screen"},
    "device": {"compose", "normalise", "read", "write", "data", "transaction", "hidden_folder"},
    "data": set(),
    "source_bias": {"compose", "normalise", "output_files", "plan", "read", "report", "screen", "write"},
    "witness": {"compose", "data", "device", "normalise", "plan", "read", "screen", "write"},
    "comparison": {
        *(
            "compose",
            "data",
            "device",
            "normalise",
            "output_files",
            "plan",
            "read",
            "report",
            "screen",
            "versions",
            "write",
        ),
    },
}
"""Part of the package -> the other parts that it may import, besides BASE and itself."""


def imported_parts(path: Path) -> set[str]:
    """Parts of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "amct_onnx":
            names = [f"amct_onnx.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {n.split(".")[1] for n in names if n.startswith("amct_onnx.")}
    return found - {"__version__"}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_part_imports_only_what_it_may(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py")) if (ROOT / part).is_dir() else [ROOT / f"{part}.py"]
    assert files
    for path in files:
        assert imported_parts(path) <= MAY_IMPORT[part] | BASE | {part}, path


def test_every_module_stands_in_the_map() -> None:
    """Those of the command and of the rules are told of by their folder."""
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = [p.relative_to(ROOT) for p in sorted(ROOT.rglob("*.py")) if not p.name.startswith("__")]
    told = [m for m in modules if m.parts[0] != "cli" and m.parts[:2] != ("acceptance", "rules")]
    missing = [str(m) for m in told if f"/{m.name}`" not in page and f"`{m.name}`" not in page]
    assert not missing
