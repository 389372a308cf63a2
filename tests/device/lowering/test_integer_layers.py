"""Lowered layers: bit for bit against the independent evaluator, for every kernel."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from amct_onnx import DeploySession
from amct_onnx.device.facts import WeightSums, largest_sum, weight_sums, worst_accumulator
from amct_onnx.device.lowered_session import LoweredSession
from amct_onnx.device.lowering.lower import lower
from amct_onnx.device.profiles import PROFILES
from amct_onnx.files.read import read_model
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from support.deploy_evaluator import Evaluator, run
from support.device_models import (
    F16,
    F32,
    I8,
    I32,
    RANDOM,
    antiquant,
    dequant,
    int8,
    model,
    outputs,
    packed,
    quant,
    same,
)


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
    lowered = lower(read_model("m.onnx"), PROFILES["reference"], integer_kernels=True)
    if op_type != "ConvTranspose":
        assert [f.kernel for f in lowered.layers] == ["integer"]
    (y,) = LoweredSession(lowered).run(None, feeds)
    same({"y": y}, expected)


@pytest.mark.parametrize("offset", [0, -128, 55])
def test_the_bound_is_reached_and_never_passed(offset: int) -> None:
    weight = int8(3, 50)
    sums = weight_sums(Layout(LAYER_KINDS["Conv"]), weight)
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

    check(weight_sums(Layout(LAYER_KINDS["Gemm"]), weight), 0)
    check(weight_sums(Layout(LAYER_KINDS["MatMul"]), weight), 0)
    check(weight_sums(Layout(LAYER_KINDS["Gemm"], transposed=True), weight), 1)
    check(weight_sums(Layout(LAYER_KINDS["Conv"]), weight.reshape(4, 2, 3)), 1)
    check(weight_sums(Layout(LAYER_KINDS["ConvTranspose"]), weight.reshape(4, 6, 1)), 0)
    grouped = weight_sums(Layout(LAYER_KINDS["ConvTranspose"], group=2), weight.reshape(4, 6, 1))
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
    q = PROFILES["reference"].quantize(x, 30.0, offset).astype(np.int64)
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
    q = PROFILES["reference"].quantize(x, 4.0, 11).astype(np.int8)
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
    q = PROFILES["reference"].quantize(x, 4.0, 11) - 11
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
    q = PROFILES["reference"].quantize(x, 4.0, 11) - 11
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


@pytest.mark.parametrize("device", sorted(PROFILES))
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
    rule = PROFILES[device]
    q = rule.quantize(np.maximum(x, 0), 40.0, -128).astype(np.int64) + 128
    acc = np.einsum("nchw,oc->nohw", q, constants["w"][:, :, 0, 0].astype(np.int64)).astype(np.int32)
    expected = rule.dequantize(acc, np.array([0.001, 0.01], np.float32).reshape(2, 1, 1)).astype(np.float16)
    assert y.dtype == np.float16 and np.array_equal(y, -expected)
