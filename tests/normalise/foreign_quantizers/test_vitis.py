"""The pairs of Vitis and Quark against the same model with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from amct_onnx import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import Evaluator, run
from support.tensor_protos import tensor_proto

PAIRS = {
    "com.vai.quantize": ("VitisQuantizeLinear", "VitisDequantizeLinear"),
    "com.amd.quark": ("ExtendedQuantizeLinear", "ExtendedDequantizeLinear"),
    "com.vitis": ("VitisQuantizeLinear", "VitisDequantizeLinear"),
    "": ("QuantizeLinear", "DequantizeLinear"),
}
FOREIGN = [d for d in PAIRS if d]
X = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32) * 3


def converted(domain: str, zero: np.ndarray, folder: Path) -> ConversionReport:
    """An activation with that zero point and a per-channel weight, both in pairs of a domain, in front of a Gemm."""
    random = np.random.default_rng(0)
    arrays = {
        "s": np.float32(0.05),
        "z": zero,
        "w": random.integers(-127, 128, (8, 4)).astype(np.int8),
        "sw": random.uniform(0.01, 0.03, 4).astype(np.float32),
        "zw": np.zeros(4, np.int8),
    }
    quantize, dequantize = PAIRS[domain]
    extra = {"pof2s": 1} if domain else {}
    nodes = [
        helper.make_node(quantize, ["x", "s", "z"], ["q"], "q", domain=domain, **extra),
        helper.make_node(dequantize, ["q", "s", "z"], ["d"], "dq", domain=domain, **extra),
        helper.make_node(dequantize, ["w", "sw", "zw"], ["wd"], "wdq", domain=domain, axis=1, **extra),
        helper.make_node("Gemm", ["d", "wd"], ["y"], "gemm"),
    ]
    ends = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)] for n, s in (("x", [2, 8]), ("y", [2, 4]))]
    tensors = [tensor_proto(np.asarray(a), n) for n, a in arrays.items()]
    imports = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, 1)] if domain else [])]
    folder.mkdir()
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), folder / "m.onnx")
    return convert_qat_model(folder / "m.onnx", folder / "out")


@pytest.mark.parametrize("domain", FOREIGN)
@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT16", "FLOAT8E4M3FN"])
def test_pair_means_the_default_domains(domain: str, kind: str, tmp_path: Path) -> None:
    zero = np.asarray(100 if kind == "UINT8" else 0).astype(ir.DataType[kind].numpy())
    found, wanted = (converted(d, zero, tmp_path / (d or "default")) for d in (domain, ""))
    assert [(e.verdict, e.reason, e.scale_d, e.offset_d, e.scale_w) for e in found.layers] == [
        (e.verdict, e.reason, e.scale_d, e.offset_d, e.scale_w) for e in wanted.layers
    ]
    assert len(found.converted) == int(kind in ("INT8", "UINT8")) and not found.warnings
    expected = run(wanted.fake_quant_model, {"x": X})["y"]
    np.testing.assert_array_equal(run(found.fake_quant_model, {"x": X})["y"], expected)
    np.testing.assert_array_equal(Evaluator(found.deploy_model).run({"x": X})["y"], expected)


@pytest.mark.parametrize("kind", ["INT32", "BFLOAT16"])
def test_another_type_is_left_and_named(kind: str, tmp_path: Path) -> None:
    zero = np.asarray(0).astype(ir.DataType[kind].numpy())
    report = converted("com.amd.quark", zero, tmp_path / "m")
    (entry,) = report.refused
    assert entry.reason == "activation-not-quantized"
    assert "ExtendedDequantizeLinear 'dq' of domain 'com.amd.quark', which is not known here" in entry.detail
    assert any("1 x com.amd.quark::ExtendedQuantizeLinear ('q')" in w for w in report.warnings)
