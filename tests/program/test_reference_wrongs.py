"""Where the reference engine is wrong or refuses (cases a to q of its observed bugs), ours is right.

Scales are powers of two, so float32 holds every number of the source exactly and the fake-quant model must equal the
source bit for bit; the deploy model is evaluated independently and must equal both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import evaluate, run
from support.golden_models import parse_record
from support.qdq_builder import QdqBuilder

pytestmark = pytest.mark.usefixtures("one_process")

SCALE = 2.0**-4
WEIGHT_SCALE = 2.0**-5
ZERO = np.asarray(3, np.int8)
RNG = np.random.default_rng(7)
X4 = (RNG.integers(-300, 300, (2, 4, 6, 6)) / 32).astype(np.float32)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-128, 128, shape).astype(np.int8)


def bias(channels: int) -> np.ndarray:
    """Multiples of SCALE * WEIGHT_SCALE."""
    return (np.arange(channels) * 37 - 50).astype(np.float32) * np.float32(SCALE * WEIGHT_SCALE)


def quantized(b: QdqBuilder, source: str = "x") -> str:
    return b.activation(source, SCALE, ZERO)


def convert(b: QdqBuilder, folder: Path, layers: int, **extra: Any) -> tuple[Path, ConversionReport]:
    """Convert; every one of the layers must be int8."""
    source = b.save(folder, **extra)
    report = convert_qat_model(source, folder / "out" / "m", folder / "out" / "record.txt")
    assert len(report.converted) == len(report.layers) == layers, report.summary()
    return source, report


def same_everywhere(source: Path, report: ConversionReport, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Source, fake-quant and deploy give the same bits."""
    expected = run(source, feeds, qdq_source=True)
    fake, deploy = run(report.fake_quant_model, feeds), evaluate(report.deploy_model, feeds)
    for name, value in expected.items():
        np.testing.assert_array_equal(fake[name], value, err_msg=name)
        np.testing.assert_array_equal(deploy[name], value, err_msg=name)
        assert np.ptp(value) > 0
    return expected


def initializers(path: str) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def layer(path: str, name: str) -> onnx.NodeProto:
    return next(n for n in onnx.load(path).graph.node if n.name == name)


@pytest.mark.parametrize("second_scale", [WEIGHT_SCALE, WEIGHT_SCALE / 4])
def test_a_weight_and_bias_shared_by_two_layers(tmp_path: Path, second_scale: float) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    w = b.constant((integers(5, 4, 3, 3) * np.float32(WEIGHT_SCALE)).astype(np.float32), "w")
    shared_bias = b.constant(bias(5), "b")
    for name, scale in (("first", WEIGHT_SCALE), ("second", second_scale)):
        dq = b.weight(w, scale, zero_point=np.asarray(0, np.int8), quantize=True)
        b.output(b.node("Conv", [x, dq, shared_bias], name, f"y_{name}"))
    source, report = convert(b, tmp_path, 2)
    same_everywhere(source, report, {"x": X4})
    tensors = initializers(report.deploy_model)
    for name, scale in (("first", WEIGHT_SCALE), ("second", second_scale)):
        _, weight, layer_bias = layer(report.deploy_model, name).input
        expected = np.clip(integers(5, 4, 3, 3) * (WEIGHT_SCALE / scale), -128, 127)
        np.testing.assert_array_equal(tensors[weight], expected.astype(np.int8))
        np.testing.assert_array_equal(tensors[layer_bias], (bias(5) / (SCALE * scale)).astype(np.int32))


def test_a_transposed_gemm_weight_shared_by_two_layers(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4]))
    dq = b.weight(integers(4, 4), WEIGHT_SCALE)
    for name in ("first", "second"):
        b.output(b.node("Gemm", [x, dq], name, f"y_{name}", transB=1))
    source, report = convert(b, tmp_path, 2)
    result = same_everywhere(source, report, {"x": X4[:, :, 0, 0]})
    np.testing.assert_array_equal(result["y_first"], result["y_second"])


def test_b_weight_also_read_by_a_float_node(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    w = b.constant((integers(5, 4, 3, 3) * np.float32(WEIGHT_SCALE)).astype(np.float32), "w")
    dq = b.weight(w, WEIGHT_SCALE, zero_point=np.asarray(0, np.int8), quantize=True)
    b.output(b.node("Conv", [x, dq], "conv", "y"))
    b.output(b.node("Neg", [w], "float_reader", "z"))
    b.output(b.node("Abs", [dq], "dequantized_reader", "v"))
    source, report = convert(b, tmp_path, 1)
    same_everywhere(source, report, {"x": X4})


def test_c_layer_output_captured_by_a_subgraph(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", [2, 4, 6, 6]))
    conv = b.node("Conv", [x, b.weight(integers(5, 4, 3, 3), WEIGHT_SCALE)], "conv", "c")
    branches = {}
    for branch, op_type in (("then_branch", "Neg"), ("else_branch", "Abs")):
        output = helper.make_tensor_value_info(branch, TensorProto.FLOAT, None)
        inner = helper.make_node(op_type, [conv], [branch], name=f"inner_{op_type}")
        branches[branch] = helper.make_graph([inner], branch, [], [output])
    condition = b.constant(np.asarray(True), "condition")
    b.output(b.node("If", [condition], "if", "y", **branches))
    source, report = convert(b, tmp_path, 1)
    # the evaluator runs nodes one by one and knows no captured tensors
    expected, fake = run(source, {"x": X4}, qdq_source=True), run(report.fake_quant_model, {"x": X4})
    np.testing.assert_array_equal(fake["y"], expected["y"])
    node = layer(report.deploy_model, "if")
    dequantized = layer(report.deploy_model, "conv.dequant").output[0]
    for attribute in node.attribute:
        assert list(attribute.g.node[0].input) == [dequantized]


@pytest.mark.parametrize("value", [2.0**31, -(2.0**31) - 2**8, np.inf, np.nan])
def test_d_bias_that_leaves_int32_is_added_as_floats(tmp_path: Path, value: float) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    floats = bias(5)
    floats[3] = np.float32(value * SCALE * WEIGHT_SCALE)
    b.output(b.node("Conv", [x, b.weight(integers(5, 4, 3, 3), WEIGHT_SCALE), b.constant(floats)], "conv", "y"))
    source = b.save(tmp_path)
    report = convert_qat_model(source, tmp_path / "m")
    (entry,) = report.converted
    assert "floats" in entry.detail and entry.bias_error is None
    expected, fake = run(source, {"x": X4}, qdq_source=True), run(report.fake_quant_model, {"x": X4})
    # float32 sums in another order: 2^-20 of the largest finite sum without the bias of channel 3
    slack = np.abs(expected["y"][:, :3]).max() * 2.0**-20
    others = [c for c in range(5) if c != 3]
    np.testing.assert_allclose(fake["y"][:, others], expected["y"][:, others], rtol=0, atol=slack)
    np.testing.assert_allclose(fake["y"][:, 3], expected["y"][:, 3], rtol=2.0**-22)


def test_d_smallest_int32_bias_is_kept(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4]))
    floats = np.asarray([-(2.0**31), 2.0**31 - 128, 0], np.float32) * np.float32(SCALE * WEIGHT_SCALE)
    b.output(b.node("Gemm", [x, b.weight(np.zeros((4, 3), np.int8), WEIGHT_SCALE), b.constant(floats)], "gemm", "y"))
    source, report = convert(b, tmp_path, 1)
    tensors = initializers(report.deploy_model)
    np.testing.assert_array_equal(
        tensors[layer(report.deploy_model, "gemm").input[2]], np.asarray([-(2**31), 2**31 - 128, 0], np.int32)
    )
    same_everywhere(source, report, {"x": X4[:, :, 0, 0]})


@pytest.mark.parametrize("default_first", [True, False])
def test_e_the_default_opset_survives_others(tmp_path: Path, default_first: bool) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    conv = b.node("Conv", [x, b.weight(integers(5, 4, 3, 3), WEIGHT_SCALE)], "conv", "y")
    b.output(conv, shape=["n", 5, 4, 4])
    model = b.model(extra_opsets=[("com.microsoft", 1)])
    if not default_first:
        opsets = list(reversed(model.opset_import))
        del model.opset_import[:]
        model.opset_import.extend(opsets)
    source = tmp_path / "source.onnx"
    onnx.save(model, str(source))
    report = convert_qat_model(source, tmp_path / "m")
    for path in (report.deploy_model, report.fake_quant_model):
        assert [(o.domain, o.version) for o in onnx.load(path).opset_import] == [("", 13)]
    onnx.checker.check_model(report.fake_quant_model, full_check=True)
    same_everywhere(source, report, {"x": X4})


def test_f_value_info_is_not_stale(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    conv = b.node("Conv", [x, b.weight(integers(5, 4, 3, 3), WEIGHT_SCALE)], "conv", "c")
    b.output(b.node("Relu", [conv], "relu", "y"))
    model = onnx.shape_inference.infer_shapes(b.model(), strict_mode=True)
    assert {"c"} <= {v.name for v in model.graph.value_info}
    source = tmp_path / "source.onnx"
    onnx.save(model, str(source))
    report = convert_qat_model(source, tmp_path / "m")
    graph = onnx.load(report.deploy_model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
    right = {"AscendQuant": TensorProto.INT8, "Conv": TensorProto.INT32, "AscendDequant": TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type in right and node.output[0] in types:
            assert types[node.output[0]] == right[node.op_type], node.name
    assert set(types) <= {o for n in graph.node for o in n.output} | {t.name for t in graph.initializer}
    onnx.shape_inference.infer_shapes(onnx.load(report.fake_quant_model), check_type=True, strict_mode=True)


@pytest.mark.parametrize("zero", [-128, 3, 127])
def test_g_padding_pads_a_real_zero_whatever_the_offset(tmp_path: Path, zero: int) -> None:
    """The engine folds a Pad into AveragePool; ours adapts no AveragePool, and Pad stays a float operator."""
    b = QdqBuilder()
    x = b.activation(b.input("x", ["n", 4, 6, 6]), SCALE, np.asarray(zero, np.int8))
    padded = b.node("Pad", [x, b.constant(np.asarray([0, 0, 1, 1, 0, 0, 1, 1]))], "pool_pad")
    b.output(b.node("AveragePool", [padded], "pool", "pooled", kernel_shape=[2, 2]))
    w = b.weight(integers(5, 4, 3, 3), WEIGHT_SCALE)
    b.output(b.node("Conv", [x, w], "conv", "y", pads=[1, 1, 1, 1]))
    behind_pad = b.activation(padded, SCALE, np.asarray(zero, np.int8))
    b.output(b.node("Conv", [behind_pad, w], "behind", "z"))
    source, report = convert(b, tmp_path, 2)
    result = same_everywhere(source, report, {"x": X4})
    np.testing.assert_array_equal(result["y"], result["z"])


def test_h_float16_model_loads_and_agrees(tmp_path: Path) -> None:
    """Q and DQ of opset 19 may be float16; no attribute has to say so."""
    b = QdqBuilder(19)
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4, 6, 6]))
    scale, zero = b.constant(np.asarray(SCALE, np.float16)), b.constant(ZERO)
    x = b.node("DequantizeLinear", [b.node("QuantizeLinear", ["x", scale, zero]), scale, zero])
    w = b.node(
        "DequantizeLinear",
        [b.constant((integers(5, 4, 3, 3) // 16).astype(np.int8)), b.constant(np.asarray(0.25, np.float16))],
    )
    b.output(b.node("Conv", [x, w], "conv", "y"), TensorProto.FLOAT16)
    source, report = convert(b, tmp_path, 1)
    dequant = layer(report.deploy_model, "conv.dequant")
    assert {a.name: a.i for a in dequant.attribute} == {"dtype": 1}
    feeds = {"x": X4.astype(np.float16)}
    expected, fake = run(source, feeds, qdq_source=True)["y"], run(report.fake_quant_model, feeds)["y"]
    assert fake.dtype == np.float16
    # the source sums in float16 or float32 as its kernel likes and rounds once or often: half a step of float16 of the
    # largest partial sum (36 products below 16 * 2)
    np.testing.assert_allclose(fake, expected, rtol=2.0**-10, atol=36 * 32 * 2.0**-11)
    # against exact integers: one rounding to float16
    integer = np.clip(np.rint(X4.astype(np.float16).astype(np.float64) / SCALE) + 3, -128, 127) - 3
    windows = np.lib.stride_tricks.sliding_window_view(integer, (3, 3), axis=(2, 3))
    exact = np.einsum("nchwij,ocij->nohw", windows, (integers(5, 4, 3, 3) // 16).astype(np.float64)) * SCALE * 0.25
    np.testing.assert_array_equal(fake, exact.astype(np.float16))


@pytest.mark.parametrize("quantized_layer", [True, False])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_i_and_j_no_kernel_shape_and_no_group(tmp_path: Path, op_type: str, quantized_layer: bool) -> None:
    b = QdqBuilder()
    b.input("x", ["n", 4, 6, 6])
    w = integers(4, 4, 3, 3)
    gemm_in = b.node("Flatten", ["x"])
    b.output(b.node("Gemm", [quantized(b, gemm_in), b.weight(integers(144, 3), WEIGHT_SCALE)], "gemm", "z"))
    if quantized_layer:
        b.output(b.node(op_type, [quantized(b), b.weight(w, WEIGHT_SCALE), b.constant(bias(4))], "bare", "y"))
    else:
        b.output(b.node(op_type, ["x", b.constant(w.astype(np.float32)), b.constant(bias(4))], "bare", "y"))
    source = b.save(tmp_path)
    report = convert_qat_model(source, tmp_path / "m")
    assert len(report.converted) == 1 + quantized_layer
    same_everywhere(source, report, {"x": X4})
    if quantized_layer:
        found = {a.name: helper.get_attribute_value(a) for a in layer(report.deploy_model, "bare").attribute}
        assert found["kernel_shape"] == [3, 3] and found["group"] == 1


def test_k_unnamed_nodes_get_names(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    w = b.weight(integers(4, 4, 3, 3), WEIGHT_SCALE)
    value = b.node("Relu", [b.node("Conv", [x, w], "")], "")
    b.output(b.node("Conv", [quantized(b, value), w], "", "y"))
    for node in b.nodes:
        node.name = ""
    source, report = convert(b, tmp_path, 2)
    same_everywhere(source, report, {"x": X4})
    names = [n.name for n in onnx.load(report.deploy_model).graph.node]
    assert "" not in names and len(set(names)) == len(names)
    assert len({e.name for e in report.layers}) == 2 and set(parse_record((tmp_path / "out/record.txt").read_text()))


@pytest.mark.parametrize("quantize", [True, False])
def test_l_weight_and_bias_as_constant_nodes(tmp_path: Path, quantize: bool) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    w = integers(5, 4, 3, 3)
    array = w.astype(np.float32) * np.float32(WEIGHT_SCALE) if quantize else w
    name = b.constant(array, "w", as_node=True)
    dq = b.weight(name, WEIGHT_SCALE, zero_point=np.asarray(0, np.int8), quantize=quantize)
    b.output(b.node("Conv", [x, dq, b.constant(bias(5), "b", as_node=True)], "conv", "y"))
    source, report = convert(b, tmp_path, 1)
    same_everywhere(source, report, {"x": X4})
    tensors = initializers(report.deploy_model)
    np.testing.assert_array_equal(tensors[layer(report.deploy_model, "conv").input[1]], w)


@pytest.mark.parametrize("group", [1, 2])
def test_m_conv_transpose_3d_stays_float_and_right(tmp_path: Path, group: int) -> None:
    """The device has no int8 ConvTranspose with three spatial axes; the engine crashes with groups."""
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 3, 3, 3]))
    w = b.weight(integers(4, 2, 2, 2, 2), WEIGHT_SCALE)
    b.output(b.node("ConvTranspose", [x, w], "deconv", "y", group=group))
    source = b.save(tmp_path)
    report = convert_qat_model(source, tmp_path / "m")
    assert [e.reason for e in report.layers] == ["conv-transpose-3d"]
    same_everywhere(source, report, {"x": X4.reshape(-1)[: 2 * 108].reshape(2, 4, 3, 3, 3)})


def test_n_duplicate_node_names_and_taken_tensor_names(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4, 6, 6]))
    w = b.weight(integers(4, 4, 3, 3), WEIGHT_SCALE)
    value = b.node("Conv", [x, w], "same", "same.quant.output0")
    value = b.node("Relu", [value], "same.quant", "same.dequant.param")
    value = b.node("Conv", [quantized(b, value), w], "same", "same.dequant.output0")
    b.output(b.node("Relu", [value], "same", "same.dequant"))
    _, report = convert(b, tmp_path, 2)
    # onnxruntime loads no model with duplicate names: the expected numbers come from a renamed source
    for index, node in enumerate(b.nodes):
        node.name = f"node_{index}"
    (tmp_path / "renamed").mkdir()
    same_everywhere(b.save(tmp_path / "renamed"), report, {"x": X4})
    for path in (report.deploy_model, report.fake_quant_model):
        graph = onnx.load(path).graph
        names = [n.name for n in graph.node]
        tensors = [o for n in graph.node for o in n.output] + [t.name for t in graph.initializer]
        assert len(set(names)) == len(names) and len(set(tensors)) == len(tensors)


@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_o_per_channel_gemm_and_matmul(tmp_path: Path, op_type: str) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4]))
    scales = np.asarray([2.0**-5, 2.0**-9, 2.0**-2], np.float32)
    w = b.weight(integers(4, 3), scales, axis=1)
    floats = b.constant(np.asarray([1, -2, 3], np.float32))
    if op_type == "Gemm":
        b.output(b.node("Gemm", [x, w, floats], "layer", "y"))
    else:
        b.output(b.node("Add", [floats, b.node("MatMul", [x, w], "layer")], "add", "y"))
    source, report = convert(b, tmp_path, 1)
    assert report.layers[0].granularity == "per-channel"
    same_everywhere(source, report, {"x": X4[:, :, 0, 0]})
    param = initializers(report.deploy_model)[layer(report.deploy_model, "layer.dequant").input[1]]
    assert param.shape == (1,)


def test_o_gemm_trans_a(tmp_path: Path) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", [4, "n"]))
    b.output(b.node("Gemm", [x, b.weight(integers(4, 3), WEIGHT_SCALE)], "gemm", "y", transA=1))
    source, report = convert(b, tmp_path, 1)
    same_everywhere(source, report, {"x": X4[0, :, :, 0]})


@pytest.mark.parametrize("rank", [2, 3])
def test_o_matmul_of_two_activations_or_of_a_3d_weight_stays_float_and_right(tmp_path: Path, rank: int) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", [2, 4, 6]))
    other = quantized(b, b.input("z", [2, 6, 4])) if rank == 2 else b.weight(integers(2, 6, 4), WEIGHT_SCALE)
    b.output(b.node("MatMul", [x, other], "matmul", "y"))
    source = b.save(tmp_path)
    report = convert_qat_model(source, tmp_path / "m")
    assert [e.reason for e in report.layers] == ["activation-offset" if rank == 2 else "matmul-weight-rank"]
    feeds = {"x": X4[:, :, :, 0]} | ({"z": X4[:, :, :, 1].transpose(0, 2, 1)} if rank == 2 else {})
    same_everywhere(source, report, feeds)
    assert {"AscendQuant", "AscendAntiQuant"} <= {n.op_type for n in onnx.load(report.deploy_model).graph.node}


@pytest.mark.parametrize("both", [True, False])
def test_p_add_becomes_anti_quant_and_average_pool_needs_no_factors(tmp_path: Path, both: bool) -> None:
    b = QdqBuilder()
    x, z = b.input("x", ["n", 4, 6, 6]), b.input("z", ["n", 4, 6, 6])
    total = b.node("Add", [quantized(b, x), b.activation(z, SCALE * 2, ZERO) if both else z], "add")
    b.output(b.node("AveragePool", [quantized(b, total)], "pool", "y", kernel_shape=[2, 2]))
    source = b.save(tmp_path)
    report = convert_qat_model(source, tmp_path / "m")
    operators = [n.op_type for n in onnx.load(report.deploy_model).graph.node]
    assert operators.count("AscendAntiQuant") == operators.count("AscendQuant") == 2 + both
    same_everywhere(source, report, {"x": X4, "z": X4[::-1].copy()})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_q_weight_that_is_no_number_is_refused_by_name(tmp_path: Path, value: float) -> None:
    b = QdqBuilder()
    x = quantized(b, b.input("x", ["n", 4]))
    w = integers(4, 3).astype(np.float32) * np.float32(WEIGHT_SCALE)
    w[1, 2] = value
    dq = b.weight(b.constant(w, "weight_tensor"), WEIGHT_SCALE, zero_point=np.asarray(0, np.int8), quantize=True)
    b.output(b.node("Gemm", [x, dq], "gemm", "y"))
    source = b.save(tmp_path)
    with pytest.raises(UnsupportedModelError, match=f"'weight_tensor': it holds {value},"):
        convert_qat_model(source, tmp_path / "out" / "m")
    assert not (tmp_path / "out").exists()
