"""The command as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def command(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AMCT_")} | variables
    line = [sys.executable, "-m", "amct_onnx", *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True)
