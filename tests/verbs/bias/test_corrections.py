"""Wherever a model keeps a bias, it is rounded there: one small model for each place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.verbs.bias.report import EXACT, FLOAT, NO_BIAS, ROUNDED, UNREACHABLE
from support.bias_cases import BIAS, RNG, adapt, constants_of, feeds_of, layer, multiple, start
from support.deploy_evaluator import run


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
def test_initializer_is_edited_in_place_by_the_documented_formula(kind: str, tmp_path: Path) -> None:
    b, x = start(kind)
    path = adapt(b, layer(b, x, scale_w=0.02, bias=b.constant(BIAS, "bias"), kind=kind), tmp_path)
    np.testing.assert_array_equal(constants_of(path)["bias"], multiple(BIAS, 0.031, 0.02))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(4,), (1, 4), ()])
def test_bias_add_on_either_side(first: bool, shape: tuple[int, ...], tmp_path: Path) -> None:
    b, x = start("MatMul")
    value = BIAS[: max(1, int(np.prod(shape, dtype=int)))].reshape(shape)
    bias = b.constant(value, "bias")
    y = layer(b, x, scale_w=0.02, bias=None, kind="MatMul")
    path = adapt(b, b.node("Add", [bias, y] if first else [y, bias]), tmp_path)
    np.testing.assert_array_equal(constants_of(path)["bias"], multiple(value, 0.031, 0.02))


def test_one_number_for_channels_that_differ_afterwards(tmp_path: Path) -> None:
    b, x = start()
    integers = b.constant(RNG.integers(-99, 99, (4, 3, 1, 1)).astype(np.int8))
    scales = np.array([0.01, 0.02, 0.03, 0.05], np.float32)
    weight = b.node("DequantizeLinear", [integers, b.constant(scales), b.constant(np.zeros(4, np.int8))], axis=0)
    y = b.node("Conv", [x, weight], name="layer")
    path = adapt(b, b.node("Add", [y, b.constant(np.float32(0.3), "bias")]), tmp_path)
    made = constants_of(path)["bias_rounded"]
    assert made.shape == (4, 1, 1) and "bias" not in constants_of(path)
    np.testing.assert_array_equal(made[:, 0, 0], [multiple(np.float32(0.3), 0.031, s) for s in scales])


def test_bias_shared_by_layers_with_different_scales(tmp_path: Path) -> None:
    b, x = start()
    bias = b.constant(BIAS, "bias")
    ys = [layer(b, x, scale_w=s, bias=bias, name=f"l{s}") for s in (0.02, 0.07)]
    path = adapt(b, b.node("Add", ys), tmp_path)
    assert "bias" not in constants_of(path)
    for name, scale in (("bias_rounded", 0.02), ("bias_rounded_1", 0.07)):
        np.testing.assert_array_equal(constants_of(path)[name], multiple(BIAS, 0.031, scale))


def test_bias_shared_with_equal_scales_stays_shared(tmp_path: Path) -> None:
    b, x = start()
    bias = b.constant(BIAS, "bias")
    ys = [layer(b, x, scale_w=0.02, bias=bias, name=f"l{i}") for i in range(2)]
    path = adapt(b, b.node("Add", ys), tmp_path)
    np.testing.assert_array_equal(constants_of(path)["bias"], multiple(BIAS, 0.031, 0.02))


def test_other_readers_keep_the_bias(tmp_path: Path) -> None:
    b, x = start("Gemm")
    bias = b.constant(BIAS, "bias")
    y = b.node("Mul", [layer(b, x, scale_w=0.02, bias=bias, kind="Gemm"), bias])
    b.output(b.node("Identity", [bias], output="also"))
    path = adapt(b, y, tmp_path)
    np.testing.assert_array_equal(constants_of(path)["bias"], BIAS)
    np.testing.assert_array_equal(constants_of(path)["bias_rounded"], multiple(BIAS, 0.031, 0.02))


def test_constant_node(tmp_path: Path) -> None:
    b, x = start()
    path = adapt(b, layer(b, x, scale_w=0.02, bias=b.constant(BIAS, "bias", as_node=True)), tmp_path)
    (node,) = [n for n in onnx.load(str(path)).graph.node if n.op_type == "Constant"]
    np.testing.assert_array_equal(numpy_helper.to_array(node.attribute[0].t), multiple(BIAS, 0.031, 0.02))


def test_tensor_of_a_constant_node_may_have_any_name(tmp_path: Path) -> None:
    """That of a large initializer, too, whose content is streamed."""
    b, x = start()
    bias = b.constant(BIAS, "bias", as_node=True)
    y = layer(b, x, scale_w=0.02, bias=bias)
    large = RNG.normal(size=(40_000,)).astype(np.float32)
    b.output(b.node("Identity", [b.constant(large, "large")], output="also"))
    b.output(y)
    model = b.model()
    (node,) = [n for n in model.graph.node if n.op_type == "Constant"]
    node.attribute[0].t.name = "large"
    onnx.save(model, str(tmp_path / "source.onnx"))
    amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx")
    np.testing.assert_array_equal(constants_of(tmp_path / "adapted.onnx")["large"], large)


def test_computed_bias_is_replaced_and_what_computed_it_is_gone(tmp_path: Path) -> None:
    b, x = start()
    integers, step = b.constant(np.array([-7, 0, 3, 99], np.int8)), b.constant(np.float32(0.0123))
    bias = b.node("DequantizeLinear", [integers, step, b.constant(np.int8(0))], output="bias")
    path = adapt(b, layer(b, x, scale_w=0.02, bias=bias), tmp_path)
    assert "bias" not in {o for n in onnx.load(str(path)).graph.node for o in n.output}
    assert integers not in constants_of(path)
    expected = multiple(np.array([-7, 0, 3, 99], np.float32) * np.float32(0.0123), 0.031, 0.02)
    np.testing.assert_array_equal(constants_of(path)["bias_rounded"], expected)


def test_int32_bias_with_the_products_scale_is_exact(tmp_path: Path) -> None:
    b, x = start()
    step = b.constant(np.float32(0.031) * np.float32(0.02))
    bias = b.node("DequantizeLinear", [b.constant(np.array([5, -3, 2, 1], np.int32)), step])
    b.output(layer(b, x, scale_w=0.02, bias=bias))
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    (entry,) = amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx").layers
    assert entry.action == EXACT and entry.before is not None and entry.before.max_steps == 0
    assert onnx.load(str(tmp_path / "adapted.onnx")) == onnx.load(str(tmp_path / "source.onnx"))


def test_bias_and_add_together(tmp_path: Path) -> None:
    """The sum is what is rounded; the last addend takes up the difference."""
    b, x = start()
    y = layer(b, x, scale_w=0.02, bias=b.constant(BIAS, "own"))
    path = adapt(b, b.node("Add", [y, b.constant(BIAS[::-1].reshape(4, 1, 1), "later")]), tmp_path)
    held = constants_of(path)
    np.testing.assert_array_equal(held["own"], BIAS)
    total = held["own"].astype(np.float64) + held["later"].reshape(-1)
    # each of the two is a float32: 2^-24 of each
    np.testing.assert_allclose(total, multiple(BIAS + BIAS[::-1], 0.031, 0.02), rtol=0, atol=2.0**-22)


@pytest.mark.parametrize("own", [True, False])
def test_batch_normalization_changes_its_b(own: bool, tmp_path: Path) -> None:
    b, x = start()
    y = layer(b, x, scale_w=0.02, bias=b.constant(BIAS, "own") if own else None)
    norm = [np.array([1.5, -0.5, 0, 2], np.float32), BIAS[::-1], BIAS * 2, np.array([1, 2, 3, 0.5], np.float32)]
    names = [b.constant(a, n) for a, n in zip(norm, "gbmv", strict=True)]
    path = adapt(b, b.node("BatchNormalization", [y, *names]), tmp_path)
    held = constants_of(path)
    for name, array in zip("gmv", (norm[0], norm[2], norm[3]), strict=True):
        np.testing.assert_array_equal(held[name], array)
    assert not np.array_equal(held["b"], norm[1])


def test_gemm_with_beta(tmp_path: Path) -> None:
    b, x = start("Gemm")
    y = layer(b, x, scale_w=0.02, bias=b.constant(BIAS, "bias"), kind="Gemm")
    b.nodes[-1].attribute.append(helper.make_attribute("beta", 0.7))
    b.output(y)
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx")
    # the product is rounded once before and once behind
    expected = multiple(BIAS * np.float32(0.7), 0.031, 0.02)
    held = constants_of(tmp_path / "adapted.onnx")["bias"]
    np.testing.assert_allclose(held * np.float32(0.7), expected, rtol=2.0**-22)


def test_layer_in_a_body(tmp_path: Path) -> None:
    """The body reads an initializer of the outer graph, which a layer outside with another scale reads as well."""
    b, x = start()
    bias = b.constant(BIAS, "bias")
    outside = layer(b, x, scale_w=0.07, bias=bias, name="outside")
    flag = b.constant(np.array(True), "flag")
    kept, b.nodes = b.nodes, []
    then = layer(b, x, scale_w=0.02, bias=bias, name="inside")
    branch = helper.make_graph(b.nodes, "then", [], [helper.make_tensor_value_info(then, TensorProto.FLOAT, None)])
    other = helper.make_graph(
        [helper.make_node("Identity", [outside], ["o"])],
        "else",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    b.nodes = kept
    chosen = b.node("If", [flag], then_branch=branch, else_branch=other)
    b.output(b.node("Add", [outside, chosen], output="y"))
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    report = amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx")
    assert [e.action for e in report.layers] == [ROUNDED, ROUNDED]
    held = constants_of(tmp_path / "adapted.onnx")
    for entry in report.layers:
        scale = {"outside": 0.07, "inside": 0.02}[entry.name]
        np.testing.assert_array_equal(held[entry.tensor], multiple(BIAS, 0.031, scale))
    again = amct_onnx.quantize_bias(tmp_path / "adapted.onnx", tmp_path / "again.onnx")
    assert {e.action for e in again.layers} == {EXACT}


def test_layer_in_a_function_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b, x = start()
    kept, b.nodes = b.nodes, []
    constants = {t.name for t in b.initializers}
    y = layer(b, "fx", scale_w=0.02, bias="fb")
    outer = [t.name for t in b.initializers if t.name not in constants]
    function = helper.make_function("local", "F", ["fx", "fb", *outer], [y], b.nodes, [helper.make_opsetid("", 13)])
    b.nodes = kept
    b.output(b.node("F", [x, b.constant(BIAS, "bias"), *outer], domain="local"))
    model = b.model(extra_opsets=[("local", 1)])
    model.functions.append(function)
    onnx.save(model, str(tmp_path / "source.onnx"))
    arguments = ["bias", "--model", str(tmp_path / "source.onnx"), "--output", str(tmp_path / "adapted.onnx"), "--json"]
    assert main(arguments) == 1
    (entry,) = json.loads(capsys.readouterr().out)["layers"]
    assert entry["action"] == UNREACHABLE and "onnx.inliner" in entry["detail"]
    assert onnx.load(str(tmp_path / "adapted.onnx")) == model


def test_bias_that_is_no_constant_keeps_the_layer_float(tmp_path: Path) -> None:
    b, x = start()
    b.inputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [4]))
    b.output(layer(b, x, scale_w=0.02, bias="bias"))
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    (entry,) = amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx").layers
    assert entry.action == FLOAT and "bias-not-constant" in entry.detail


def test_layer_without_bias(tmp_path: Path) -> None:
    b, x = start()
    b.output(layer(b, x, scale_w=0.02, bias=None))
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    (entry,) = amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx").layers
    assert entry.action == NO_BIAS


def test_initializers_that_are_inputs_too(tmp_path: Path) -> None:
    """ir_version 3: also a new initializer has to be an input."""
    b, x = start()
    bias = b.constant(BIAS, "bias")
    b.output(b.node("Add", [layer(b, x, scale_w=s, bias=bias, name=f"l{s}") for s in (0.02, 0.07)]))
    model = b.model()
    model.ir_version = 3
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    onnx.save(model, str(tmp_path / "source.onnx"))
    amct_onnx.quantize_bias(tmp_path / "source.onnx", tmp_path / "adapted.onnx")
    adapted = onnx.load(str(tmp_path / "adapted.onnx"))
    assert {t.name for t in adapted.graph.initializer} <= {i.name for i in adapted.graph.input}
    np.testing.assert_array_equal(constants_of(tmp_path / "adapted.onnx")["bias_rounded"], multiple(BIAS, 0.031, 0.02))
    (y,) = run(tmp_path / "adapted.onnx", feeds_of(model), qdq_source=True).values()
    assert y.shape == (2, 4, 5, 5)
