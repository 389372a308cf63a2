"""Each QLinear operator against its rewritten form; real models through the whole conversion.

Integer layers are evaluated exactly, the other operators by onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from amct_onnx.common.onnxruntime_session import AMCT_SO
from amct_onnx.normalise.container import normalise_container
from amct_onnx.normalise.qoperator import expand_qoperators
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import Evaluator, run
from support.golden_models import MODELS
from support.qlinear_evaluator import QLinearEvaluator

RNG = np.random.default_rng(7)
MICROSOFT = "com.microsoft"
U8, I8 = np.uint8, np.int8


def one_node(
    op_type: str,
    arrays: Sequence[np.ndarray | None],
    feeds: Sequence[int] = (0,),
    output: Any = U8,
    domain: str = MICROSOFT,
    opset: int = 17,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one node: the arrays named in ``feeds`` are graph inputs, the others initializers, None is omitted."""
    names = ["" if a is None else f"i{k}" for k, a in enumerate(arrays)]
    fed = {names[k]: arrays[k] for k in feeds}

    def info(name: str, dtype: Any, shape: Sequence[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], f"the_{op_type}", domain=domain, **attributes)],
        "g",
        [info(n, a.dtype, a.shape) for n, a in fed.items() if a is not None],
        [info("y", output, None)],
        [numpy_helper.from_array(a, n) for n, a in zip(names, arrays, strict=True) if a is not None and n not in fed],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), {n: a for n, a in fed.items() if a is not None}


def expanded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after the rule."""
    result = normalise_container(ir.from_proto(model))
    expand_qoperators(result)
    return ir.to_proto(result)


def session_run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The first output."""
    return ort.InferenceSession(model.SerializeToString(), AMCT_SO).run(None, feeds)[0]


def source_run(model: onnx.ModelProto | Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The first output of a QOperator model, integer layers exact on every CPU."""
    return next(iter(QLinearEvaluator(model).run(feeds).values()))


def q(shape: Sequence[int], dtype: Any = U8, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Random integers."""
    info = np.iinfo(dtype)
    first, last = (info.min if low is None else low), (info.max if high is None else high)
    return RNG.integers(first, last, shape, endpoint=True).astype(dtype)


def f(*values: float) -> np.ndarray:
    """A float32 scalar, or a vector of several."""
    return np.asarray(values[0] if len(values) == 1 else values, np.float32)


def z(value: int, dtype: Any = U8) -> np.ndarray:
    """A zero point."""
    return np.asarray(value, dtype)


W4 = q((5, 3, 3, 3), I8)
PER_CHANNEL = f(0.02, 0.03, 0.01, 0.025, 0.04)
ZEROS = np.zeros(5, I8)
BIAS = q((5,), np.int32, -500, 500)
X4, X4_LAST = q((2, 3, 7, 6)), q((2, 7, 6, 3))
TRIPLE = (f(0.05), z(120))
CASES: dict[str, tuple[Any, ...]] = {
    "conv": ("QLinearConv", [X4, *TRIPLE, W4, PER_CHANNEL, ZEROS, f(0.07), z(90), BIAS], dict(domain="")),
    "conv, one scale": ("QLinearConv", [X4, *TRIPLE, W4, f(0.02), z(0, I8), f(0.07), z(90), BIAS], dict(domain="")),
    "conv without bias": (
        "QLinearConv",
        [X4, *TRIPLE, W4, PER_CHANNEL, ZEROS, f(0.07), z(90)],
        dict(domain="", pads=[1, 1, 1, 1], strides=[2, 2]),
    ),
    "conv, channels last": (
        "QLinearConv",
        [X4_LAST, *TRIPLE, W4, PER_CHANNEL, ZEROS, f(0.07), z(90), BIAS],
        dict(channels_last=1),
    ),
    "conv of opset 11": (
        "QLinearConv",
        [X4, *TRIPLE, W4, f(0.02), z(0, I8), f(0.07), z(90)],
        dict(domain="", opset=11),
    ),
    "matmul": (
        "QLinearMatMul",
        [q((2, 4, 6)), *TRIPLE, q((6, 5), I8), f(0.02), z(0, I8), f(0.06), z(100)],
        dict(domain=""),
    ),
    "matmul per column": (
        "QLinearMatMul",
        [q((2, 4, 6)), *TRIPLE, q((6, 5), I8), PER_CHANNEL, ZEROS, f(0.06), z(100)],
        dict(domain=""),
    ),
    "matmul of two activations": (
        "QLinearMatMul",
        [q((2, 4, 6)), *TRIPLE, q((2, 6, 5)), f(0.02), z(128), f(0.06), z(100)],
        dict(domain="", feeds=(0, 3)),
    ),
    "gemm": ("QGemm", [q((4, 6)), *TRIPLE, q((6, 5), I8), PER_CHANNEL, ZEROS, BIAS, f(0.06), z(100)], {}),
    "gemm transB, alpha": (
        "QGemm",
        [q((4, 6)), *TRIPLE, q((5, 6), I8), f(0.02), z(0, I8), BIAS, f(0.06), z(100)],
        dict(transB=1, alpha=0.5),
    ),
    "gemm to float": (
        "QGemm",
        [q((4, 6)), *TRIPLE, q((6, 5), I8), f(0.02), z(0, I8), BIAS],
        dict(output=np.float32),
    ),
    "add": (
        "QLinearAdd",
        [q((2, 4)), *TRIPLE, q((2, 4)), f(0.02), z(3), f(0.06), z(100)],
        dict(feeds=(0, 3)),
    ),
    "mul": ("QLinearMul", [q((2, 4)), *TRIPLE, q((4,)), f(0.02), z(3), f(0.06), z(100)], dict(feeds=(0, 3))),
    "sigmoid": ("QLinearSigmoid", [q((2, 40)), *TRIPLE, f(1 / 256), z(0)], {}),
    "leaky relu": (
        "QLinearLeakyRelu",
        [q((2, 40), I8), f(0.05), z(3, I8), f(0.06), z(-9, I8)],
        dict(output=I8, alpha=0.1),
    ),
    "average pool": (
        "QLinearAveragePool",
        [X4, *TRIPLE, f(0.04), z(110)],
        dict(kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 0, 1], count_include_pad=0),
    ),
    "average pool, channels last": (
        "QLinearAveragePool",
        [X4_LAST, *TRIPLE, f(0.04), z(110)],
        dict(kernel_shape=[2, 3], channels_last=1),
    ),
    "global average pool": ("QLinearGlobalAveragePool", [X4, *TRIPLE, f(0.03), z(110)], dict(channels_last=0)),
    "global average pool, channels last": (
        "QLinearGlobalAveragePool",
        [X4_LAST, *TRIPLE, f(0.03), z(110)],
        dict(channels_last=1),
    ),
    "softmax": ("QLinearSoftmax", [q((3, 8)), *TRIPLE, f(1 / 256), z(0)], dict(opset=17, axis=-1)),
    "concat": (
        "QLinearConcat",
        [f(0.06), z(100), q((2, 3)), *TRIPLE, q((2, 4)), f(0.02), z(3)],
        dict(feeds=(2, 5), axis=1),
    ),
    "where": (
        "QLinearWhere",
        [RNG.random((3, 4)) > 0.5, q((3, 4)), *TRIPLE, q((3, 4)), f(0.02), z(3), f(0.06), z(100)],
        dict(feeds=(0, 1, 4)),
    ),
    "max pool, channels last": ("NhwcMaxPool", [X4_LAST], dict(kernel_shape=[2, 2])),
}


@pytest.mark.parametrize("case", CASES)
def test_operator_equals_its_expansion(case: str) -> None:
    op_type, arrays, options = CASES[case]
    options = dict(options)
    node_opset = options.pop("opset", 17)
    extra = {} if op_type != "QLinearSoftmax" else {"axis": options.pop("axis")}
    model, feeds = one_node(op_type, arrays, opset=node_opset, **extra, **options)
    if op_type == "QLinearSoftmax":
        model.graph.node[0].attribute.append(helper.make_attribute("opset", 13))
    after = expanded(model)
    kinds = {n.op_type for n in after.graph.node}
    assert not any(k.startswith("Q") and k != "QuantizeLinear" for k in kinds), kinds
    assert [n.name for n in after.graph.node if n.name == f"the_{op_type}"], "the float operator keeps the name"
    assert [o.name for o in after.graph.output] == ["y"]
    before, now = source_run(model, feeds), session_run(after, feeds)
    assert before.dtype == now.dtype and before.shape == now.shape
    if before.dtype == np.float32:
        np.testing.assert_allclose(now, before, rtol=1e-6, atol=1e-5)  # float32 sums in another order
    else:
        # float32 sums, and onnxruntime's combined float32 factor: apart by one step where a value lies on a tie
        apart = np.abs(before.astype(int) - now.astype(int))
        assert apart.max() <= 1 and np.count_nonzero(apart) <= max(1, 0.02 * apart.size), apart


def test_softmax_of_older_opset_flattens() -> None:
    """onnxruntime's kernel is the witness: axis 1 of rank 3, opset 12 inside a model of opset 17."""
    model, feeds = one_node("QLinearSoftmax", [q((2, 3, 8), U8, 100, 140), *TRIPLE, f(1 / 256), z(0)], axis=1)
    model.graph.node[0].attribute.append(helper.make_attribute("opset", 12))
    before, now = session_run(model, feeds), session_run(expanded(model), feeds)
    assert np.abs(before.astype(int) - now.astype(int)).max() <= 1


def test_rank_that_only_the_rewritten_nodes_tell() -> None:
    """Nothing declares the tensor between two fused operators."""
    model, feeds = one_node("QLinearSoftmax", [q((2, 3, 8), U8, 100, 140), *TRIPLE, f(1 / 256), z(0)], axis=1)
    softmax = model.graph.node[0]
    softmax.attribute.append(helper.make_attribute("opset", 12))
    first = helper.make_node("QLinearLeakyRelu", [*softmax.input[:3], *softmax.input[1:3]], ["between"], alpha=1.0)
    first.domain, softmax.input[0] = "com.microsoft", "between"
    model.graph.node.insert(0, first)
    before, now = session_run(model, feeds), session_run(expanded(model), feeds)
    assert np.abs(before.astype(int) - now.astype(int)).max() <= 1  # of 256 steps: a value on a tie


def test_reduce_mean_takes_its_axes_as_an_input_from_opset_18() -> None:
    """onnxruntime registers the operator without a CPU kernel; numpy is the witness."""
    x = q((2, 3, 4))
    for opset in (13, 18):
        model, feeds = one_node(
            "QLinearReduceMean", [x, *TRIPLE, f(0.03), z(110)], opset=opset, axes=[1, 2], keepdims=1
        )
        real = (x.astype(np.float32) - 120) * np.float32(0.05)
        expected = np.rint(real.mean((1, 2), keepdims=True) / np.float32(0.03)) + 110
        apart = np.abs(session_run(expanded(model), feeds).astype(int) - expected.astype(int))
        assert apart.max() <= 1 and np.count_nonzero(apart) <= 1  # a mean may lie on a tie


def test_omitted_zero_points_are_zero() -> None:
    """onnxruntime fails on them; numpy is the witness."""
    x = q((2, 40), I8)
    model, feeds = one_node("QLinearLeakyRelu", [x, f(0.5), None, f(0.25)], output=I8, alpha=0.5)
    expected = np.clip(np.where(x > 0, x * 2.0, x), -128, 127)
    assert np.array_equal(session_run(expanded(model), feeds), expected.astype(I8))


def test_conv_transpose() -> None:
    """onnxruntime has no QLinearConvTranspose; float64 arithmetic is the witness."""
    x, w = q((1, 2, 4)), q((2, 3, 2), I8)
    scales = f(0.02, 0.03, 0.01)
    bias = q((3,), np.int32, -200, 200)
    arrays = [x, *TRIPLE, w, scales, np.zeros(3, I8), f(0.07), z(90), bias]
    model, feeds = one_node("QLinearConvTranspose", arrays)
    real = np.zeros((1, 3, 5))
    for i in range(4):
        for k in range(2):
            real[0, :, i + k] += (x[0, :, i].astype(float) - 120) @ w[:, :, k].astype(float)
    expected = np.rint((real[0] + bias[:, None]) * (scales[:, None] * 0.05) / 0.07) + 90
    now = session_run(expanded(model), feeds)
    assert np.abs(now[0].astype(int) - np.clip(expected, 0, 255).astype(int)).max() <= 1


def test_bias_is_taken_over_as_integers() -> None:
    model, _ = one_node("QLinearConv", CASES["conv"][1], domain="")
    after = expanded(model)
    constants = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    conv = next(n for n in after.graph.node if n.op_type == "Conv")
    producers = {n.output[0]: n for n in after.graph.node}
    weight, bias = producers[conv.input[1]], producers[conv.input[2]]
    assert [(a.name, a.i) for a in weight.attribute] == [("axis", 0)]
    assert np.array_equal(constants[bias.input[0]], BIAS)
    assert np.array_equal(constants[bias.input[1]], PER_CHANNEL * np.float32(0.05))


def test_bodies_are_rewritten_too() -> None:
    inner, feeds = one_node("QLinearAdd", CASES["add"][1], feeds=(0, 3))
    branch = inner.graph
    inputs = list(branch.input)
    del branch.input[:]
    other = onnx.GraphProto()
    other.CopyFrom(branch)
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["r"], "choose", then_branch=branch, else_branch=other)],
        "outer",
        [helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []), *inputs],
        [helper.make_tensor_value_info("r", onnx.TensorProto.UINT8, None)],
    )
    model = helper.make_model(graph, opset_imports=inner.opset_import, ir_version=8)
    feeds["c"] = np.asarray(True)
    before, now = session_run(model, feeds), session_run(expanded(model), feeds)
    assert np.abs(before.astype(int) - now.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("case", "layers", "refused"),
    [
        ("ort_digitsnet_qop_u8", 7, set()),
        ("torchfx_digitsnet_u8_bnfold_op13__ortextended", 7, set()),
        # attention multiplies two activations
        ("ort_digitstf_qop_u8", 8, {"/mm1/MatMul_quant", "/mm2/MatMul_quant"}),
    ],
)
def test_real_model(case: str, layers: int, refused: set[str], tmp_path: Path) -> None:
    source = MODELS / case / "model.onnx"
    report = convert_qat_model(source, tmp_path / "m")
    assert len(report.converted) == layers
    assert {e.name for e in report.refused} == refused
    data = np.load(MODELS / case / "testset.npz")
    name = onnx.load(source).graph.input[0].name
    (fake,) = run(report.fake_quant_model, {name: data["x"]}).values()
    expected = source_run(source, {name: data["x"]})
    assert int((fake.argmax(1) != expected.argmax(1)).sum()) <= 1
    few = {name: data["x"][:40]}
    (deploy,) = Evaluator(report.deploy_model).run(few).values()
    assert np.array_equal(deploy, next(iter(run(report.fake_quant_model, few).values())))
