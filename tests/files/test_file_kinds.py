"""Files that are given for a model and are none: named by what they are, in convert, simulate and check alike."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format, text_format

import amct_onnx
from amct_onnx.errors import ModelFileError, NoQuantizerError, UnsupportedModelError

MODEL = Path(__file__).parents[1] / "data" / "reports" / "pass_through" / "03_v_l.onnx"


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, MODEL.read_bytes())
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(MODEL, "model.onnx")
    return stream.getvalue()


def graph_def() -> bytes:
    """A TensorFlow GraphDef of one Placeholder, field by field."""
    node = b"\x0a\x05input\x12\x0bPlaceholder"
    return b"\x0a" + bytes([len(node)]) + node + b"\x22\x03\x08\xa1\x01"


KINDS: dict[str, tuple[bytes, str]] = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "zip": (zipped("model.onnx"), "zip archive"),
    "torch": (zipped("archive/data.pkl", "archive/version"), "PyTorch checkpoint.*torch.onnx.export"),
    "pickle": (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(G?\xf0\x00\x00\x00\x00\x00\x00es.", "pickle"),
    "gzip": (gzip.compress(MODEL.read_bytes()), "gzip"),
    "openssl": (b"Salted__" + bytes(range(200)), "encrypted with openssl"),
    "tar": (tarred(), "tar archive"),
    "ort": (b"\x18\0\0\0ORTM" + bytes(range(64)), r"\.ort"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(range(64)), "TensorFlow Lite"),
    "om": (b"IMOD" + bytes(range(200)), r"\.om.*ATC"),
    "pb": (graph_def(), "TensorFlow graph"),
    "saved": (b"\x08\x01\x12\x40\x0a\x30\x0a\x00\x12\x0a\x0a\x04Tensor\x22\x0atensorflow" + b"\xff" * 40, "SavedModel"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page"),
    "xml": (b'<?xml version="1.0"?><net name="m"/>', "XML"),
    "json": (json.dumps({"message": "Not Found"}).encode(), "JSON"),
    "model_json": (json_format.MessageToJson(onnx.load(MODEL)).encode(), "model as JSON"),
    "text": (text_format.MessageToString(onnx.load(MODEL)).encode(), "protobuf text.*textproto"),
    "onnx_text": (b'<\n  ir_version: 7, opset_import: ["": 13]\n>\ng (float[N] x) => (float[N] y) {}', "text syntax"),
    "note": (b"the model is on the share\n", "text file"),
    "npy": (b"\x93NUMPY\x01\x00", "NumPy"),
    "safetensors": (
        (56).to_bytes(8, "little") + b'{"w":{"dtype":"F32","data_offsets":[0,4]}}' + bytes(18),
        "safetensors",
    ),
    "openvino": (b'<?xml version="1.0"?>\n<net name="m" version="11"/>', "OpenVINO"),
    "utf16": ("the model is on the share".encode("utf-16"), "text file"),
    "utf8": ("模型在共享盘上".encode(), "text file"),
    "caffe": (b'name: "LeNet"\nlayer {\n  name: "conv1"\n}\n', "Caffe network .*prototxt"),
    "caffemodel": (b"\x0a\x05LeNet\xa2\x06\x14\x0a\x05conv1\x12\x0bConvolution", "caffemodel"),
    "ncnn": (b"7767517\n75 83\nInput data 0 1 data\n", "ncnn"),
    "rknn": (b"RKNN" + bytes(60), "Rockchip"),
    "engine": (b"ftrt" + bytes(60), "TensorRT engine"),
    "mlir": (b"ML\xefR\x01MLIR19" + bytes(50), "MLIR's bytecode"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras"),
    "npz": (zipped("a.npy"), "NumPy arrays"),
    "pickle_0": (b"(dp0\nVa\np1\n(lp2\nI1\nas.", "pickle"),
    "tensor": (onnx.load(MODEL).graph.initializer[0].SerializeToString(), "one tensor"),
    "node": (onnx.load(MODEL).graph.node[0].SerializeToString(), "one node"),
    "graph": (onnx.load(MODEL).graph.SerializeToString(), "graph .*without the model.*make_model"),
    "value": (onnx.load(MODEL).graph.input[0].SerializeToString(), "the type of one tensor"),
    "tiny": (b"\x13\x04\x2c\xd0", r"not known here \(size 4, first bytes 13 04 2c d0\)"),
    "random": (np.random.default_rng(0).bytes(1 << 15), "encrypted"),
    "zeros": (bytes(5000), "zeros only"),
    "empty": (b"", "empty file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_model_are_named(kind: str, tmp_path: Path) -> None:
    content, named = KINDS[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for verb in (lambda: amct_onnx.convert_qat_model(path, tmp_path / "m"), lambda: amct_onnx.DeploySession(path)):
        with pytest.raises(ModelFileError, match=f"model.onnx: not an ONNX model but .*{named}"):
            verb()
    with pytest.raises(ModelFileError, match=named):
        amct_onnx.check(path)


def test_a_damaged_model_is_still_a_damaged_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    content = MODEL.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match="not a valid ONNX model"):
        amct_onnx.convert_qat_model(path, tmp_path / "m")


def test_a_directory_is_named_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelFileError, match="a directory with a TensorFlow SavedModel"):
        amct_onnx.convert_qat_model(tmp_path, tmp_path / "m")


@pytest.mark.parametrize("kind", ["deploy", "fake-quant"])
def test_outputs_of_a_conversion_are_recognised(kind: str, tmp_path: Path) -> None:
    report = amct_onnx.convert_qat_model(MODEL, tmp_path / "m")
    given = report.deploy_model if kind == "deploy" else report.fake_quant_model
    with pytest.raises(NoQuantizerError, match=f"This is a {kind} model, the output of a conversion: its node '"):
        amct_onnx.convert_qat_model(given, tmp_path / "again")
    with pytest.raises(NoQuantizerError, match=f"is a {kind} model"):
        amct_onnx.doctor(given)


def test_a_session_says_that_a_model_is_no_deploy_model(tmp_path: Path) -> None:
    report = amct_onnx.convert_qat_model(MODEL, tmp_path / "m")
    assert not amct_onnx.DeploySession(report.deploy_model).warnings
    for path, kind in ((MODEL, "QAT model"), (report.fake_quant_model, "fake-quant model")):
        warning = amct_onnx.DeploySession(path).warnings[0]
        assert f"no Ascend operator: it is a {kind}. " in warning


@pytest.mark.parametrize("kind", ["QAT", "fake-quant"])
def test_no_results_are_written_that_would_be_taken_for_a_device_s(kind: str, tmp_path: Path) -> None:
    report = amct_onnx.convert_qat_model(MODEL, tmp_path / "m")
    given, remedy = (MODEL, "Convert it") if kind == "QAT" else (report.fake_quant_model, "Give the deploy model")
    with pytest.raises(UnsupportedModelError, match=f"is a {kind} model .*not those of a device. {remedy}"):
        amct_onnx.simulate(given, tmp_path / "none.npz", tmp_path / "results")
    assert not (tmp_path / "results").exists()
