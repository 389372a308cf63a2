"""Bad input gives one clear error, exit code 2 and no file; refusals keep the model correct."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import FactorError, ModelFileError, ModelNotFoundError, NoQuantizerError, OutputError
from support.deploy_evaluator import evaluate
from support.qdq_builder import QdqBuilder
from support.small_models import TIDY, qdq_model
from support.typed_command import command, in_process


def test_command_converts_and_prints_every_layer(tmp_path: Path) -> None:
    result = command(
        "convert", "--model", TIDY, f"--save-path={tmp_path}/out/m", "--record_file", "r.txt", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "7 of 7 candidate layers are int8." in result.stdout
    saved = [line for line in result.stderr.splitlines() if "The model file is saved in" in line]
    assert [line.rsplit("/", 1)[1] for line in saved] == ["m_deploy_model.onnx", "m_fake_quant_model.onnx"]
    assert saved[0].startswith("INFO - [AMCT]:[Utils]: ")
    assert (tmp_path / "r.txt").read_text().count("key:") == 7
    log = (tmp_path / "amct_log" / "amct_onnx.log").read_text()
    assert " - INFO - [AMCT]:[Utils]: The model file is saved in " in log


def test_json_is_the_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = in_process(capsys, "convert", "--model", TIDY, "--save_path", tmp_path / "m", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "m_quant.json").read_text())


@pytest.mark.parametrize("content", [None, b"", b"no onnx file", TIDY.read_bytes()[:5000]])
def test_unreadable_model_is_one_paragraph_and_exit_2(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "in.onnx"
    if content is not None:
        model.write_bytes(content)
    assert main(["convert", "--model", str(model), "--save_path", str(tmp_path / "out" / "m")]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error and error.count("\n") == 1
    assert str(model) in error
    assert not (tmp_path / "out").exists()


def test_errors_are_of_the_package_and_of_the_natural_class(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        amct_onnx.convert_qat_model(tmp_path / "none.onnx", tmp_path / "m")
    assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelFileError):
        amct_onnx.convert_qat_model(tmp_path / "text.onnx", tmp_path / "m")
    assert issubclass(OutputError, OSError)


def test_float_model_has_no_quantizers(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "f.onnx")
    with pytest.raises(NoQuantizerError, match="QuantizeLinear"):
        amct_onnx.convert_qat_model(tmp_path / "f.onnx", tmp_path / "m")
    assert not (tmp_path / "m_deploy_model.onnx").exists()


def test_different_factors_name_both_nodes(tmp_path: Path) -> None:
    """They are used as they are; what comes of it, normalise/test_float_integers.py tells."""
    (warning,) = amct_onnx.convert_qat_model(qdq_model(tmp_path, zero_q=1), tmp_path / "m").warnings
    assert re.search(r"'quantize'.*zero point \[1\].*'dequantize'", warning)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scale_names_tensor_and_value(tmp_path: Path, bad: float) -> None:
    with pytest.raises(FactorError, match="'s'"):
        amct_onnx.convert_qat_model(qdq_model(tmp_path, scale=bad), tmp_path / "m")


def test_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        amct_onnx.convert_qat_model(TIDY, tmp_path / "file" / "m")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "amct_log") == ["file"]


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("zero", [0, -128, 127, 5])
def test_gemm_alpha_beta_trans_a_per_channel_is_exact(tmp_path: Path, transpose: bool, zero: int) -> None:
    """alpha, beta and transA are folded; fake-quant equals the exact integers, the source up to bias rounding."""
    source = qdq_model(tmp_path, zero_q=zero, zero_dq=zero, transpose=transpose)
    report = amct_onnx.convert_qat_model(source, tmp_path / "m")
    assert len(report.converted) == 1
    x = np.random.default_rng(1).normal(size=(3, 7) if transpose else (7, 3)).astype(np.float32) * 8
    expected = ort.InferenceSession(str(source), amct_onnx.AMCT_SO).run(None, {"x": x})[0]
    fake = ort.InferenceSession(report.fake_quant_model, amct_onnx.AMCT_SO).run(None, {"x": x})[0]
    np.testing.assert_array_equal(fake, evaluate(Path(report.deploy_model), {"x": x})["y"])
    # half a step of the bias (scale_d * alpha * scale_w <= 0.005) and float32 rounding of sums below 100
    assert np.abs(fake - expected).max() <= 0.5 * 0.1 * 0.5 * 0.1 + 1e-4
    gemm = next(n for n in onnx.load(report.deploy_model).graph.node if n.op_type == "Gemm")
    assert {a.name for a in gemm.attribute} <= {"transB"}


def test_per_channel_activation_stays_float_and_exact(tmp_path: Path) -> None:
    source = qdq_model(tmp_path, scale=[0.1, 0.2, 0.3])
    report = amct_onnx.convert_qat_model(source, tmp_path / "m")
    assert [e.reason for e in report.refused] == ["activation-per-channel"]
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32) * 8
    expected = ort.InferenceSession(str(source), amct_onnx.AMCT_SO).run(None, {"x": x})[0]
    fake = ort.InferenceSession(report.fake_quant_model, amct_onnx.AMCT_SO).run(None, {"x": x})[0]
    np.testing.assert_array_equal(fake, expected)


def test_import_creates_nothing_and_is_light(tmp_path: Path) -> None:
    heavy = ("numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "google.protobuf")
    code = f"import sys, amct_onnx; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sparse", [True, False])
def test_input_that_nothing_makes_is_named(tmp_path: Path, sparse: bool) -> None:
    source = qdq_model(tmp_path)
    model = onnx.load(source)
    model.graph.node.add(op_type="Add", input=["y", "missing"], output=["z"], name="reader")
    model.graph.output[0].name = "z"
    if sparse:
        values = numpy_helper.from_array(np.ones(2, np.float32), "missing")
        positions = numpy_helper.from_array(np.asarray([1, 3]), "positions")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, positions, [5]))
    onnx.save(model, source)
    expected = r"tensor 'missing' is sparse" if sparse else r"'reader' \(Add\) reads tensor 'missing'"
    with pytest.raises(ModelFileError, match=expected):
        amct_onnx.convert_qat_model(source, tmp_path / "m")


@pytest.mark.parametrize(
    ("shape", "reason"), [([3, 1], "bias-shape"), ([3, 3], "bias-shape"), ([1, 3], None), ([1, 1], None), ([], None)]
)
def test_gemm_bias_that_is_not_per_channel_is_refused(tmp_path: Path, shape: list[int], reason: str | None) -> None:
    b = QdqBuilder()
    x = b.activation(b.input("x", [3, 4]), 0.25, np.asarray(3, np.int8))
    w = b.weight(np.arange(12, dtype=np.int8).reshape(4, 3), 0.5)
    # multiples of scale_d * scale_w, so that source and result are equal
    bias = b.constant((np.arange(np.prod(shape, dtype=int)).reshape(shape) * 0.125 - 1).astype(np.float32))
    b.output(b.node("Gemm", [x, w, bias], "gemm", "y"))
    source = b.save(tmp_path)
    report = amct_onnx.convert_qat_model(source, tmp_path / "m")
    assert [e.reason for e in report.layers] == [reason]
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    expected = ort.InferenceSession(str(source), amct_onnx.AMCT_SO).run(None, feeds)[0]
    fake = ort.InferenceSession(report.fake_quant_model, amct_onnx.AMCT_SO).run(None, feeds)[0]
    np.testing.assert_array_equal(fake, expected)
