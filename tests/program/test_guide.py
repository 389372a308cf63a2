"""The user guide, run as a user would: every bash and Python block of it, in order, in one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Example

import amct_onnx
from support.page_blocks import run_blocks

ROOT = Path(__file__).resolve().parents[2]


def run_in_shell(example: Example) -> None:
    """A block of commands, with the installed amct_onnx on the PATH; the first that fails ends it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )
    assert result.returncode == 0, f"{example.parsed}\n{result.stdout}\n{result.stderr}"


def test_every_block_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    amct_onnx.demo_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_blocks("guide.md", run_in_shell)
    assert (tmp_path / "comparison.html").is_file()
