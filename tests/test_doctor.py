"""The doctor: figures for every setting, and exit codes by what it found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from golden_models import MODELS


def test_settings_that_keep_the_model_as_written_are_right(tmp_path: Path) -> None:
    folder = MODELS / "ort_digitsnet_qdq_u8_pc"
    report = amct_onnx.doctor(folder / "model.onnx", folder / "inputs.npz")
    as_written = report.to_dict()["settings"][-1]
    assert as_written["verdict"] in ("equal", "rounding"), as_written
    assert as_written["level"] == "off"


def test_command_prints_json_and_its_exit_code_says_whether_settings_lie(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    lies = [s for s in found["settings"] if s["verdict"] not in ("equal", "rounding")]
    assert code == (1 if lies else 0)
    assert np.isfinite([s["max_error"] for s in found["settings"]]).all()
