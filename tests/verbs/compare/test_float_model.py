"""The float model before quantization beside the others: its own figures, matched by name or order, judging nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import DataError, ModelFileError, OutputError
from amct_onnx.verbs.compare.float_model import read_float_model
from amct_onnx.verbs.compare.present.html.write_html import render_html
from support.comparison_cases import Case
from support.float_models import renamed, without_quantizers
from support.interrupted_runs import figures, interrupt_at


@pytest.fixture
def float_file(digits: Case, tmp_path: Path) -> Path:
    file = tmp_path / "float.onnx"
    onnx.save(without_quantizers(digits.source), file)
    return file


def test_figures_are_those_of_the_float_model(
    digits: Case, float_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, labels = np.load(digits.data), np.load(digits.labels)
    feeds = {name: archive[name] for name in archive.files}
    scores = ort.InferenceSession(float_file, amct_onnx.AMCT_SO).run(None, feeds)[0]
    plain = digits.compare(labels=digits.labels)
    whole, rest = digits.prefix.with_name("whole.json"), digits.prefix.with_name("rest.json")
    typed = [*digits.arguments, "--labels", str(digits.labels), "--float", str(float_file), "--batch_size", "9"]
    assert main([*typed, "--json_report", str(whole)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(whole.read_text(encoding="utf-8"))
    entry = content["models"][-1]
    assert entry["notes"] == []
    assert [m["key"] for m in content["models"]] == ["source", "fake-quant", "deploy@a2", "float"]
    assert entry["file"] == str(float_file) and entry["device"] is None
    assert entry["metrics"][0]["right"] == int((scores.argmax(axis=1) == labels).sum())
    assert "\n│ float " in printed.replace("|", "│")
    difference = next(d for d in content["outputs"][0]["differences"] if d["model"] == "float")
    source = ort.InferenceSession(digits.source, amct_onnx.AMCT_SO).run(None, feeds)[0]
    # float32 convolutions of other batch sizes may add in another order
    assert difference["mean_abs"] == pytest.approx(float(np.abs(scores - source).mean()), rel=1e-3)
    assert content["verdict"]["headline"] == plain.verdict.headline and content["verdict"]["level"] == "noise"
    assert all(d["model"] != "float" for layer in content["layers"] for d in layer["differences"])
    page = render_html(content).replace("<wbr>", "")
    assert f"float<small>{float_file}</small>" in page
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert main(typed) == 130
    assert main([*typed[:-4], "--batch_size", "9", "--resume"]) == 2  # another run: without the float model
    assert "other models" in capsys.readouterr().err
    assert main([*typed, "--resume", "--json_report", str(rest)]) == 0
    assert figures(rest) == figures(whole)


def test_other_names_are_matched_by_order_and_said(digits: Case, float_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "renamed.onnx"
    onnx.save(renamed(onnx.load(float_file)), other)
    archive, labels = np.load(digits.data), np.load(digits.labels)
    scores = ort.InferenceSession(float_file, amct_onnx.AMCT_SO).run(None, {n: archive[n] for n in archive.files})[0]
    found = digits.compare(labels=digits.labels, float_model=other)
    assert found.models[-1].metrics[0].right == int((scores.argmax(axis=1) == labels).sum())
    for kind, pair in (("inputs", "'pixels' for 'input'"), ("outputs", "'scores' for 'output'")):
        told = f"Float model: Its {kind} have other names than the source's and are taken in their order: {pair}."
        assert told in found.verdict.brief


def test_models_that_do_not_fit_are_refused(digits: Case, float_file: Path, tmp_path: Path) -> None:
    import onnx_ir as ir

    bad, source = tmp_path / "bad.onnx", ir.load(digits.source)

    def refused(words: str) -> None:
        with pytest.raises(ModelFileError, match=words):
            read_float_model(bad, source, ["output"])

    model = onnx.load(float_file)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(model, bad)
    refused(r"its input 'input' has the shape \[\?, 3, 8, 8\], the source's 'input' \[\?, 1, 8, 8\]")
    model = onnx.load(float_file)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1000
    onnx.save(model, bad)
    refused(r"its output 'output' has the shape \[\?, 1000\]")
    model = onnx.load(float_file)
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, [1]))
    onnx.save(renamed(model), bad)
    refused("has the inputs 'pixels', 'mask', the source 'input': neither names nor numbers")
    held = read_float_model(digits.source, source, ["output"])
    assert "this is not a float model" in held.notes[0]
    with pytest.raises(OutputError, match="float.onnx"):
        digits.compare(float_model=float_file, json_report=float_file)


def test_batch_that_the_float_model_does_not_take_is_its_fault(digits: Case, float_file: Path) -> None:
    model = onnx.load(float_file)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, float_file)
    with pytest.raises(DataError, match=r"(?s)float.onnx: the float model cannot run batch 0 .* batch_size"):
        digits.compare(float_model=float_file)
    assert digits.compare(float_model=float_file, batch_size=1).models[-1].key == "float"
