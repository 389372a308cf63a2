"""DeploySession: bit for bit against the independent evaluator, whatever kernel a layer gets."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx import AMCT_SO, DeploySession, convert_qat_model
from amct_onnx.device.facts import WeightSums, largest_sum, weight_sums, worst_accumulator
from amct_onnx.device.lowered_session import LoweredSession
from amct_onnx.device.lowering.lower import lower
from amct_onnx.device.products import PRODUCTS
from amct_onnx.device.session import static_facts
from amct_onnx.errors import DataError, ModelFileError, ModelNotFoundError, SettingError, UnsupportedModelError
from amct_onnx.read import read_model
from deploy_evaluator import Evaluator, run
from device_models import F16, F32, I8, I32, DeviceEvaluator, antiquant, dequant, model, packed, quant
from golden_models import GOLDENS, MODEL_CASES, MODELS
from test_numerics import CASES, converted, feeds_of

ORACLES = sorted(str(p.parent.relative_to(GOLDENS)) for p in GOLDENS.rglob("m_deploy_model.onnx"))
FLOAT16_MODELS = ("torchfq_digitsnet_i8sym_fp16_dynamo20", "modeloptonnx_resnet_fp16")
RANDOM = np.random.default_rng(5)


def same(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape, name
        assert ours[name].tobytes() == value.tobytes(), f"{name}: {np.abs(ours[name] - value).max()}"


def outputs(session: DeploySession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_our_deploy_models(case: str, tmp_path: Path) -> None:
    _, _, report = converted(case, tmp_path)
    feeds = feeds_of(case)
    with DeploySession(report.deploy_model) as session:
        same(outputs(session, feeds), Evaluator(report.deploy_model).run(feeds))
        assert [f.name for f in session.facts] == [e.name for e in report.converted]


@pytest.mark.parametrize("case", ORACLES)
def test_deploy_models_of_the_vendor(case: str) -> None:
    path, feeds = GOLDENS / case / "m_deploy_model.onnx", feeds_of(case)
    with DeploySession(path) as session:
        same(outputs(session, feeds), Evaluator(path).run(feeds))
        assert session.facts and not session.warnings


def test_a_lost_opset_is_assumed_and_warned_about() -> None:
    path, feeds = GOLDENS / "conv2d_bias" / "m_deploy_model.onnx", feeds_of("conv2d_bias")
    proto = onnx.load(path)
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    session = DeploySession(proto.SerializeToString())
    assert "opset 13 is assumed" in session.warnings[0]
    same(outputs(session, feeds), Evaluator(path).run(feeds))


@pytest.mark.parametrize("device", sorted(set(PRODUCTS) - {"reference"}))
@pytest.mark.parametrize(
    "case", [*MODEL_CASES, "conv2d_offset", "conv1d_bias", "conv3d_bias", "matmul_add", "deconv_g2"]
)
def test_devices_on_whole_models(case: str, device: str, tmp_path: Path) -> None:
    _, _, report = converted(case, tmp_path)
    feeds = feeds_of(case)
    session = DeploySession(report.deploy_model, device=device)
    same(outputs(session, feeds), DeviceEvaluator(report.deploy_model, device).run(feeds))


# -- kernels ----------------------------------------------------------------------------------------------------------


def int8(*shape: int) -> np.ndarray:
    return RANDOM.integers(-128, 128, shape).astype(np.int8)


def layer(
    op_type: str, weight: np.ndarray, shape: tuple[int, ...], offset: int, *, bias: bool = True, **attrs: object
) -> tuple[bytes, dict[str, np.ndarray]]:
    """AscendQuant -> layer -> AscendDequant with one scale per channel, and a feed that reaches saturation."""
    group = int(str(attrs.get("group", 1)))
    if op_type == "Conv":
        channels = weight.shape[0]
    elif op_type == "ConvTranspose":
        channels = weight.shape[1] * group
    else:
        channels = weight.shape[0 if attrs.get("transB") else -1]
    constants = {"w": weight, "deq": packed(RANDOM.uniform(1e-5, 1e-3, channels))}
    inputs, added = ["q", "w"], bias and op_type == "MatMul"
    if bias:
        constants["b"] = RANDOM.integers(-(2**20), 2**20, channels).astype(np.int32)
        inputs += [] if added else ["b"]
    nodes = [quant("x", "q", 40.0, offset), helper.make_node(op_type, inputs, ["m"], "layer", **attrs)]
    if added:
        nodes.append(helper.make_node("Add", ["b", "m"], ["a"], "add"))
    nodes.append(dequant("a" if added else "m", "y"))
    feeds = {"x": RANDOM.normal(0, 2, shape).astype(np.float32)}
    return model(nodes, {"x": (F32, [None] * len(shape))}, {"y": F32}, constants), feeds


LAYERS = {
    "conv": ("Conv", (6, 4, 3, 3), (2, 4, 9, 9), {"pads": [1, 0, 2, 1], "strides": [2, 1], "kernel_shape": [3, 3]}),
    "conv same": (
        "Conv",
        (6, 4, 3, 3),
        (2, 4, 9, 9),
        {"auto_pad": "SAME_LOWER", "strides": [2, 2], "kernel_shape": [3, 3]},
    ),
    "conv dilated": ("Conv", (4, 2, 3, 3), (1, 4, 9, 9), {"pads": [2] * 4, "dilations": [2, 2], "group": 2}),
    "conv depthwise": ("Conv", (4, 1, 3, 3), (1, 4, 9, 9), {"pads": [1] * 4, "group": 4}),
    "conv 1-D": ("Conv", (4, 3, 5), (2, 3, 20), {"pads": [2, 1]}),
    "conv 3-D": ("Conv", (4, 3, 2, 2, 2), (1, 3, 5, 5, 5), {"pads": [1] * 6}),
    "conv large": ("Conv", (3, 4096, 1, 1), (1, 4096, 2, 3), {}),
    "conv large grouped": ("Conv", (4, 1024, 2, 2), (1, 2048, 4, 4), {"group": 2, "pads": [1] * 4}),
    "conv huge": ("Conv", (2, 40000, 1, 1), (1, 40000, 2, 3), {}),
    "deconv": ("ConvTranspose", (4, 3, 3, 3), (1, 4, 5, 5), {"strides": [2, 2], "pads": [1, 0, 1, 2]}),
    "deconv grouped": (
        "ConvTranspose",
        (4, 3, 2, 2),
        (1, 4, 5, 5),
        {"group": 2, "output_padding": [1, 1], "strides": [2, 2]},
    ),
    "deconv large": ("ConvTranspose", (512, 2, 3, 3), (1, 512, 3, 3), {}),
    "deconv large grouped": ("ConvTranspose", (1024, 2, 3, 3), (1, 1024, 3, 3), {"group": 2}),
    "gemm": ("Gemm", (7, 5), (3, 7), {}),
    "gemm transposed": ("Gemm", (5, 7), (3, 7), {"transB": 1}),
    "gemm both transposed": ("Gemm", (5, 7), (7, 3), {"transB": 1, "transA": 1}),
    "gemm large": ("Gemm", (4096, 5), (3, 4096), {}),
    "gemm large transposed": ("Gemm", (5, 4096), (3, 4096), {"transB": 1}),
    "gemm large transA": ("Gemm", (4096, 5), (4096, 3), {"transA": 1}),
    "matmul batched": ("MatMul", (7, 5), (2, 3, 4, 7), {}),
    "matmul large": ("MatMul", (4096, 5), (2, 3, 4096), {}),
    "matmul huge": ("MatMul", (40000, 5), (2, 40000), {}),
}
KERNELS = {
    "large": "split",
    "large grouped": "split",
    "huge": "integer",
    "large transposed": "split",
    "large transA": "integer",
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("offset", [0, -128, 127, -5])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_layer_by_every_kernel(name: str, offset: int, bias: bool) -> None:
    op_type, weight, shape, attrs = LAYERS[name]
    content, feeds = layer(op_type, int8(*weight), shape, offset, bias=bias, **attrs)
    Path("m.onnx").write_bytes(content)
    expected = Evaluator("m.onnx").run(feeds)
    session = DeploySession(content)
    same(outputs(session, feeds), expected)
    (fact,) = session.facts
    size = name.partition(" ")[2]
    assert fact.kernel == KERNELS.get(size, "float32")
    assert fact.exact_in_float32 == (fact.kernel == "float32")
    # and as ConvInteger or MatMulInteger
    lowered = lower(read_model("m.onnx"), PRODUCTS["reference"], integer_kernels=True)
    if op_type != "ConvTranspose":
        assert [f.kernel for f in lowered.layers] == ["integer"]
    (y,) = LoweredSession(lowered).run(None, feeds)
    same({"y": y}, expected)


@pytest.mark.parametrize("offset", [0, -128, 55])
def test_the_bound_is_reached_and_never_passed(offset: int) -> None:
    weight = int8(3, 50)
    sums = weight_sums("Conv", weight)
    q = np.array([-128, 127]) - offset
    terms = weight.astype(np.int64)[:, :, None] * q
    highest, lowest = np.maximum(terms, 0).max(2).sum(1), np.minimum(terms, 0).min(2).sum(1)
    bias = np.array([5, -7, 0])
    assert largest_sum(sums, offset, bias) == (np.maximum(highest, -lowest) + np.abs(bias)).max()
    device = (
        np.abs(bias) + np.abs(offset * weight.astype(np.int64).sum(1)) + 128 * np.abs(weight.astype(np.int64)).sum(1)
    )
    assert worst_accumulator(sums, offset, bias) == device.max()
    if offset == 0:
        assert largest_sum(sums, 0, bias) <= device.max()


def test_weight_sums_follow_each_layout() -> None:
    weight = int8(4, 6)
    up, down = np.maximum(weight, 0).astype(int), np.maximum(-weight.astype(int), 0)

    def check(sums: WeightSums, axis: int) -> None:
        assert sums.positive.tolist() == up.sum(axis).tolist() and sums.negative.tolist() == down.sum(axis).tolist()

    check(weight_sums("Gemm", weight), 0)
    check(weight_sums("MatMul", weight), 0)
    check(weight_sums("Gemm", weight, transposed=True), 1)
    check(weight_sums("Conv", weight.reshape(4, 2, 3)), 1)
    check(weight_sums("ConvTranspose", weight.reshape(4, 6, 1)), 0)
    grouped = weight_sums("ConvTranspose", weight.reshape(4, 6, 1), group=2)
    assert grouped.positive.tolist() == [*up[:2].sum(0), *up[2:].sum(0)]


def test_both_operands_may_be_activations() -> None:
    nodes = [quant("x", "a", 20.0, 7), quant("z", "b", 30.0, -3), helper.make_node("MatMul", ["a", "b"], ["m"], "mm")]
    content = model(
        [*nodes, dequant("m", "y")], {"x": (F32, None), "z": (F32, None)}, {"y": F32}, {"deq": packed(0.01)}
    )
    Path("m.onnx").write_bytes(content)
    feeds = {n: RANDOM.normal(0, 2, s).astype(np.float32) for n, s in (("x", (2, 3, 9)), ("z", (2, 9, 4)))}
    session = DeploySession(content)
    assert session.facts[0].kernel == "integer" and session.facts[0].worst_accumulator is None
    same(outputs(session, feeds), Evaluator("m.onnx").run(feeds))


# -- what may stand between -------------------------------------------------------------------------------------------

BETWEEN = {
    "MaxPool": ({"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}, ()),
    "Transpose": ({"perm": [0, 1, 3, 2]}, ()),
    "Identity": ({}, ()),
    "Reshape": ({}, ("shape",)),
    "Slice": ({}, ("starts", "ends")),
    "Concat": ({"axis": 1}, ("q",)),
}


@pytest.mark.parametrize("offset", [0, -128, 20])
@pytest.mark.parametrize("op_type", sorted(BETWEEN))
def test_int8_may_be_moved_before_the_layer(op_type: str, offset: int) -> None:
    attrs, more = BETWEEN[op_type]
    channels = 8 if op_type == "Concat" else 4
    constants = {
        "w": int8(5, channels, 3, 3),
        "deq": packed(RANDOM.uniform(1e-4, 1e-3, 5)),
        "shape": np.array([1, 4, 4, 16]),
        "starts": np.array([0, 0, 1, 1]),
        "ends": np.array([1, 4, 7, 8]),
    }
    used = {k: v for k, v in constants.items() if k in ("w", "deq", *more)}
    nodes = [
        quant("x", "q", 30.0, offset),
        helper.make_node(op_type, ["q", *more], ["p"], "between", **attrs),
        helper.make_node("Conv", ["p", "w"], ["m"], "conv", pads=[1] * 4),
        dequant("m", "y"),
    ]
    content = model(nodes, {"x": (F32, None)}, {"y": F32, "p": I8, "m": I32}, used)
    Path("m.onnx").write_bytes(content)
    feeds = {"x": RANDOM.normal(0, 2, (1, 4, 8, 8)).astype(np.float32)}
    session = DeploySession(content)
    same(outputs(session, feeds), Evaluator("m.onnx").run(feeds))
    assert any("'between'" in w for w in session.warnings) == (offset != 0)


@pytest.mark.parametrize(("fill", "offset"), list(itertools.product([None, 0, -17], [0, -128, 30])))
def test_an_int8_pad_holds_its_own_number(fill: int | None, offset: int) -> None:
    constants = {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "w": int8(2, 3, 1, 1), "deq": packed(0.01)}
    if fill is not None:
        constants["fill"] = np.array(fill, np.int8)
    nodes = [
        quant("x", "q", 30.0, offset),
        helper.make_node("Pad", ["q", "pads", *(["fill"] if fill is not None else [])], ["p"], "pad"),
        helper.make_node("Conv", ["p", "w"], ["m"], "conv"),
        dequant("m", "y"),
    ]
    content = model(nodes, {"x": (F32, None)}, {"p": I8, "y": F32}, constants)
    x = RANDOM.normal(0, 2, (1, 3, 4, 4)).astype(np.float32)
    ours = outputs(DeploySession(content), {"x": x})
    q = PRODUCTS["reference"].quantize(x, 30.0, offset).astype(np.int64)
    padded = np.pad(q, [(0, 0), (0, 0), (1, 3), (2, 0)], constant_values=fill or 0)
    assert np.array_equal(ours["p"], padded)
    acc = np.einsum("nchw,oc->nohw", padded - offset, constants["w"][:, :, 0, 0].astype(np.int64))
    assert np.array_equal(ours["y"], acc.astype(np.float32) * np.float32(0.01))


def test_an_operator_that_is_not_known_gets_the_integers() -> None:
    nodes = [
        quant("x", "q", 4.0, 11),
        helper.make_node("Relu", ["q"], ["r"], "relu"),
        helper.make_node("Cast", ["q"], ["f"], "cast", to=F32),
        helper.make_node("Conv", ["q", "w"], ["m"], "conv"),
        helper.make_node("Abs", ["m"], ["n"], "abs"),
        dequant("m", "y"),
    ]
    outs = {"r": I8, "f": F32, "n": I32, "y": F32, "q": I8}
    content = model(nodes, {"x": (F32, None)}, outs, {"w": int8(2, 3, 1, 1), "deq": packed(0.5)}, opset=14)
    x = RANDOM.normal(0, 9, (1, 3, 4, 4)).astype(np.float32)
    ours = outputs(DeploySession(content), {"x": x})
    q = PRODUCTS["reference"].quantize(x, 4.0, 11).astype(np.int8)
    assert np.array_equal(ours["q"], q) and np.array_equal(ours["r"], np.maximum(q, 0))
    assert np.array_equal(ours["f"], q.astype(np.float32))
    assert np.array_equal(ours["y"], np.where(ours["y"] < 0, -1, 1) * ours["n"] * np.float32(0.5))
    assert ours["n"].dtype == np.int32


def test_average_pool_runs_as_the_vendor_fakes_it() -> None:
    nodes = [
        quant("x", "q", 4.0, 11),
        helper.make_node("AveragePool", ["q"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        dequant("m", "y"),
    ]
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"deq": packed(0.25)})
    x = RANDOM.normal(0, 9, (1, 3, 4, 4)).astype(np.float32)
    session = DeploySession(content)
    ours = outputs(session, {"x": x})["y"]
    q = PRODUCTS["reference"].quantize(x, 4.0, 11) - 11
    # four integers of at most 255 and a division by 4 are exact
    assert np.array_equal(ours, q.reshape(1, 3, 2, 2, 2, 2).mean(axis=(3, 5)) * np.float32(0.25))
    assert session.facts[0].kernel == "average" and "not public" in session.warnings[0]


def test_bodies_of_if_nodes() -> None:
    constants = {"w": int8(2, 3, 1, 1), "deq": packed(0.5)}
    inner = [helper.make_node("Conv", ["q", "w"], ["m"], "conv"), dequant("m", "then")]
    named = {
        "then": inner,
        "else": [antiquant("q", "a", 0.25, 11), helper.make_node("Conv", ["a", "v"], ["else"], "c2")],
    }
    bodies = {
        name: helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, F32, None)])
        for name, nodes in named.items()
    }
    choice = helper.make_node("If", ["c"], ["y"], "if", then_branch=bodies["then"], else_branch=bodies["else"])
    inputs = {"x": (F32, None), "c": (onnx.TensorProto.BOOL, [])}
    constants["v"] = RANDOM.normal(0, 1, (2, 3, 1, 1)).astype(np.float32)
    content = model([quant("x", "q", 4.0, 11), choice], inputs, {"y": F32}, constants)
    session = DeploySession(content, collect=("counts", "layers"))
    x = RANDOM.normal(0, 9, (1, 3, 4, 4)).astype(np.float32)
    q = PRODUCTS["reference"].quantize(x, 4.0, 11) - 11
    (then,) = session.run(None, {"x": x, "c": np.array(True)})
    assert np.array_equal(then, np.einsum("nchw,oc->nohw", q, constants["w"][:, :, 0, 0].astype(np.float32)) * 0.5)
    (other,) = session.run(None, {"x": x, "c": np.array(False)})
    assert np.array_equal(other, run_conv(q * np.float32(0.25), constants["v"]))
    assert [f.name for f in session.facts] == ["conv"]
    assert session.counts() == () and session.run_layers({"x": x, "c": np.array(True)})[1] == ()


def run_conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    content = model([node], {"x": (F32, None)}, {"y": F32}, {"w": weight})
    return run(onnx.load_model_from_string(content), {"x": x})["y"]


@pytest.mark.parametrize("device", sorted(PRODUCTS))
def test_float16_models(device: str) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        quant("r", "q", 40.0, -128),
        helper.make_node("Conv", ["q", "w"], ["m"], "conv"),
        dequant("m", "d", dtype=1),
        helper.make_node("Neg", ["d"], ["y"], "neg"),
    ]
    constants = {"w": int8(2, 3, 1, 1), "deq": packed([0.001, 0.01])}
    content = model(nodes, {"x": (F16, None)}, {"y": F16}, constants)
    x = RANDOM.normal(0, 3, (1, 3, 4, 4)).astype(np.float16)
    (y,) = DeploySession(content, device=device).run(None, {"x": x})
    rule = PRODUCTS[device]
    q = rule.quantize(np.maximum(x, 0), 40.0, -128).astype(np.int64) + 128
    acc = np.einsum("nchw,oc->nohw", q, constants["w"][:, :, 0, 0].astype(np.int64)).astype(np.int32)
    expected = rule.dequantize(acc, np.array([0.001, 0.01], np.float32).reshape(2, 1, 1)).astype(np.float16)
    assert y.dtype == np.float16 and np.array_equal(y, -expected)


# -- the session ------------------------------------------------------------------------------------------------------

TIDY = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"


@pytest.mark.parametrize("device", sorted(PRODUCTS))
def test_every_float16_node_rounds(device: str) -> None:
    """ONNX Runtime alone would add, multiply and add in float32 and round once; numpy rounds after each."""
    constants = {
        "w": int8(6, 5),
        "deq": packed(0.0123),
        "a": RANDOM.normal(size=(9, 5)).astype(np.float16),
        "b": RANDOM.normal(size=5).astype(np.float16),
        "k": np.float16(3.3),
    }
    then = helper.make_graph(
        [
            helper.make_node("Mul", ["s", "k"], ["t"], "then_mul"),
            helper.make_node("Add", ["t", "b"], ["u"], "then_add"),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("u", F16, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["v"], "else")],
        "else",
        [],
        [helper.make_tensor_value_info("v", F16, None)],
    )
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["x1"], "mul"),
        helper.make_node("Add", ["x1", "k"], ["x2"], "add"),
        quant("x2", "q", 20.0, 3),
        helper.make_node("MatMul", ["q", "w"], ["m"], "layer"),
        dequant("m", "d", dtype=1),
        helper.make_node("Add", ["d", "a"], ["s"], "add2"),
        helper.make_node("If", ["c"], ["z"], "if", then_branch=then, else_branch=other),
        helper.make_node("Mul", ["s", "k"], ["y"], "mul2"),
        helper.make_node("Add", ["y", "b"], ["y2"], "add3"),
        helper.make_node("Greater", ["y2", "y"], ["more"], "greater"),
    ]
    inputs = {"x": (F16, [9, 6]), "c": (TensorProto.BOOL, [])}
    types = {"y2": F16, "y": F16, "z": F16, "more": TensorProto.BOOL}
    x = RANDOM.normal(size=(9, 6)).astype(np.float16)
    with DeploySession(model(nodes, inputs, types, constants), device=device) as session:
        y2, y, z, more = session.run(None, {"x": x, "c": np.array(True)})
    k = constants["k"]
    rules = PRODUCTS[device]
    q = rules.quantize(x * k + k, 20.0, 3).astype(np.int64)
    accumulator = (q - 3) @ constants["w"].astype(np.int64)
    scaled = rules.dequantize(accumulator, np.float32(0.0123)).astype(np.float16) + constants["a"]
    assert y.dtype == y2.dtype == z.dtype == np.float16
    assert np.array_equal(y, scaled * k) and np.array_equal(y2, scaled * k + constants["b"])
    assert np.array_equal(z, y2) and np.array_equal(more, y2 > y)


@pytest.mark.parametrize("name", FLOAT16_MODELS)
def test_an_exported_float16_model_is_evaluated_node_by_node(name: str, tmp_path: Path) -> None:
    report = convert_qat_model(MODELS / name / "model.onnx", tmp_path / "m")
    with np.load(MODELS / name / "inputs.npz") as archive:
        feeds = dict(archive)
    for device in PRODUCTS:
        with DeploySession(report.deploy_model, device=device) as session:
            same(outputs(session, feeds), DeviceEvaluator(report.deploy_model, device).run(feeds))
    expected = Evaluator(report.deploy_model).run(feeds)
    same(outputs(DeploySession(report.deploy_model), feeds), expected)
    # so does the fake-quant model, however onnxruntime is set
    same(run(report.fake_quant_model, feeds), expected)
    stock = ort.InferenceSession(report.fake_quant_model, providers=["CPUExecutionProvider"])
    same(dict(zip(expected, stock.run(list(expected), feeds), strict=True)), expected)


def test_interface_of_a_session() -> None:
    feeds = feeds_of("qat/net")
    session = DeploySession(TIDY.read_bytes(), None, ["CPUExecutionProvider"], collect=("counts", "layers"))
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("x", [1, 3, 16, 16], "tensor(float)")]
    assert [(o.name, o.shape, o.type) for o in session.get_outputs()] == [("y", [1, 5], "tensor(float)")]
    assert session.get_providers() == ["CPUExecutionProvider"]
    (first,) = session.run(["y"], feeds)
    (second,), layers = session.run_layers(feeds)
    assert np.array_equal(first, second)
    # onnxruntime takes an empty list for all outputs
    assert np.array_equal(session.run([], feeds)[0], first)
    assert [t.name for t in layers] == [f.name for f in session.facts]
    for tensors in layers:
        assert (tensors.input.dtype, tensors.accumulator.dtype, tensors.output.dtype) == (np.int8, np.int32, np.float32)
    with pytest.raises(SettingError, match="'m' is no output"):
        session.run(["m"], feeds)
    session.close()
    with pytest.raises(SettingError, match="closed"):
        session.run(None, feeds)
    assert session.counts()[0].values == 3 * 3 * 16 * 16


@pytest.mark.parametrize(
    "providers",
    [
        None,
        [],
        "CPUExecutionProvider",
        ["CUDAExecutionProvider", "CPUExecutionProvider"],
        [("CUDAExecutionProvider", {"device_id": 0}), ("CPUExecutionProvider", {"use_arena": "0"})],
        ort.get_available_providers(),
    ],
)
def test_providers_as_users_write_them(providers: list[str] | None) -> None:
    session = DeploySession(TIDY, ort.SessionOptions(), providers)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.pinned["providers"] == "CPUExecutionProvider"


def test_metadata_and_options_of_a_session() -> None:
    proto = onnx.load(TIDY)
    onnx.helper.set_model_props(proto, {"classes": "cat,dog"})
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    with DeploySession(proto.SerializeToString(), options) as session:
        assert session.get_modelmeta().custom_metadata_map == {"classes": "cat,dog"}
        assert session.get_session_options().intra_op_num_threads == 2
        assert session.get_session_options().graph_optimization_level.name == session.pinned["graph_optimization_level"]
        assert list(session.get_provider_options()) == session.get_providers()
        run_options = ort.RunOptions()
        run_options.terminate = True
        with pytest.raises(Exception, match="terminate"):
            session.run(None, feeds_of("qat/net"), run_options)


def test_a_model_without_ascend_operators_is_named() -> None:
    """Most often the QAT or the fake-quant model, given by mistake."""
    (warning,) = DeploySession(TIDY.with_name("m_fake_quant_model.onnx")).warnings
    assert "no Ascend operator" in warning
    assert DeploySession(TIDY).warnings == ()


def test_an_initializer_among_the_inputs_is_a_constant() -> None:
    """As ATC takes it: a certificate of fed weights would certify nothing."""
    proto = onnx.load(TIDY)
    weights = [i for i in proto.graph.initializer if i.data_type == TensorProto.INT8]
    proto.graph.input.extend(onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    session, feeds = DeploySession(proto.SerializeToString()), feeds_of("qat/net")
    assert [i.name for i in session.get_inputs()] == ["x"]
    same(outputs(session, feeds), Evaluator(TIDY).run(feeds))
    with pytest.raises(DataError, match=f"no input '{weights[0].name}'"):
        session.run(None, {**feeds, weights[0].name: numpy_helper.to_array(weights[0])})


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ([np.ones((1, 3, 16, 16), np.float32)], "The feeds are a list"),
        (None, "The feeds are a NoneType"),
        ({}, "'x' is missing"),
        ({"x": None}, "'x' is missing"),
        ({"x": np.ones((1, 3, 16, 16), np.float32), "z": np.ones(1)}, "no input 'z'"),
        ({"x": np.ones((1, 3, 16, 16))}, r"'x' is float64\[1, 3, 16, 16\], the model takes float32\[1, 3, 16, 16\]"),
        ({"x": np.ones((1, 3, 16), np.float32)}, r"float32\[1, 3, 16\], the model takes"),
        ({"x": np.ones((2, 3, 16, 16), np.float32)}, r"float32\[2, 3, 16, 16\], the model takes"),
    ],
)
def test_feeds_that_do_not_fit(feeds: Any, text: str) -> None:
    session = DeploySession(TIDY, collect="layers")
    for call in (lambda: session.run(None, feeds), lambda: session.run_layers(feeds)):
        with pytest.raises(DataError, match=text):
            call()


def test_bytes_never_read_a_file() -> None:
    nodes = [quant("x", "q", 1.0), MM, dequant("m", "y")]
    weight = np.ones((32, 64), np.int8)
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"w": weight, "deq": packed(1.0)})
    onnx.save(onnx.load_model_from_string(content), "m.onnx", save_as_external_data=True, size_threshold=100)
    assert DeploySession("m.onnx").run(None, {"x": np.ones((1, 32), np.float32)})[0].shape == (1, 64)
    with pytest.raises(ModelFileError, match="'w' in a file beside the model"):
        DeploySession(Path("m.onnx").read_bytes())


def test_dumped_layers_are_those_of_the_evaluator(tmp_path: Path) -> None:
    for case in ("qat/net", "conv2d_offset", "matmul_add"):
        path = GOLDENS / case / "m_deploy_model.onnx"
        evaluator = Evaluator(path)
        evaluator.run(feeds_of(case))
        nodes = {n.name: n for n in evaluator.model.graph.node}
        _, layers = DeploySession(path, collect="layers").run_layers(feeds_of(case))
        assert layers
        for tensors in layers:
            behind = nodes[tensors.dequantizer]
            assert np.array_equal(tensors.input, evaluator.values[nodes[tensors.name].input[0]])
            assert np.array_equal(tensors.accumulator, evaluator.values[behind.input[0]])
            assert np.array_equal(tensors.output, evaluator.values[behind.output[0]])


def test_options_are_pinned_for_the_session_alone() -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    feeds = feeds_of("qat/net")
    session = DeploySession(TIDY, options)
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert session.pinned["graph_optimization_level"] == "ORT_DISABLE_ALL"
    same(outputs(session, feeds), Evaluator(TIDY).run(feeds))
    same(outputs(DeploySession(TIDY, AMCT_SO), feeds), Evaluator(TIDY).run(feeds))


def test_threads_share_a_session() -> None:
    """Each gets its own results and errors, and no count is lost."""
    (x,) = feeds_of("qat/net").values()
    feeds = [{"x": x * np.float32(factor)} for factor in range(1, 9)]
    session = DeploySession(TIDY, collect=("counts", "layers"))
    expected = [session.run_layers(f) for f in feeds]
    once = session.counts()
    session.clear_counts()
    right: list[int] = []

    def work(start: int) -> None:
        for index in [(start + i) % 8 for i in range(8)]:
            outputs, layers = session.run_layers(feeds[index])
            with pytest.raises(DataError, match="do not fit"):
                session.run(None, {"x": x[:, :1]})
            assert np.array_equal(outputs[0], expected[index][0][0])
            for ours, theirs in zip(layers, expected[index][1], strict=True):
                assert np.array_equal(ours.accumulator, theirs.accumulator)
        right.append(start)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == list(range(8))
    for ours, single in zip(session.counts(), once, strict=True):
        assert single.values is not None and single.saturated is not None and single.ties is not None
        assert (ours.values, ours.saturated, ours.ties) == (8 * single.values, 8 * single.saturated, 8 * single.ties)
        assert ours.largest_accumulator == single.largest_accumulator


@pytest.mark.parametrize("device", sorted(PRODUCTS))
@pytest.mark.parametrize("offset", [0, 37])
def test_counts(device: str, offset: int) -> None:
    x = np.array([[0.5, 1.5, -2.5, 0.4, 126.5, 127.5, 300, -300, np.inf, -np.inf, 0, 1]], np.float32)
    nodes = [quant("x", "q", 1.0, offset), helper.make_node("MatMul", ["q", "w"], ["m"], "mm"), dequant("m", "y")]
    weight = np.full((12, 2), [[3, -5]], np.int8)
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"w": weight, "deq": packed(1.0)})
    session = DeploySession(content, device=device, collect="counts")
    for _ in range(2):
        session.run(None, {"x": x})
    q = PRODUCTS[device].quantize(x, 1.0, offset) - offset
    (counts,) = session.counts()
    assert (counts.name, counts.values, counts.ties) == ("mm", 24, 2 * 5)
    with np.errstate(invalid="ignore"):
        before = np.rint(x) + offset if device == "reference" else np.rint(x + offset)
    assert counts.saturated == 2 * int(((before > 127) | (before < -128)).sum())
    assert counts.largest_accumulator == abs(5 * q.sum())


def test_static_facts_warn() -> None:
    weight = np.full((140000, 1), 127, np.int8)
    nodes = [quant("x", "q", 1e-5, 0), helper.make_node("MatMul", ["q", "w"], ["m"], "mm"), dequant("m", "y")]
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"w": weight, "deq": packed(1e5)})
    (fact,) = static_facts(content)
    assert fact.worst_accumulator == 128 * 127 * 140000 and fact.kernel == "integer"
    text = " ".join(fact.warnings)
    assert "2^31 - 1" in text and "AscendQuant's scale 1e-05" in text and "100000 exceeds" in text
    assert not fact.deq_scale_in_float16


# -- what is refused --------------------------------------------------------------------------------------------------

WEIGHT = {"w": int8(3, 2), "deq": packed([0.5, 0.25])}
MM = helper.make_node("MatMul", ["q", "w"], ["m"], "mm")
NO_SCALE = helper.make_node("AscendQuant", ["x"], ["q"], "bad", scale=1, offset=0.0)


@pytest.mark.parametrize(
    ("nodes", "constants", "text"),
    [
        ([NO_SCALE, MM, dequant("m", "y")], {}, "'bad' .*'scale' is missing or no FLOAT"),
        ([quant("x", "q", 0.0), MM, dequant("m", "y")], {}, "scale 0.0 is not positive"),
        ([quant("x", "q", 1.0, 200), MM, dequant("m", "y")], {}, "offset 200.0 is no integer"),
        ([quant("x", "q", 1.0, round_mode="Floor"), MM, dequant("m", "y")], {}, "round_mode 'Floor'"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y", dtype=27)], {}, "dtype 27 is not simulated"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y")], {"deq": packed([1, 2, 3])}, "3 scales for 2 output channels"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y")], {"deq": np.uint64(5)}, r"shape \[\]"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y")], {"w": np.ones((3, 2), np.float32)}, "'w' is not int8"),
        ([helper.make_node("AscendRequant", ["x"], ["y"], "re")], {}, "'re': AscendRequant"),
        *[
            (
                [
                    quant("x", "q", 1.0),
                    helper.make_node(kind, ["q", "w"], ["m"], "layer", group=group),
                    dequant("m", "y"),
                ],
                {"w": np.ones((3, 1, 2, 2), np.int8)},
                f"'layer' .* which {group} groups do not divide",
            )
            for kind in ("Conv", "ConvTranspose")
            for group in (2, 0, -1, 2**31)
        ],
    ],
)
def test_refusals_name_the_node(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], text: str) -> None:
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, WEIGHT | constants)
    with pytest.raises(UnsupportedModelError, match=text):
        DeploySession(content)


def test_a_shift_is_warned_about() -> None:
    nodes = [quant("x", "q", 1.0), MM, dequant("m", "y")]
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, WEIGHT | {"deq": packed([0.5, 0.25], shift=3)})
    session = DeploySession(content)
    assert "shift N" in session.warnings[0]
    (y,) = session.run(None, {"x": np.ones((1, 3), np.float32)})
    assert np.array_equal(y, WEIGHT["w"].sum(0, keepdims=True, dtype=np.int32) * np.array([0.5, 0.25], np.float32))


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        DeploySession(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="5 bytes"):
        DeploySession(b"hello")
    with pytest.raises(SettingError, match="'npu' is no device"):
        DeploySession(TIDY, device="npu")
    with pytest.raises(SettingError, match="providers"):
        DeploySession(TIDY, providers=["CUDAExecutionProvider"])
    with pytest.raises(SettingError, match="collect"):
        DeploySession(TIDY, collect="everything")
    session = DeploySession(TIDY)
    for call in (session.counts, lambda: session.run_layers({})):
        with pytest.raises(SettingError, match="collect="):
            call()
    content = model([helper.make_node("NoSuchOperator", ["x"], ["y"], "n")], {"x": (F32, None)}, {"y": F32})
    with pytest.raises(UnsupportedModelError, match="NoSuchOperator"):
        DeploySession(content)
