"""Ctrl-C ends a command once, and not in the middle of an import."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import pytest

from amct_onnx.cli.interrupts import Ended, one_interrupt


def test_module_that_is_being_imported_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A native module would turn the exception into an ImportError of its own."""
    text = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.1)\nfinished = True\n"
    (tmp_path / "interrupted_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Ended), one_interrupt():
        importlib.import_module("interrupted_import")
        time.sleep(30)
    assert sys.modules.pop("interrupted_import").finished
