"""A fixed number of mutated inputs for each target, through the command of docs/security.md."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"


INPUTS = {
    **{"convert": 25, "numbers": 20, "deploy": 15, "surroundings": 15, "ledger": 10, "state": 10, "board": 10},
    **{"data": 15, "labels": 10, "evaluator": 10, "feeds": 10},
}
"""By target: how many the default tests make, all in one worker, whose start takes longer than they do."""


@pytest.mark.parametrize("inputs", [INPUTS, {"aipp": 30}], ids="+".join)
@pytest.mark.slow  # .ci/run runs it as well
def test_mutated_inputs(inputs: dict[str, int]) -> None:
    numbers = [str(n) for n in inputs.values()]
    line = [sys.executable, str(FUZZ / "run.py"), "--target", *inputs, "--inputs", *numbers, "--jobs", "1"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    told = result.stdout.splitlines()
    assert len(told) == len(inputs)
    assert all(t.startswith(f"{n} inputs of {target} in ") for t, (target, n) in zip(told, inputs.items(), strict=True))


@pytest.mark.parametrize("attack", ["delete", "rename", "chmod", "change", "leave"])
def test_oracle_sees_what_happens_outside_of_the_outputs(attack: str, tmp_path: Path) -> None:
    """In a process of its own: an oracle watches by audit hooks, which stay."""
    code = f"""
import os, sys
sys.path.insert(0, {str(FUZZ)!r})
from pathlib import Path
from oracle import Finding, Sandbox
sandbox = Sandbox(Path({str(tmp_path / "box")!r}))
def run():
    secret = sandbox.outside / "secret"
    attack = {attack!r}
    if attack == "delete": secret.unlink()
    if attack == "rename": secret.rename(sandbox.outside / "other")
    if attack == "chmod": secret.chmod(0o600)
    if attack == "change": os.truncate(secret, 3)
    if attack == "leave": os.mkdir(sandbox.target / "new")
for _ in range(2):
    sandbox.prepare()
    print(sandbox.judge(lambda: None))
    try:
        sandbox.judge(run)
    except Finding as finding:
        print(finding)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = result.stdout.splitlines()
    assert len(lines) == 4 and lines[0] == lines[2] == "converted", result.stdout + result.stderr
    for line in lines[1::2]:
        assert ("'out/new'" if attack == "leave" else "'outside/") in line, line


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install '.[fuzz]'")
def test_coverage_guided() -> None:
    line = [sys.executable, str(FUZZ / "coverage_guided.py"), "-runs=200", "-seed=1"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert "Done 200 runs" in result.stderr
