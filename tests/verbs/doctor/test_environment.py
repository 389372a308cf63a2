"""Versions and CPU for a bug report, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest

import amct_onnx
from amct_onnx.cli import main


def test_environment_is_printed_without_running_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["onnxruntime"] == onnxruntime.__version__ and found["amct_onnx"] == amct_onnx.__version__
    assert found["package"] == str(Path(amct_onnx.__file__).parent)
    assert main(["doctor", "--env"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: {value}" for name, value in found.items()]
