"""The doctor: figures for every setting, and exit codes by what it found."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import UnsupportedModelError
from support.golden_models import MODELS


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


def test_int8_kernels_of_a_qoperator_model_are_no_measure_of_rounding() -> None:
    """Its kernels are int8 under every setting: what they err is granted only as far as the Q/DQ form errs as well."""
    report = amct_onnx.doctor(MODELS / "ort_digitsnet_qop_u8" / "model.onnx")
    assert report.exact_layers == 7
    for setting in report.settings:
        assert setting.max_error_steps is not None and setting.differing is not None
        if setting.max_error_steps > 10 or setting.differing > 0.5:  # where the kernels saturate
            assert setting.verdict == "wrong", setting
    assert report.trusted == (not report.wrong)


def test_float16_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'node_conv2d' \(Conv\) computes in float16"):
        amct_onnx.doctor(MODELS / "torchfq_digitsnet_i8sym_fp16_dynamo20" / "model.onnx")


def test_quantizers_that_onnxruntime_does_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = MODELS / "brevitas_biasnet_i32_qonnx_op13" / "model.onnx"
    kinds = Counter(n.op_type for n in onnx.load(model).graph.node if n.domain)
    assert main(["doctor", "--model", str(model)]) == 2
    error = capsys.readouterr().err
    assert f"holds {kinds['Quant']} x" in error and "::Quant" in error and "amct_onnx compare" in error
