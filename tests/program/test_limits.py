"""Limits that a shell sets (ulimit -v, -u): one line and exit code 2 where they are met, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import amct_onnx
from support.comparison_cases import SMALL, Case, converted

MEMORY = (60_000, 180_000, 270_000, 330_000, 400_000, 600_000)
"""KiB: from too little to start an interpreter's libraries to nearly enough."""
THREADS = (1, 2, 3, 5)
RIGHTS = "-all,+dac_override"
"""Of the user without root's exemption from limits: the interpreter may lie in a folder of root's."""


def lines(case: Case) -> dict[str, list[str]]:
    source, deploy, data = (str(p) for p in (case.source, case.deploy, case.data))
    return {
        "convert": ["convert", "--model", source, "--save_path", "out/m"],
        "check": ["check", "--model", deploy],
        "doctor": ["doctor", "--model", source],
        "simulate": ["simulate", "--model", deploy, "--data", data, "--save_path", "out"],
        "compare": [*case.arguments, "--report", "out/r.html"],
    }


def run_limited(limit: str, arguments: list[str], folder: Path, before: list[str]) -> None:
    """The command behind ``ulimit``; its outputs are all there or none."""
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    command = [*before, "bash", "-c", f'ulimit {limit}; exec "$@"', "-", sys.executable, "-m", "amct_onnx", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    made = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if "amct_log" not in str(p))
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode in (0, 1):
        return
    told = [line for line in done.stderr.splitlines() if not line.startswith(("WARNING", "INFO"))]
    assert done.returncode == 2 and len(told) == 1, (limit, arguments, done.returncode, done.stderr)
    assert told[0].startswith("amct_onnx: error: ") and "ulimit" in told[0], told
    assert not [m for m in made if m != "out"], made


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return converted(SMALL, tmp_path_factory.mktemp("case"), samples=8)


@pytest.mark.parametrize(
    "verb",
    ["convert", "check", pytest.param("doctor", marks=pytest.mark.slow)]
    + [pytest.param(v, marks=pytest.mark.slow) for v in ("simulate", "compare")],
)
def test_memory(verb: str, case: Case, tmp_path: Path) -> None:
    for limit in MEMORY[1:5:3] if verb in ("convert", "check") else MEMORY:
        run_limited(f"-v {limit}", lines(case)[verb], tmp_path / str(limit), [])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["convert", "check", "doctor", "simulate", "compare"])
def test_memory_at_many_limits(verb: str, case: Case, tmp_path: Path) -> None:
    for limit in range(100_000, 700_000, 25_000):
        run_limited(f"-v {limit}", lines(case)[verb], tmp_path / str(limit), [])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="another user's processes are limited: needs root")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) makes the other user")
@pytest.mark.parametrize("limit", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in THREADS[1:])])
def test_threads(limit: int, case: Case, tmp_path: Path) -> None:
    user = ["setpriv", "--reuid", str(61_000 + limit), "--regid", "65534", "--clear-groups"]
    user += [f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"]
    for verb, arguments in lines(case).items():
        run_limited(f"-u {limit}", arguments, tmp_path / verb, user)


def test_accumulator_beyond_int32_is_warned_of_by_name(case: Case, tmp_path: Path) -> None:
    """By the conversion, and by the reference device as by the chips."""
    model = onnx.load(case.source)
    report = amct_onnx.convert_qat_model(case.source, tmp_path / "plain")
    assert not [w for w in report.warnings if "2^31" in w]
    entry = next(e for e in report.layers if e.verdict == "converted")
    (tensor,) = (t for t in model.graph.initializer if t.name == "a.bias")
    scale = entry.scale_d * np.broadcast_to(np.asarray(entry.scale_w), tensor.dims)
    tensor.CopyFrom(numpy_helper.from_array(((2**31 - 5000) * scale).astype(np.float32), tensor.name))
    onnx.save(model, tmp_path / "big.onnx")
    report = amct_onnx.convert_qat_model(tmp_path / "big.onnx", tmp_path / "m")
    named = [w for w in report.warnings if "2^31" in w]
    assert len(named) == 1 and "may reach 21" in named[0], report.warnings
    for device in ("reference", "a2", "310"):
        with amct_onnx.DeploySession(tmp_path / "m_deploy_model.onnx", device=device) as session:
            assert [w for w in session.warnings if "beyond 2^31 - 1" in w], device
