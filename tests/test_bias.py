"""The bias verb: afterwards source and fake-quant agree to float rounding, and the rest of the file is as it was."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import OutputError
from amct_onnx.normalise.opset import OLDEST_OPSET
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Site
from amct_onnx.plan.planner import make_plan
from amct_onnx.read import read_model
from amct_onnx.source_bias.report import EXACT, FLOAT, NO_BIAS, ROUNDED, UNREACHABLE, BiasReport
from deploy_evaluator import run
from forced_source import ForcedSource
from golden_models import MODELS
from qdq_builder import QdqBuilder
from random_graphs import Case, cases

ALL_MODELS = sorted(p.name for p in MODELS.iterdir() if (p / "inputs.npz").exists())
QUICK_MODELS = [
    "torchfx_digitsnet_u8_bnqat_op13",  # unfolded QAT: BatchNormalization
    "torchfunc_digitsae_i8sym_ctaxis1_op13",  # ConvTranspose
    "ort_digitstf_qdq_u8_pc",  # MatMul with bias Adds
    "pt2e_digitsnet_xnnpack_dynamo21_noopt",  # opset 21
    "tfmot_digitsnet_op13",  # tf2onnx, grid weights
    "ort_digitsnet_qdq_extdata",
    "brevitas_biasnet_i8_qcdq_op13",  # biases behind Q/DQ
    "torchfq_digitsnet_i8sym_fp16_dynamo20",  # float16
]
SLACK = 2.0**-22
"""Of the bias in steps: in float32 the bias is one rounding away from its multiple, the quotient another two."""


def models(*, slow: bool) -> list[str]:
    names = ALL_MODELS if slow else QUICK_MODELS
    return [n for n in names if (n in QUICK_MODELS) != slow]


def sites_of(path: Path) -> dict[str, Site]:
    return {s.node: s for s in make_plan(normalise(read_model(path))).sites}


def agrees_to_float_rounding(source: Path, folder: Path, feeds: dict[str, np.ndarray]) -> BiasReport:
    """The promise, layer by layer.

    The fake-quant model is made from the original source, so that nothing that the adapted one holds enters it. The
    bound: ``ForcedSource``, less the half step of the bias.
    """
    report = amct_onnx.quantize_bias(source, folder / "adapted.onnx")
    converted = amct_onnx.convert_qat_model(source, folder / "original")
    forced = ForcedSource(folder / "adapted.onnx", Path(converted.fake_quant_model), rounded_biases=True)
    assert forced.compare(feeds)["layers"] == len(converted.converted)
    before, after = sites_of(source), sites_of(folder / "adapted.onnx")
    assert before.keys() == after.keys()
    for name, site in before.items():
        if site.bias is None:
            assert after[name].bias is None
            continue
        assert after[name].bias is not None and after[name].bias_error is not None
        np.testing.assert_array_equal(after[name].bias, site.bias)
    return report


def check_model(name: str, folder: Path) -> None:
    source = MODELS / name / "model.onnx"
    data = np.load(MODELS / name / "inputs.npz")
    constants = {t.name for t in onnx.load(str(source), load_external_data=False).graph.initializer}
    graph = onnx.load(str(source), load_external_data=False).graph
    feeds = {i.name: data[i.name] for i in graph.input if i.name not in constants}
    report = agrees_to_float_rounding(source, folder, feeds)
    assert not report.unreachable
    for entry, site in ((e, sites_of(source).get(e.name)) for e in report.layers):
        assert (entry.action == FLOAT) == (site is None)
        if site is not None and site.bias is not None and site.float_type == ir.DataType.FLOAT:
            assert entry.after is not None and entry.after.max_steps <= SLACK * max(1, np.abs(site.bias).max())
    only_biases_changed(source, folder / "adapted.onnx", {e.tensor for e in report.layers if e.tensor})


@pytest.mark.parametrize("name", models(slow=False))
def test_real_models(name: str, tmp_path: Path) -> None:
    check_model(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", models(slow=True))
def test_all_other_real_models(name: str, tmp_path: Path) -> None:
    check_model(name, tmp_path)


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and constants, bodies included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            for body in [attribute.g, *attribute.graphs]:
                yield from tensors_of(body)


def only_biases_changed(source: Path, adapted: Path, changed: set[str]) -> None:
    """Equal message for message, but for the named tensors, nodes that made only these, and the way of storing."""
    old, new = onnx.load(str(source)), onnx.load(str(adapted))
    for model in (old, new):
        for tensor in tensors_of(model.graph):
            if tensor.data_type != TensorProto.STRING:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
            tensor.ClearField("doc_string")
    added = {t.name for t in new.graph.initializer} - {t.name for t in old.graph.initializer}
    assert added <= changed
    kept = [n for n in old.graph.node if n.output[0] in {o for m in new.graph.node for o in m.output}]
    assert [(n.name, n.op_type, n.domain, list(n.output)) for n in new.graph.node] == [
        (n.name, n.op_type, n.domain, list(n.output)) for n in kept
    ]
    for before, after in zip(kept, new.graph.node, strict=True):
        for index, (one, two) in enumerate(zip(before.input, after.input, strict=True)):
            assert one == two or two in changed, (before.name, index)
        if after.output[0] not in changed:
            assert list(before.attribute) == list(after.attribute)
    still = {t.name: t for t in new.graph.initializer}
    assert [n for n in (t.name for t in old.graph.initializer) if n in still] == [n for n in still if n not in added]
    for tensor in old.graph.initializer:
        assert tensor.name not in still or tensor.name in changed or tensor == still[tensor.name]
    for model in (old, new):
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    assert old == new


# -- small models, each with one peculiarity ---------------------------------------------------------------------------

RNG = np.random.default_rng(11)
BIAS = RNG.normal(size=4).astype(np.float32)


def layer(b: QdqBuilder, x: str, *, scale_w: float, bias: str | None, kind: str = "Conv", name: str = "layer") -> str:
    """x -> int8 layer with weight [4, 3, 1, 1] or [3, 4]."""
    shape = {"Conv": (4, 3, 1, 1), "ConvTranspose": (3, 4, 1, 1)}.get(kind, (3, 4))
    integers = b.constant(RNG.integers(-99, 99, shape).astype(np.int8))
    factors = [b.constant(np.float32(scale_w)), b.constant(np.int8(0))]
    weight = b.node("DequantizeLinear", [integers, *factors])
    return b.node(kind, [x, weight, *([bias] if bias else [])], name=name)


def start(kind: str = "Conv", opset: int = 13) -> tuple[QdqBuilder, str]:
    b = QdqBuilder(opset)
    x = b.input("x", [2, 3, 5, 5] if kind.startswith("Conv") else [2, 3])
    return b, b.activation(x, 0.031, np.int8(3))


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    constants = {t.name for t in model.graph.initializer}
    return {
        i.name: RNG.normal(size=[d.dim_value for d in i.type.tensor_type.shape.dim]).astype(np.float32)
        for i in model.graph.input
        if i.name not in constants
    }


def adapt(b: QdqBuilder, y: str, folder: Path) -> Path:
    """Save the model, round its biases, check the promise; returns the adapted model."""
    b.output(y)
    model = b.model()
    onnx.save(model, str(folder / "source.onnx"))
    agrees_to_float_rounding(folder / "source.onnx", folder, feeds_of(model))
    run(folder / "adapted.onnx", feeds_of(model), qdq_source=True)
    again = amct_onnx.quantize_bias(folder / "adapted.onnx", folder / "again.onnx")
    assert not [e for e in again.layers if e.action == ROUNDED]
    assert (folder / "again.onnx").read_bytes() == (folder / "adapted.onnx").read_bytes()
    return folder / "adapted.onnx"


def constants_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}


def multiple(bias: np.ndarray, *scales: float) -> np.ndarray:
    """The documentation's formula in float32."""
    s = np.prod(np.asarray(scales, np.float32), dtype=np.float32)
    return np.rint(bias / s).astype(np.float32) * s


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


def test_external_data_stays_external_and_complete(tmp_path: Path) -> None:
    source = MODELS / "ort_digitsnet_qdq_extdata" / "model.onnx"
    amct_onnx.quantize_bias(source, tmp_path / "adapted.onnx")

    def external(path: Path) -> set[str]:
        graph = onnx.load(str(path), load_external_data=False).graph
        return {t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}

    assert external(source) - external(tmp_path / "adapted.onnx") <= {
        e.tensor for e in amct_onnx.quantize_bias(source, tmp_path / "again.onnx").layers
    }
    assert external(tmp_path / "adapted.onnx")
    assert (tmp_path / "adapted.onnx.data").exists()


@pytest.mark.parametrize("link", [False, True])
def test_output_on_the_input_is_refused(link: bool, tmp_path: Path) -> None:
    b, x = start()
    b.output(layer(b, x, scale_w=0.02, bias=b.constant(BIAS)))
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    content = (tmp_path / "source.onnx").read_bytes()
    target = tmp_path / "source.onnx"
    if link:
        target = tmp_path / "other.onnx"
        target.hardlink_to(tmp_path / "source.onnx")
    with pytest.raises(OutputError, match="is the input model"):
        amct_onnx.quantize_bias(tmp_path / "source.onnx", target)
    assert (tmp_path / "source.onnx").read_bytes() == content


def test_float16_says_what_its_type_cannot_hold(tmp_path: Path) -> None:
    report = amct_onnx.quantize_bias(MODELS / "torchfq_digitsnet_i8sym_fp16_dynamo20" / "model.onnx", tmp_path / "a")
    rounded = [e for e in report.layers if e.action == ROUNDED]
    assert rounded
    sites = sites_of(tmp_path / "a")
    for entry in rounded:
        error = sites[entry.name].bias_error
        assert entry.after is not None and error is not None
        np.testing.assert_allclose(entry.after.max_steps, np.abs(error / sites[entry.name].deq_scale).max(), rtol=1e-6)


PEAK = """
import sys, amct_onnx
report = amct_onnx.quantize_bias(sys.argv[1], sys.argv[2])
assert [e.action for e in report.layers] == ["rounded"] * 4, report
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
BLOCKS = 500_000
"""KiB: an interpreter with its libraries (about 100 MB), blocks of weights, some arrays per output channel."""


@pytest.mark.slow
def test_more_than_two_gigabytes_in_bounded_memory(tmp_path: Path) -> None:
    """The weights of four layers, each of 600 MB, are a hole in a sparse file; the rest is real."""
    b = QdqBuilder(13)
    sizes = [12_000, 50_000, 12_000, 50_000, 12_000]
    x, total, biases = b.input("x", [1, sizes[0]]), 0, {}
    for index, (rows, columns) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.INT8, dims=[rows, columns])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", total), ("length", rows * columns)):
            weight.external_data.add(key=key, value=str(value))
        total += rows * columns
        b.initializers.append(weight)
        factors = [b.constant(np.full(columns, 0.02, np.float32)), b.constant(np.zeros(columns, np.int8))]
        float_weight = b.node("DequantizeLinear", [f"w{index}", *factors], axis=1)
        y = b.node("MatMul", [b.activation(x, 0.031, np.int8(3)), float_weight], name=f"mm{index}")
        biases[f"bias{index}"] = RNG.normal(size=columns).astype(np.float32)
        x = b.node("Add", [y, b.constant(biases[f"bias{index}"], f"bias{index}")])
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(total)
    b.output(x)
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    target = tmp_path / "out" / "adapted.onnx"
    command = [sys.executable, "-c", PEAK, str(tmp_path / "source.onnx"), str(target)]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < BLOCKS
    padding = 4 * 2**16  # tensors begin on a page
    assert 2**31 < total <= (target.parent / "adapted.onnx.data").stat().st_size <= total + padding
    held = {t.name: t for t in onnx.load(str(target), load_external_data=False).graph.initializer}
    for name, bias in biases.items():
        np.testing.assert_array_equal(numpy_helper.to_array(held[name]), multiple(bias, 0.031, 0.02))


def test_command_prints_each_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(MODELS / "torchfx_mlp3d_u8_op13" / "model.onnx")
    assert main(["bias", "--model", source, "--output", str(tmp_path / "adapted.onnx")]) == 0
    text = capsys.readouterr().out
    assert "Before (LSB)" in text and "candidate layers have rounded biases now" in text


# -- random graphs -----------------------------------------------------------------------------------------------------


def check_case(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(case.model, str(folder / "source.onnx"))
        report = amct_onnx.quantize_bias(folder / "source.onnx", folder / "adapted.onnx")
        assert sorted(e.name for e in report.layers) == sorted(case.layers)
        before, after = sites_of(folder / "source.onnx"), sites_of(folder / "adapted.onnx")
        assert before.keys() == after.keys()
        unreachable = {e.name for e in report.unreachable}
        # onnx's converter makes other nodes of all of them
        assert not unreachable or case.model.opset_import[0].version < OLDEST_OPSET
        for name, site in before.items():
            if name in unreachable:
                continue
            left = after[name].bias_error
            assert (site.bias is None) == (left is None)
            if site.bias is not None and left is not None:
                np.testing.assert_array_equal(after[name].bias, site.bias)
                largest = np.abs(site.bias).max(initial=1)
                assert np.all(np.abs(left) <= SLACK * largest * site.deq_scale), name
        only_biases_changed(
            folder / "source.onnx", folder / "adapted.onnx", {e.tensor for e in report.layers if e.tensor}
        )
        run(folder / "adapted.onnx", case.feeds, qdq_source=True)


QUICK = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@QUICK
@given(cases(exact=False))
def test_random_graphs(case: Case) -> None:
    check_case(case)


@pytest.mark.slow
@settings(QUICK, max_examples=1500, derandomize=False)
@given(cases(exact=False))
def test_many_random_graphs(case: Case) -> None:
    check_case(case)
