"""A fixed number of mutated inputs for each target, through the command of docs/security.md."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"


@pytest.mark.parametrize(
    ("target", "inputs"),
    [("convert", 60), ("deploy", 40), ("ledger", 40), ("data", 100), ("labels", 60), ("state", 60)],
)
def test_mutated_inputs(target: str, inputs: int) -> None:
    line = [sys.executable, str(FUZZ / "run.py"), "--target", target, "--inputs", str(inputs), "--jobs", "1"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert result.stdout.startswith(f"{inputs} inputs of {target} in ")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install '.[fuzz]'")
def test_coverage_guided() -> None:
    line = [sys.executable, str(FUZZ / "coverage_guided.py"), "-runs=200", "-seed=1"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert "Done 200 runs" in result.stderr
