"""A float model plus a record: the integers of a Q/DQ model with the same factors, which are the reference engine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import amct_onnx
from amct_onnx.errors import AmctError, FactorError, ModelFileError, ModelNotFoundError, OutputError
from amct_onnx.verbs.convert.convert_model import convert_model, convert_qat_model
from support.golden_models import FLOAT_CASES, GOLDENS, golden_qdq
from support.typed_command import in_process

pytestmark = pytest.mark.usefixtures("one_process")

CASE = GOLDENS / "conv2d_bias"


def content(path: str) -> tuple[list[Any], dict[str, Any]]:
    """Nodes but for the names of tensors, and constants, of a model."""
    model = onnx.load(path)
    nodes = [(n.op_type, n.name, sorted(str(a) for a in n.attribute)) for n in model.graph.node]
    return nodes, {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("name", FLOAT_CASES)
def test_integers_are_those_of_a_qdq_model(name: str, tmp_path: Path) -> None:
    """tests/program/test_goldens.py holds the latter to the reference engine's files, bit for bit."""
    record = convert_model(GOLDENS / name / "model.onnx", GOLDENS / name / "record.txt", tmp_path / "a" / "m")
    qdq = convert_qat_model(golden_qdq(name, tmp_path)[0], tmp_path / "b" / "m", grid_weights=False)
    assert record.converted and len(record.converted) == len(qdq.converted)
    for one, other in ((record.deploy_model, qdq.deploy_model), (record.fake_quant_model, qdq.fake_quant_model)):
        nodes, constants = content(one)
        expected_nodes, expected = content(other)
        assert nodes == expected_nodes and len(constants) == len(expected)
        for array, wanted in zip(constants.values(), expected.values(), strict=True):
            assert array.dtype == wanted.dtype and np.array_equal(array, wanted)


def changed(folder: Path, old: str, new: str) -> Path:
    text = (CASE / "record.txt").read_text()
    assert old in text
    path = folder / "record.txt"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('key: "conv"', 'key: "other"', "the model has no node 'other'"),
        ("offset_d: 0", "", "lacks offset_d"),
        ("offset_d: 0", "offset_d: 128", r"outside \[-128, 127\]"),
        ("scale_d: 0", "scale_d: -0", "not positive and finite"),
        ("offset_w: 0", "offset_w: 3", "offset_w that is not 0"),
        ("offset_d: 0", "offset_d: 0\n    tensor_balance_factor: [1, 1.5]", "has a tensor_balance_factor"),
        ("offset_d: 0", 'offset_d: 0\n    act_type: "INT4"', "act_type 'INT4'"),
        ("offset_d: 0", 'offset_d: 0\n    wts_type: "INT6"', "wts_type 'INT6'"),
    ],
)
def test_factors_that_do_not_fit_are_refused_by_name(old: str, new: str, words: str, tmp_path: Path) -> None:
    record = changed(tmp_path, old, new)
    with pytest.raises(FactorError, match=words):
        convert_model(CASE / "model.onnx", record, tmp_path / "out" / "m")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("shift_bit: 3\n channels: 8  # by: PPQ\n skip_fusion: true", "the fields channels, shift_bit have no meaning"),
        ('origin { tool < name: "a: b" > runs: 1 runs: 2 }', "the field origin has no meaning"),
    ],
)
def test_fields_without_meaning_are_named_also_unknown_ones(fields: str, words: str, tmp_path: Path) -> None:
    report = convert_model(
        CASE / "model.onnx", changed(tmp_path, "offset_d: 0", f"offset_d: 0 {fields}\n"), tmp_path / "m"
    )
    assert any(words in w for w in report.warnings)
    assert len(report.converted) == 1


def test_what_is_not_a_record(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not a record of quantization factors"):
        convert_model(CASE / "model.onnx", CASE / "model.onnx", tmp_path / "m")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ModelFileError, match="holds no layer"):
        convert_model(CASE / "model.onnx", tmp_path / "empty.txt", tmp_path / "m")
    with pytest.raises(ModelNotFoundError, match="no such file"):
        convert_model(CASE / "model.onnx", tmp_path / "none.txt", tmp_path / "m")


def test_command_reads_a_record_and_never_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "record.txt"
    record.write_bytes((CASE / "record.txt").read_bytes())
    line = ["convert", "--model", str(CASE / "model.onnx"), "--from_record", str(record), "--save_path", "out/m"]
    result = in_process(capsys, *line)
    assert result.returncode == 0 and "1 of 1 candidate layers are int8." in result.stdout
    assert record.read_bytes() == (CASE / "record.txt").read_bytes()
    refused = in_process(capsys, *line, "--record_file", str(record))
    assert refused.returncode == 2 and "Give one of them." in refused.stderr


def test_name_of_the_package_is_a_function_and_a_module() -> None:
    from amct_onnx.convert_model import convert_qat_model as function

    assert function is amct_onnx.convert_qat_model
    with pytest.raises(ModelNotFoundError):
        amct_onnx.convert_model("none.onnx", "none.txt", "m")


@pytest.mark.parametrize("name", ["create_quant_config", "quantize_model", "save_model", "quantize_preprocess"])
def test_functions_that_quantize_say_what_to_do(name: str) -> None:
    with pytest.raises(AmctError, match="does not quantize float models"):
        getattr(amct_onnx, name)("model.onnx")


def test_compare_holds_the_outputs_to_the_recorded_quantizers(tmp_path: Path) -> None:
    """The float model alone would differ by the quantization, and a damage must show."""
    convert_model(CASE / "model.onnx", CASE / "record.txt", tmp_path / "m")
    found = amct_onnx.compare(CASE / "model.onnx", tmp_path / "m", CASE / "inputs.npz")
    assert found.verdict.level in ("noise", "equal") and found.layers[0].verdict == "converted"
    assert found.model == found.models[0].file == str(CASE / "model.onnx")
    assert any("the quantizers of the record" in s for s in found.verdict.sentences)
    deploy = onnx.load(tmp_path / "m_deploy_model.onnx")
    scale = next(a for n in deploy.graph.node if n.op_type == "AscendQuant" for a in n.attribute if a.name == "scale")
    scale.f *= 2
    onnx.save(deploy, tmp_path / "m_deploy_model.onnx")
    assert amct_onnx.compare(CASE / "model.onnx", tmp_path / "m", CASE / "inputs.npz").verdict.level == "diverges"
    with pytest.raises(OutputError):
        amct_onnx.compare(CASE / "model.onnx", tmp_path / "m", CASE / "inputs.npz", report=CASE / "model.onnx")
