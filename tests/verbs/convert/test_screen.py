"""What convert prints: the layers that matter, the files, and the next commands."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.common import log
from amct_onnx.common.console import print_parts
from amct_onnx.plan.ledger import BiasError
from amct_onnx.verbs.convert.screen import next_steps, parts
from support.small_models import qdq_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    qdq_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ends_with_the_files_and_the_next_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = amct_onnx.convert_qat_model("source.onnx", "out/a b", soc_version="310P")
    assert report.check is not None and report.check.findings
    monkeypatch.setenv("COLUMNS", "60")
    screen = io.StringIO()
    print_parts(partial(next_steps, report, "out/a b"), screen)
    assert screen.getvalue().splitlines() == [
        "Wrote out/a b_deploy_model.onnx, out/a ",
        "b_fake_quant_model.onnx, out/a b_quant.json.",
        "See the check's findings:",
        "  amct_onnx check --model 'out/a b_deploy_model.onnx' \\",
        "    --soc_version 310P",
        "Compare the accuracy:",
        "  amct_onnx compare --model source.onnx --save_path \\",
        "    'out/a b' --data DATA",
        "Compile:",
        "  amct_onnx atc --model 'out/a b_deploy_model.onnx' \\",
        "    --soc_version 310P",
    ]


def test_chip_restricts_the_check_and_an_unknown_one_is_refused(folder: Path) -> None:
    report = amct_onnx.convert_qat_model("source.onnx", "m", soc_version="Ascend310P3")
    assert report.check is not None and report.check.soc_version == "Ascend310P3"
    files = {p.name: p.read_bytes() for p in folder.glob("m_*.onnx")}
    amct_onnx.convert_qat_model("source.onnx", "m")
    assert files == {p.name: p.read_bytes() for p in folder.glob("m_*.onnx")}
    with pytest.raises(amct_onnx.SettingError, match="310P9"):
        amct_onnx.convert_qat_model("source.onnx", "n", soc_version="Ascend310P9")
    assert not list(folder.glob("n_*"))


def test_quiet_prints_errors_alone(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_chosen", {})
    monkeypatch.setattr(log._root, "handlers", [])
    line = ["convert", "--model", "source.onnx", "--save_path", "m", "--quiet"]
    assert main(line) == 0
    assert capfd.readouterr() == ("", "")
    assert main([*line, "--model", "none.onnx"]) == 2
    assert "none.onnx" in capfd.readouterr().err


@pytest.mark.parametrize(("save_path", "words"), [("existing", "end it with a slash"), ("m.onnx", "ends in .onnx")])
def test_prefix_that_looks_like_something_else_is_said(
    save_path: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_chosen", {})  # a test before may have set its level
    monkeypatch.setattr(log._root, "handlers", [])
    (folder / "existing").mkdir()
    report = amct_onnx.convert_qat_model("source.onnx", save_path)
    (said,) = (line for line in capsys.readouterr().err.splitlines() if words in line)
    assert report.deploy_model in said and said.startswith("WARNING")
    assert os.path.basename(report.deploy_model).startswith(f"{save_path}_")


def test_many_layers_show_those_that_stay_float(folder: Path) -> None:
    report = amct_onnx.convert_qat_model("source.onnx", "m")
    (entry,) = report.layers[:1]
    layers = [replace(entry, name=f"layer{n:03}") for n in range(100)]
    layers[77] = replace(layers[77], verdict="refused", reason="no-weight-quantizer", detail="d", remedy="Do it.")
    for everything in (False, True):
        screen = io.StringIO()
        print_parts(partial(parts, replace(report, layers=tuple(layers)), everything=everything), screen)
        text = screen.getvalue()
        assert "│ layer077" in text
        assert sum(f"│ layer{n:03}" in text for n in range(100)) == (100 if everything else 30)
        assert ("30 of 100 rows" in text) != everything


def test_three_layers_whose_bias_matters_are_named(folder: Path) -> None:
    report = amct_onnx.convert_qat_model("source.onnx", "m")
    layer = replace(report.layers[0], bias_error=BiasError(0.5, 0.25, 0.1, 0))
    many = replace(report, layers=tuple(replace(layer, name=f"conv{n}") for n in range(200)))
    (line,) = [str(p) for p in parts(many, 80) if str(p).startswith("Bias rounding matters")]
    assert "'conv0' (0.25 LSB), 'conv1' (0.25 LSB), 'conv2' (0.25 LSB) and 197 more. " in line
