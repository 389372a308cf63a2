"""Attention of com.microsoft against ONNX Runtime's kernel; BiasSoftmax and GroupNorm against their formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from amct_onnx import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import run

MICROSOFT = "com.microsoft"
BATCH, LENGTH, HEADS, SIZE = 2, 4, 2, 3
WIDTH = HEADS * SIZE
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
FIXED: dict[str, np.ndarray] = {
    "s": np.float32(0.03),
    "z": np.uint8(120),
    "w": RNG.integers(-127, 128, (WIDTH, 3 * WIDTH)).astype(np.int8),
    "sw": np.float32(0.01),
    "zw": np.int8(0),
    "b": np.zeros(3 * WIDTH, np.float32),
    "v": RNG.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8),
    "two": RNG.integers(0, 2, (BATCH, LENGTH)).astype(np.int32) | np.eye(BATCH, LENGTH, dtype=np.int32),
    "three": RNG.integers(0, 2, (BATCH, LENGTH, LENGTH)).astype(np.int32) | np.eye(LENGTH, dtype=np.int32),
    "ends": np.array([3, 2], np.int32),
    "range": np.array([3, 4, 1, 0], np.int32),
    "four": np.ones((BATCH, 1, LENGTH, LENGTH), np.int32),
    "addend": RNG.normal(size=(1, HEADS, LENGTH, LENGTH)).astype(np.float32),
}
MASKS = {
    "no mask": ("", "", {}),
    "of keys": ("two", "", {}),
    "of queries and keys": ("three", "", {}),
    "how many keys": ("ends", "", {}),
    "from where to where": ("range", "", {}),
    "causal": ("", "", {"unidirectional": 1}),
    "causal and of keys, another value": ("two", "", {"unidirectional": 1, "mask_filter_value": -50.0}),
    "addend": ("", "addend", {}),
    "all of them": ("three", "addend", {"unidirectional": 1, "scale": 0.3}),
}

OF_HEADS = {name: case for name, case in MASKS.items() if case[0] != "range"}
"""MultiHeadAttention has no mask from where to where."""


def converted(nodes: list[onnx.NodeProto], folder: Path, shape: Any = X.shape, **more: np.ndarray) -> ConversionReport:
    """Nodes from x to y; the report, with the source beside it."""
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in {**FIXED, **more}.items()]
    ends = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)] for n, s in (("x", shape), ("y", None))]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), folder / "source.onnx")
    return convert_qat_model(folder / "source.onnx", folder / "m")


def node(op_type: str, inputs: str, output: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    names = inputs.split(",")
    while not names[-1]:
        names.pop()
    return helper.make_node(op_type, names, [output], f"{output}/{op_type}", domain=domain, **attributes)


PAIR = [node("QuantizeLinear", "x,s,z", "q"), node("DequantizeLinear", "q,s,z", "d")]
WEIGHT = node("DequantizeLinear", "w,sw,zw", "wd")


def hold(report: ConversionReport, folder: Path, int8: int) -> None:
    """Every layer is listed, so many are int8, and the numbers are the source's: sums of float32 in another order."""
    assert len(report.converted) == int8
    assert not [e for e in report.refused if e.reason == "foreign-operator"]
    wanted = run(str(folder / "source.onnx"), {"x": X}, qdq_source=True)["y"]
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(run(report.fake_quant_model, {"x": X})["y"], wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("mask", "addend", "attributes"), MASKS.values(), ids=MASKS)
def test_attention(mask: str, addend: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    last = node("Attention", f"d,wd,b,{mask},,{addend}", "y", MICROSOFT, num_heads=HEADS, **attributes)
    hold(converted([*PAIR, WEIGHT, last], tmp_path), tmp_path, 1)


@pytest.mark.parametrize(("mask", "attributes"), [("two", {}), ("ends", {}), ("", {"unidirectional": 1})])
def test_quantized_attention(mask: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    inputs = f"q,w,b,s,sw,{mask},z,zw"
    last = node("QAttention", inputs, "y", MICROSOFT, num_heads=HEADS, **attributes)
    hold(converted([PAIR[0], last], tmp_path), tmp_path, 1)


@pytest.mark.parametrize(("mask", "addend", "attributes"), OF_HEADS.values(), ids=OF_HEADS)
def test_multi_head_attention(mask: str, addend: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    """Its query is the result of an int8 layer."""
    layer = [node("DequantizeLinear", "v,sw,zw", "vd"), node("MatMul", "d,vd", "k")]
    last = node("MultiHeadAttention", f"k,d,x,b,{mask},{addend}", "y", MICROSOFT, num_heads=HEADS, **attributes)
    hold(converted([*PAIR, *layer, last], tmp_path), tmp_path, 1)


@pytest.mark.parametrize("inputs", ["d,wd,b,four", "d,wd,b,,past"])
def test_what_has_no_known_definition_is_a_line_in_the_ledger(inputs: str, tmp_path: Path) -> None:
    last = node("Attention", inputs, "y", MICROSOFT, num_heads=HEADS)
    past = np.zeros((2, BATCH, HEADS, 1, SIZE), np.float32)
    (entry,) = converted([*PAIR, WEIGHT, last], tmp_path, past=past).refused
    assert (entry.op_type, entry.reason) == ("Attention", "foreign-operator")
    assert "no standard operators express it with this mask" in entry.detail


@pytest.mark.parametrize("axis", [2, -1, 1])
@pytest.mark.parametrize("bias", [(BATCH, 1, WIDTH), (LENGTH, WIDTH)])
def test_bias_softmax(axis: int, bias: tuple[int, ...], tmp_path: Path) -> None:
    """No kernel of a CPU build runs it: held to its formula, over all axes from ``axis`` on."""
    layer = [node("DequantizeLinear", "v,sw,zw", "vd"), node("MatMul", "d,vd", "k")]
    inner = int(len(bias) == 3)
    fused = node("BiasSoftmax", "k,bias", "y", MICROSOFT, axis=axis, is_inner_broadcast=inner)
    content = RNG.normal(size=bias).astype(np.float32)
    found = run(converted([*PAIR, *layer, fused], tmp_path, bias=content).fake_quant_model, {"x": X})["y"]
    sums = run(
        converted([*PAIR, *layer, node("Add", "k,bias", "y")], tmp_path, bias=content).fake_quant_model, {"x": X}
    )["y"]
    axes = tuple(range(axis % 3, 3))
    powers = np.exp(sums - sums.max(axes, keepdims=True))
    # float32 against numpy's order of the same sums
    np.testing.assert_allclose(found, powers / powers.sum(axes, keepdims=True), rtol=1e-5, atol=1e-7)


def test_bias_softmax_of_unknown_ranks_is_a_line_in_the_ledger(tmp_path: Path) -> None:
    layer = [*PAIR, node("BiasSoftmax", "d,d", "y", MICROSOFT, axis=1, is_inner_broadcast=1)]
    (entry,) = converted(layer, tmp_path, None).refused
    assert (entry.op_type, entry.reason) == ("BiasSoftmax", "foreign-operator")


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("activation", [0, 1])
def test_group_norm(last: int, activation: int, tmp_path: Path) -> None:
    """No kernel of a CPU build runs it: held to its formula."""
    x = np.random.default_rng(2).normal(size=(2, 3, 5, 6) if last else (2, 6, 3, 5)).astype(np.float32)
    gamma, beta = (np.random.default_rng(i).normal(size=6).astype(np.float32) for i in (3, 4))
    attributes = {"channels_last": last, "activation": activation, "groups": 2, "epsilon": 1e-3}
    nodes = [*PAIR, node("GroupNorm", "d,gamma,beta", "y", MICROSOFT, **attributes)]
    report = converted(nodes, tmp_path, x.shape, gamma=gamma, beta=beta)
    found = run(report.fake_quant_model, {"x": x})["y"]
    steps = np.clip(np.rint(x / FIXED["s"]) + 120, 0, 255) - 120
    grid = (steps * FIXED["s"]).astype(np.float64)
    parts = (grid.transpose(0, 3, 1, 2) if last else grid).reshape(2, 2, -1)
    parts = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + 1e-3)
    wanted = parts.reshape(2, 6, 3, 5) * gamma[:, None, None] + beta[:, None, None]
    wanted = wanted / (1 + np.exp(-wanted)) if activation else wanted
    # float32 against float64
    np.testing.assert_allclose(found, wanted.transpose(0, 2, 3, 1) if last else wanted, rtol=0, atol=1e-5)
