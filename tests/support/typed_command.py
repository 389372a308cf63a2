"""The command as a user types it: in a process of its own, or faster in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amct_onnx.cli import main


def command(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own.

    Args:
        arguments: the verb and its options.
        cwd: folder in which it runs.
        variables: of its environment, in place of all AMCT_ variables.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AMCT_")} | variables
    line = [sys.executable, "-m", "amct_onnx", *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, cwd=cwd)


def in_process(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same without the time of the imports."""
    capsys.readouterr()
    line = [str(a) for a in arguments]
    code = main(line)
    streams = capsys.readouterr()
    return subprocess.CompletedProcess(line, code, streams.out, streams.err)
