"""A command does not import what it does not use, and what was put off is there once it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from amct_onnx.cli import late_imports
from support.small_models import qdq_model


def test_conversion_imports_no_sympy(tmp_path: Path) -> None:
    code = """
import sys
from amct_onnx.cli import main
assert main() == 0
print("sympy.core" in sys.modules, "onnx_ir" in sys.modules)
import onnx_ir
print(onnx_ir.SymbolicDim("a") * 2 + onnx_ir.SymbolicDim("b"), "sympy.core" in sys.modules)
"""
    words = ["convert", "--quiet", "--model", str(qdq_model(tmp_path)), "--save_path", str(tmp_path / "m")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False True", "2*a + b True"]


def test_a_missing_library_is_missing_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_imports, "LATE", ("no_such_library",))
    monkeypatch.delitem(sys.modules, "onnx_ir")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    late_imports.import_late()
    assert isinstance(sys.meta_path[0], late_imports._LateFinder)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        __import__("no_such_library")
