"""Who imports whom, exactly; no circle; and every folder of the code stands in CONTRIBUTING's tree."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import amct_onnx

ROOT = Path(amct_onnx.__file__).parent
REPOSITORY = Path(__file__).parents[2]
IMPORTS: dict[str, set[str]] = {
    "errors": set(),
    "common": {"errors"},
    "data": {"errors", "common"},
    "files": {"errors", "common", "graph"},
    "graph": {"errors", "common"},
    "device": {"errors", "common", "data", "files", "graph"},
    "normalise": {"errors", "common", "graph", "device"},
    "plan": {"errors", "common", "files", "graph", "device"},
    "verbs/check": {"errors", "common", "files", "graph", "device"},
    "verbs/simulate": {"errors", "common", "data", "files", "device", "graph"},
    "emit": {"errors", "common", "graph", "plan"},
    "verbs/demo": {"files"},
    "verbs/bias": {"common", "files", "graph", "normalise", "plan"},
    "verbs/doctor": {"errors", "common", "data", "files", "graph", "device", "normalise", "plan", "emit"},
    "verbs/atc": {"errors", "common", "data", "graph", "device", "verbs/check"},
    "verbs/convert": {
        "errors",
        "common",
        "files",
        "graph",
        "device",
        "normalise",
        "plan",
        "verbs/check",
        "emit",
    },
    "verbs/compare": {
        "errors",
        "common",
        "data",
        "files",
        "graph",
        "device",
        "normalise",
        "plan",
        "verbs/simulate",
        "verbs/convert",
    },
    "convert_model": {"verbs/convert"},
    "cli": {
        "errors",
        "common",
        "data",
        "files",
        "verbs/check",
        "verbs/simulate",
        "verbs/demo",
        "verbs/bias",
        "verbs/doctor",
        "verbs/atc",
        "verbs/convert",
        "verbs/compare",
    },
    "__main__": {"cli"},
}
"""Part of the package -> the other parts that it imports, also inside functions."""


def part_of(module: str) -> str:
    """A folder of the package, of ``verbs``, or a file on top."""
    names = module.split(".")[1:]
    return "/".join(names[: 2 if names[:1] == ["verbs"] and len(names) > 1 else 1])


def modules_of(part: str) -> list[Path]:
    folder = ROOT / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported_parts(part: str) -> set[str]:
    found = set()
    for path in modules_of(part):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "amct_onnx":
                names = [f"amct_onnx.{a.name}" for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found |= {part_of(n) for n in names if n.startswith("amct_onnx.")}
    return found - {part, "__version__"}


def test_every_part_is_told_of() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and p.name not in ("verbs", "__pycache__")}
    verbs = {f"verbs/{p.name}" for p in (ROOT / "verbs").iterdir() if p.is_dir() and p.name != "__pycache__"}
    files = {p.stem for p in ROOT.glob("*.py")} - {"__init__"}
    assert set(IMPORTS) == folders | verbs | files


@pytest.mark.parametrize("part", IMPORTS)
def test_part_imports_exactly_this(part: str) -> None:
    assert imported_parts(part) == IMPORTS[part]


def test_no_part_imports_back_up() -> None:
    TopologicalSorter(IMPORTS).prepare()


def test_every_folder_stands_in_the_tree() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {p.parent.relative_to(ROOT) for p in ROOT.rglob("*.py")} - {Path(".")}
    assert not [str(f) for f in sorted(folders) if f"{f.name}/" not in page]


def test_tests_lie_where_what_they_test_lies() -> None:
    """tests/<folder>/test_<module>.py, with more words behind the module's name where one file would be too long."""
    tests = REPOSITORY / "tests"
    for path in sorted(tests.rglob("test_*.py")):
        folder = path.parent.relative_to(tests)
        if folder.parts[0] == "program":
            continue
        modules = {p.stem for p in (ROOT / folder).glob("*.py")} | {folder.name}
        words = path.stem.removeprefix("test_").split("_")
        assert any("_".join(words[:n]) in modules for n in range(1, len(words) + 1)), path
