"""Every conversion checks its own deploy model; the findings in memory are those of the written file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import amct_onnx
from amct_onnx import cli
from amct_onnx.verbs.check.report import ERROR, CheckReport, Finding
from amct_onnx.verbs.convert import convert_model
from support.golden_models import FLOAT_CASES, MODEL_CASES, MODELS, QAT_CASES, golden_qdq
from support.golden_models import GOLDENS as CASES

TIDY = MODELS / "torchfx_digitsnet_i8sym_op13" / "model.onnx"
SOURCES = [MODELS / n / "model.onnx" for n in MODEL_CASES] + [CASES / "qat" / n / "qat.onnx" for n in QAT_CASES]


def compare(report: amct_onnx.ConversionReport) -> None:
    assert report.check is not None and report.check.passed, report.check
    assert report.check.findings == amct_onnx.check(report.deploy_model).findings
    ledger = json.loads(Path(report.ledger_file).read_text())
    assert ledger["check"] == json.loads(json.dumps(report.check.to_dict()))


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.parent.name)
def test_conversion_passes_its_own_check(source: Path) -> None:
    compare(amct_onnx.convert_qat_model(source, "m"))


@pytest.mark.parametrize("name", FLOAT_CASES)
def test_reference_case_passes_its_own_check(name: str, tmp_path: Path) -> None:
    """external_data among them: what is outside the source is inside the deploy model."""
    source, _ = golden_qdq(name, tmp_path)
    compare(amct_onnx.convert_qat_model(source, "m"))


def test_table_prints_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", "--model", str(TIDY), "--save_path", "m", "--strict"]) == 0
    assert amct_onnx.check("m_deploy_model.onnx").summary() in capsys.readouterr().out


def test_error_is_logged_and_fails_strict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    finding = Finding(
        "some-rule", ERROR, "A title", "a node", "", "a detail", "why", "source", "Do this.", ("310P",), ("9.1",)
    )
    monkeypatch.setattr(
        convert_model, "check", lambda model, chip: CheckReport(None, None, ("310P",), ("9.0", "9.1"), (finding,))
    )
    logger = logging.getLogger("amct_onnx")
    logger.addHandler(caplog.handler)
    try:
        arguments = ["convert", "--model", str(TIDY), "--save_path", "m"]
        assert cli.main(arguments) == 0
        assert cli.main([*arguments, "--strict"]) == 1
    finally:
        logger.removeHandler(caplog.handler)
    assert "Check for 310P: 1 error." in capsys.readouterr().out
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert errors == ["[AMCT]:[Check]: a node: A title: a detail. Do this. [310P]"] * 2
