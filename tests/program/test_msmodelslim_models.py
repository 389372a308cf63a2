"""Deploy files of msmodelslim's ONNX tools go through check, DeploySession and simulate; compare says what it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx
from amct_onnx.cli import main
from support.deploy_evaluator import Evaluator
from support.msmodelslim_models import FORMS, deploy_model

X = np.random.default_rng(3).normal(0, 1.5, (1, 24, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_check_accepts_them(form: str) -> None:
    onnx.save(deploy_model(form), "m.onnx")
    report = amct_onnx.check("m.onnx")
    assert report.passed and not [f for f in report.findings if f.severity != "note"]


@pytest.mark.parametrize("form", FORMS)
def test_session_computes_them_as_the_vendors_form(form: str) -> None:
    """Against an independent evaluation of the same numbers with all attributes written out."""
    onnx.save(deploy_model(form), "m.onnx")
    expected = Evaluator(deploy_model(form, vendor=True)).run({"x": X})
    with amct_onnx.DeploySession("m.onnx", collect="layers") as session:
        (found,), layers = session.run_layers({"x": X})
        assert session.warnings == ()
    (wanted,) = expected.values()
    assert np.array_equal(found, wanted)
    assert [(t.name, t.producer, t.accumulator.dtype) for t in layers] == [
        (n, q, np.int32)
        for n, q in zip(
            ("conv", "fc", "last"),
            ("conv_quant", "fc_quant", "last_quant")
            if form == "post_training_quant"
            else ("conv_quant0", "fc_quant1", "last_quant2"),
            strict=True,
        )
    ]


def test_offset_written_as_an_integer_is_found() -> None:
    """The plugin reads a FLOAT only: such a file is compiled with offset 0, and is simulated so."""
    onnx.save(deploy_model(FORMS[0], offset=int), "m.onnx")
    report = amct_onnx.check("m.onnx")
    assert {f.rule for f in report.findings if f.severity == "error"} == {"quant-offset-lost"}
    with amct_onnx.DeploySession("m.onnx") as session:
        assert {f.offset for f in session.facts} == {0} and any("offset" in w for w in session.warnings)


def test_golden_data_of_them_and_what_compare_needs(capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(deploy_model(FORMS[1]), "p_deploy_model.onnx")
    np.save("x.npy", X)
    line = ["simulate", "--model", "p_deploy_model.onnx", "--data", "x.npy", "--save_path", "out", "--dump", "layers"]
    assert main([*line, "--dump_format", "golden"]) == 0
    names = {p.name.split(".")[0] for p in Path("out/000000").iterdir()}
    assert {"conv_quant0", "conv", "conv_dequant1", "last_dequant3"} <= names
    capsys.readouterr()
    assert main(["compare", "--model", "p_deploy_model.onnx", "--save_path", "p", "--data", "x.npy"]) == 2
    assert "p_quant.json: no such file" in capsys.readouterr().err
