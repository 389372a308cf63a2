"""The deploy model against the files that the vendor's open engine wrote for the same factors, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import attributes
from support.golden_models import FLOAT_CASES, GOLDENS, QAT_CASES, Factors, golden_qdq, parse_record

# The reference quantises a shared weight twice.
WRONG_REFERENCE = {"conv_shared_weight"}


@dataclass(frozen=True)
class DeployLayer:
    """What a deploy file says about one layer."""

    scale: np.float32
    offset: np.float32
    dst_type: bytes
    weight: np.ndarray
    bias: np.ndarray | None
    param: np.ndarray


class DeployFile:
    """A deploy model indexed by tensor."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(str(path))
        graph = self.model.graph
        self.tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.tensors[node.output[0]] = numpy_helper.to_array(attributes(node)["value"])
        self.producer = {o: n for n in graph.node for o in n.output}
        self.nodes = {n.name: n for n in graph.node}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def constant(self, name: str) -> np.ndarray:
        """A constant, seen through Transpose and Identity."""
        if name in self.tensors:
            return self.tensors[name]
        node = self.producer[name]
        value = self.constant(node.input[0])
        if node.op_type == "Transpose":
            return np.transpose(value, attributes(node).get("perm"))
        assert node.op_type == "Identity", node.op_type
        return value

    def layer(self, name: str) -> DeployLayer:
        """The layer whose node has this name."""
        node = self.nodes[name]
        quant = self.producer[node.input[0]]
        assert quant.op_type == "AscendQuant"
        attrs = attributes(quant)
        weight = self.constant(node.input[1])
        if node.op_type == "Gemm" and attributes(node).get("transB", 0):
            weight = weight.T
        bias = self.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        (reader,) = self.consumers[node.output[0]]
        if reader.op_type == "Add":
            bias = self.constant(reader.input[1 - list(reader.input).index(node.output[0])])
            (reader,) = self.consumers[reader.output[0]]
        assert reader.op_type == "AscendDequant", reader.op_type
        return DeployLayer(
            np.float32(attrs["scale"]),
            np.float32(attrs["offset"]),
            attrs["dst_type"],
            weight,
            bias,
            self.constant(reader.input[1]),
        )


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal in type, shape and every bit."""
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def compare(report: ConversionReport, reference: Path, record: dict[str, Factors]) -> None:
    """Every layer of the record must be converted, with the reference's numbers."""
    assert {e.name for e in report.converted} == set(record), report.to_dict()
    ours, theirs = DeployFile(Path(report.deploy_model)), DeployFile(reference)
    for name in record:
        a, b = ours.layer(name), theirs.layer(name)
        assert same(np.asarray(a.scale), np.asarray(b.scale)), name
        assert same(np.asarray(a.offset), np.asarray(b.offset)), name
        assert a.dst_type == b.dst_type, name
        assert same(a.weight, b.weight), name
        if b.bias is not None:
            assert a.bias is not None and same(a.bias, b.bias), name
        assert same(a.param, b.param), name


@pytest.mark.parametrize("name", [n for n in FLOAT_CASES if n not in WRONG_REFERENCE])
def test_float_case_matches_reference(name: str, tmp_path: Path) -> None:
    source, _ = golden_qdq(name, tmp_path)
    report = convert_qat_model(str(source), str(tmp_path / "out" / "m"), keep_conv1d=True)
    compare(report, GOLDENS / name / "m_deploy_model.onnx", parse_record((GOLDENS / name / "record.txt").read_text()))


@pytest.mark.parametrize("name", QAT_CASES)
def test_qat_case_matches_reference(name: str, tmp_path: Path) -> None:
    case = GOLDENS / "qat" / name
    report = convert_qat_model(str(case / "qat.onnx"), str(tmp_path / "m"), keep_conv1d=True)
    compare(report, case / "m_deploy_model.onnx", parse_record((case / "record.txt").read_text()))


def test_shared_weight_is_quantised_once(tmp_path: Path) -> None:
    source, _ = golden_qdq("conv_shared_weight", tmp_path)
    report = convert_qat_model(str(source), str(tmp_path / "m"))
    record = parse_record((GOLDENS / "conv_shared_weight" / "record.txt").read_text())
    model = onnx.load(str(GOLDENS / "conv_shared_weight" / "model.onnx"))
    floats = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert {e.name for e in report.converted} == set(record) == {"conva", "convb"}
    deploy = DeployFile(Path(report.deploy_model))
    for name, factors in record.items():
        layer = deploy.layer(name)
        deq = factors.scale_w * factors.scale_d
        weight = np.clip(np.rint(floats["w"] / factors.scale_w[:, None, None, None]), -128, 127).astype(np.int8)
        assert same(layer.weight, weight), name
        assert same(layer.bias, np.rint(floats["b"] / deq).astype(np.int32)), name
        assert same(layer.param, deq.view(np.uint32).astype(np.uint64)), name
        assert same(np.asarray(layer.scale), np.asarray(np.float32(1) / factors.scale_d)), name


def test_bias_beyond_int32_is_added_as_floats(tmp_path: Path) -> None:
    source, _ = golden_qdq("conv_bias_overflow", tmp_path)
    report = convert_qat_model(str(source), str(tmp_path / "m"))
    (entry,) = [e for e in report.layers if e.name == "conv"]
    assert entry.verdict == "converted" and "bias" in entry.detail
    deploy = onnx.load(report.deploy_model)
    (add,) = [n for n in deploy.graph.node if n.name == "conv.bias_add"]
    assert entry.deploy_nodes[-1] == add.name
    assert [n.op_type for n in deploy.graph.node if add.input[0] in n.output] == ["AscendDequant"]


def test_record_file_holds_the_reference_factors(tmp_path: Path) -> None:
    case = GOLDENS / "qat" / "net"
    record = tmp_path / "record.txt"
    convert_qat_model(str(case / "qat.onnx"), str(tmp_path / "m"), str(record))
    ours, theirs = parse_record(record.read_text()), parse_record((case / "record.txt").read_text())
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        found = ours[name]
        assert (found.scale_d, found.offset_d) == (expected.scale_d, expected.offset_d), name
        assert same(found.scale_w, expected.scale_w), name
        assert same(found.offset_w, expected.offset_w), name
