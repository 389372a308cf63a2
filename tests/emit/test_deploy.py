"""What the deploy model holds differently from the source, so that ATC reads it as it is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_onnx import convert_qat_model
from amct_onnx.errors import SettingError
from support.deploy_evaluator import attributes, evaluate
from support.written_models import Array, convert_and_compare, operators, write_model

QUANT = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"


def factors(offset: int = 5) -> dict[str, Array]:
    return {"s": np.float32(0.05), "z": np.int8(offset)}


@st.composite
def conv_1d(draw: st.DrawFn) -> tuple[str, dict[str, Array], int]:
    """A Conv or ConvTranspose node with one spatial axis, its weight and the number of input channels."""
    op_type = draw(st.sampled_from(["Conv", "ConvTranspose"]))
    group, k = draw(st.sampled_from([1, 2])), draw(st.integers(1, 4))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pads = [draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))]
    spelled = f"group = {group}, strides = [{stride}], dilations = [{dilation}], pads = [{pads[0]}, {pads[1]}]"
    if op_type == "ConvTranspose" and stride > 1:
        spelled += ", output_padding = [1]"
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (4, 4 // group, k)
    weight = {
        "w": rng.integers(-128, 128, shape).astype(np.int8),
        "sw": rng.uniform(0.001, 0.01, 4 if op_type == "Conv" else 4 // group).astype(np.float32),
    }
    axis = 0 if op_type == "Conv" else 1
    return f"wd = DequantizeLinear <axis = {axis}> (w, sw) y = {op_type} <{spelled}> (d, wd)", weight, 4


@given(conv_1d(), st.sampled_from([-128, -7, 0, 127]), st.sampled_from([11, 13, 17]))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_convolution_of_one_axis_is_held_as_two_exactly(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[str, dict[str, Array], int], offset: int, opset: int
) -> None:
    folder = tmp_path_factory.mktemp("conv1d")
    body, weight, channels = case
    if opset < 13:  # per-channel factors exist from opset 13 on
        weight = weight | {"sw": np.float32(0.01)}
        body = body.replace("<axis = 0>", "").replace("<axis = 1>", "")
    text = f"g (float[n, {channels}, l] x) => (float[n, 4, m] y) {{ {QUANT} {body} }}"
    path = write_model(folder / "m.onnx", text, factors(offset) | weight, opset=opset)
    x = np.random.default_rng(3).normal(size=(2, channels, 17)).astype(np.float32) * 4
    report, deploy = convert_and_compare(path, {"x": x}, units=0)
    assert operators(deploy) == [
        "Unsqueeze",
        "AscendQuant",
        body.split("y = ")[1].split()[0],
        "AscendDequant",
        "Squeeze",
    ]
    assert len(attributes(deploy.graph.node[2])["kernel_shape"]) == 2
    kept = convert_qat_model(path, folder / "kept" / "m", keep_conv1d=True)
    assert "Unsqueeze" not in operators(onnx.load(kept.deploy_model))
    assert np.array_equal(evaluate(kept.deploy_model, {"x": x})["y"], evaluate(report.deploy_model, {"x": x})["y"])


DENSE = f"g (float[n, 6] x) => (float[n, 4] y) {{ {QUANT} wd = DequantizeLinear <axis = 1> (w, sw) y = MatMul(d, wd) }}"


def dense(folder: Path) -> tuple[Path, dict[str, Array]]:
    rng = np.random.default_rng(0)
    weight = {
        "w": rng.integers(-128, 128, (6, 4)).astype(np.int8),
        "sw": rng.uniform(1e-6, 0.01, 4).astype(np.float32),
    }
    path = write_model(folder / "m.onnx", DENSE, factors() | weight)
    return path, {"x": rng.normal(size=(5, 6)).astype(np.float32)}


def test_per_channel_matmul_as_vector_equals_scale_and_mul(tmp_path: Path) -> None:
    path, feeds = dense(tmp_path)
    mul = convert_qat_model(path, tmp_path / "mul" / "m")
    vector = convert_qat_model(path, tmp_path / "vector" / "m", gemm_per_channel="vector")
    deploy = onnx.load(vector.deploy_model)
    assert operators(deploy) == ["AscendQuant", "MatMul", "AscendDequant"]
    (packed,) = (t for t in deploy.graph.initializer if t.data_type == onnx.TensorProto.UINT64)
    assert list(packed.dims) == [4]
    assert np.array_equal(evaluate(mul.deploy_model, feeds)["y"], evaluate(vector.deploy_model, feeds)["y"])


def test_per_channel_matmul_is_refused_on_request(tmp_path: Path) -> None:
    path, _ = dense(tmp_path)
    report = convert_qat_model(path, tmp_path / "out" / "m", gemm_per_channel="refuse")
    assert [e.reason for e in report.refused] == ["gemm-per-channel"]


def test_unknown_choice_names_the_known_ones(tmp_path: Path) -> None:
    path, _ = dense(tmp_path)
    with pytest.raises(SettingError, match="mul, vector, refuse"):
        convert_qat_model(path, tmp_path / "out" / "m", gemm_per_channel="both")


def test_padding_of_unknown_size_is_refused(tmp_path: Path) -> None:
    text = f"""g (float[n, 3, h, w0] x) => (float[n, 4, m, l] y) {{
        {QUANT} wd = DequantizeLinear(w, sw) y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (d, wd)
    }}"""
    weight = {"w": np.ones((4, 3, 3, 3), np.int8), "sw": np.float32(0.01)}
    path = write_model(tmp_path / "m.onnx", text, factors() | weight)
    x = np.random.default_rng(3).normal(size=(1, 3, 8, 8)).astype(np.float32)
    report, _ = convert_and_compare(path, {"x": x}, units=0)
    assert [e.reason for e in report.refused] == ["padding-unknown"]


def test_convolution_dilated_in_depth_stays_float(tmp_path: Path) -> None:
    text = f"""g (float[1, 2, 5, 5, 5] x) => (float[1, 4, a, b, c] y, float[1, 4, d, e, f] v) {{
        {QUANT} wd = DequantizeLinear(w, sw)
        y = Conv <dilations = [2, 1, 1]> (d, wd) v = Conv <dilations = [1, 2, 2]> (d, wd)
    }}"""
    weight = {"w": np.ones((4, 2, 2, 2, 2), np.int8), "sw": np.float32(0.01)}
    path = write_model(tmp_path / "m.onnx", text, factors() | weight)
    x = np.random.default_rng(3).normal(size=(1, 2, 5, 5, 5)).astype(np.float32)
    report, _ = convert_and_compare(path, {"x": x}, units=0)
    assert [e.reason for e in report.layers] == ["conv-3d-dilation", None]
    assert report.check is not None and report.check.passed


def test_convolution_of_four_axes_stays_float(tmp_path: Path) -> None:
    text = f"""g (float[1, 2, 3, 3, 3, 3] x) => (float[1, 4, 2, 2, 2, 2] y) {{
        {QUANT} wd = DequantizeLinear(w, sw) y = Conv(d, wd)
    }}"""
    weight = {"w": np.ones((4, 2, 2, 2, 2, 2), np.int8), "sw": np.float32(0.01)}
    report = convert_qat_model(write_model(tmp_path / "m.onnx", text, factors() | weight), tmp_path / "out" / "m")
    assert [e.reason for e in report.refused] == ["conv-rank"]


def test_empty_optional_inputs_are_dropped_and_names_differ_from_inputs(tmp_path: Path) -> None:
    text = f"""g (float[n, 3, 8, 8] x) => (float[n, 4, m, l] y) {{
        {QUANT} wd = DequantizeLinear(w, sw) c = Conv(d, wd, ) y = Relu(c)
    }}"""
    weight = {"w": np.ones((4, 3, 3, 3), np.int8), "sw": np.float32(0.01)}
    path = write_model(tmp_path / "m.onnx", text, factors() | weight)
    model = onnx.load(str(path))
    model.graph.node[-1].name = "x"
    onnx.save(model, str(path))
    x = np.random.default_rng(3).normal(size=(1, 3, 8, 8)).astype(np.float32)
    _, deploy = convert_and_compare(path, {"x": x}, units=0)
    (conv,) = (n for n in deploy.graph.node if n.op_type == "Conv")
    assert len(conv.input) == 2
    assert "x" not in {n.name for n in deploy.graph.node}


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_alpha_of_a_float_gemm_without_c_becomes_a_mul(tmp_path: Path, kind: str) -> None:
    text = f"""g (float[n, 6] x, {kind}[3, 6] a, {kind}[4, 6] b) => (float[n, 6] u, {kind}[3, 4] y) {{
        q = QuantizeLinear(x, s, z) u = DequantizeLinear(q, s, z) y = Gemm <alpha = 0.5, transB = 1> (a, b)
    }}"""
    path = write_model(tmp_path / "m.onnx", text, factors())
    rng, dtype = np.random.default_rng(3), np.float32 if kind == "float" else np.float16
    feeds: dict[str, Array] = {"x": rng.normal(size=(2, 6)).astype(np.float32)}
    feeds |= {"a": rng.normal(size=(3, 6)).astype(dtype), "b": rng.normal(size=(4, 6)).astype(dtype)}
    report, deploy = convert_and_compare(path, feeds, units=0)
    (gemm,) = (n for n in deploy.graph.node if n.op_type == "Gemm")
    assert attributes(gemm) == {"transB": 1} and operators(deploy)[-1] == "Mul"
    assert report.check is not None and report.check.passed
