"""compare names a fault put into a converted model: the layer, the channel, the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import amct_onnx
from amct_onnx.verbs.compare.explain import default_settings
from amct_onnx.verbs.compare.report import Divergence
from support import comparison_cases as cases
from support.comparison_cases import DIGITS, Case, converted
from support.older_libraries import needs_default_settings
from support.small_models import qdq_model


def _fault(case: Case, *devices: str) -> dict[str, tuple[str, str]]:
    found = case.compare(devices=devices or ("reference", "a2"))
    return {d.model: (d.layer, d.cause) for d in found.divergences} if found.verdict.level == "diverges" else {}


@pytest.mark.parametrize("name", [DIGITS, pytest.param("torchfx_digitstf_u8_op17", marks=pytest.mark.slow)])
@pytest.mark.parametrize("position", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_wrong_scale_in_the_deploy_model_is_named(name: str, position: int, tmp_path: Path) -> None:
    case = converted(name, tmp_path)
    layer = case.layers[position]
    cases.scale_dequantizer(case.deploy, layer, 1.1)
    found = _fault(case)
    assert found["deploy@reference"] == found["deploy@a2"] == (layer, "scale-fault")
    assert "fake-quant" not in found or found["fake-quant"][1] != "scale-fault"


def test_wrong_scale_in_the_fake_quant_model_is_named(digits: Case) -> None:
    layer = digits.layers[2]
    cases.scale_fake_dequantizer(digits.fake_quant, layer, 0.9)
    assert _fault(digits)["fake-quant"] == (layer, "scale-fault")


@pytest.mark.parametrize(
    ("name", "position"), [(DIGITS, 0), pytest.param("ort_digitsnet_qdq_u8_pc", 3, marks=pytest.mark.slow)]
)
def test_dropped_bias_is_named(name: str, position: int, tmp_path: Path) -> None:
    case = converted(name, tmp_path)
    layer = case.layers[position]
    cases.drop_bias(case.deploy, layer)
    found = _fault(case, "a2")
    assert found["deploy@a2"] == (layer, "bias-fault")


def _named(case: Case, devices: tuple[str, ...] = ("a2",)) -> Divergence:
    """What is said of the deploy model, which must be a fault."""
    found = case.compare(devices=devices)
    assert found.verdict.level == "diverges", found.verdict
    return next(d for d in found.divergences if d.model == f"deploy@{devices[0]}")


def test_one_wrong_channel_is_named_with_its_factor(digits: Case) -> None:
    layer = digits.layers[2]
    cases.scale_channel(digits.deploy, layer, 5, 1.5)
    found = _named(digits)
    assert (found.layer, found.cause) == (layer, "scale-fault")
    assert "in channel 5 (1 of 32 channels is wrong)" in found.text
    assert "1.5 times the source's in channel 5" in found.text and "AscendDequant" in found.text


@pytest.mark.parametrize(("by", "cause"), [(500, "bias-fault"), pytest.param(3, "bias-fault", marks=pytest.mark.slow)])
def test_one_wrong_bias_is_named_with_its_channel(digits: Case, by: int, cause: str) -> None:
    layer = digits.layers[1]
    cases.change_constant(digits.deploy, layer, 2, 7, by)
    found = _named(digits)
    assert (found.layer, found.cause) == (layer, cause)
    assert "in channel 7 (1 of 16 channels is wrong)" in found.text


def test_sum_that_wraps_is_named(tmp_path: Path) -> None:
    """The sum of each channel with a bias near 2^31 wraps; it was taken for a wrong bias."""
    model = onnx.load(qdq_model(tmp_path))
    constants = {t.name: t for t in model.graph.initializer}
    step = numpy_helper.to_array(constants["s"]) * 0.5 * numpy_helper.to_array(constants["sw"])
    bias = ((2**31 - 2000) * step.astype(np.float64) / 2).astype(np.float32)  # beta is 2
    constants["b"].CopyFrom(numpy_helper.from_array(bias[None], "b"))
    constants["w"].CopyFrom(numpy_helper.from_array(np.full((3, 5), 100, np.int8), "w"))
    onnx.save(model, tmp_path / "big.onnx")
    amct_onnx.convert_qat_model(tmp_path / "big.onnx", tmp_path / "m")
    for value, level in ((0.1, False), (12.0, True)):
        np.savez(tmp_path / "data.npz", x=np.full((4, 3), value, np.float32))
        found = amct_onnx.compare(tmp_path / "big.onnx", tmp_path / "m", tmp_path / "data.npz", devices=["reference"])
        named = [d for d in found.divergences if d.model == "deploy@reference" and d.is_fault]
        assert [(d.layer, d.cause) for d in named] == [("gemm", "accumulator-overflow")] * level
        assert not level or "should reach 2.148e+09, beyond 2^31 - 1" in named[0].text


@pytest.mark.parametrize("by", [-1, pytest.param(20, marks=pytest.mark.slow)])
def test_one_wrong_weight_is_named_with_its_channel(digits: Case, by: int) -> None:
    layer = digits.layers[2]
    cases.change_constant(digits.deploy, layer, 1, 10 * 16 + 4, by)
    found = _named(digits)
    assert found.layer == layer and "in channel 10 (1 of 32 channels is wrong)" in found.text
    assert found.cause in ("weight-fault", "scale-fault")


def test_swapped_weights_are_named_at_the_first_of_both_layers(digits: Case) -> None:
    one, other = digits.layers[3:5]
    cases.swap_weights(digits.deploy, one, other)
    found = _named(digits)
    assert (found.layer, found.cause) == (one, "weight-fault")


def test_wrong_quantizer_is_named_with_what_the_ledger_says(digits: Case) -> None:
    layer = digits.layers[2]
    quantizer = cases.change_quantizer(digits.deploy, layer, factor=1.1)
    found = _named(digits)
    assert (found.layer, found.cause) == (layer, "scale-fault")
    assert f"AscendQuant '{quantizer}' has scale" in found.text and "the ledger says" in found.text


@pytest.mark.parametrize("offset", [1, pytest.param(-40, marks=pytest.mark.slow)])
def test_wrong_zero_point_is_named(digits: Case, offset: int) -> None:
    """The device takes the offset back behind the layer: a small one only moves the range."""
    layer = digits.layers[3]
    quantizer = cases.change_quantizer(digits.deploy, layer, offset=offset)
    found = _named(digits)
    assert found.layer == layer and f"AscendQuant '{quantizer}' has offset" in found.text


@pytest.mark.parametrize(("factor", "offset"), [pytest.param(1.2, 0, marks=pytest.mark.slow), (1.03, 0), (1.0, 1)])
def test_wrong_antiquant_at_an_add_is_named(digits: Case, factor: float, offset: int) -> None:
    """No int8 layer is wrong, what stands between two of them is."""
    name = cases.change_antiquant(digits.deploy, factor=factor, offset=offset)
    found = _named(digits)
    cause = "zero-point-fault" if offset else "scale-fault"
    assert (found.layer, found.place, found.cause, found.node) == ("/c2.0/Conv", "before", cause, name)
    assert f"AscendAntiQuant '{name}' has" in found.text


@pytest.mark.parametrize("position", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_saturating_layer_is_named(digits: Case, position: int) -> None:
    layer = digits.layers[position]
    cases.narrow_quantizer(digits.deploy, layer, 4.0)
    found = _fault(digits)
    assert found["deploy@reference"] == found["deploy@a2"] == (layer, "saturation")


def test_false_witness_is_named_with_figures(digits: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether default settings lie depends on the CPU: here a wrong model stands in for them."""
    needs_default_settings(digits.source)
    lying = tmp_path / "lying.onnx"
    model = onnx.load(digits.source)
    bias = next(
        i
        for i in model.graph.initializer
        if i.name == next(n for n in model.graph.node if n.op_type == "Gemm").input[2]
    )
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(3), bias.name))
    onnx.save(model, lying)
    real = default_settings.open_default
    monkeypatch.setattr(default_settings, "open_default", lambda path: real(lying))
    found = digits.compare(labels=digits.labels)
    assert any(s.startswith("False witness:") and "LSB" in s for s in found.verdict.sentences)
    assert any("disable_quant_qdq" in a for a in found.verdict.advice)
    assert found.models[0].notes and found.models[0].settings is not None
    assert found.models[0].settings["session.disable_quant_qdq"] == "1"


PRODUCT = "/MatMul_1"
"""A MatMul of two activations: softmax times values."""


def _second_quantizer(case: Case) -> onnx.NodeProto:
    model = onnx.load(case.deploy)
    read = next(n for n in model.graph.node if n.name == PRODUCT).input[1]
    return next(n for n in model.graph.node if read in n.output)


def _scale_second(case: Case) -> None:
    cases.change_node(case.deploy, _second_quantizer(case).name, factor=1.25)


def _shift_second(case: Case) -> None:
    cases.change_node(case.deploy, _second_quantizer(case).name, offset=9)


def _swap(case: Case) -> None:
    """Both operands are [.., 8, 8]: the shapes do not tell."""
    model = onnx.load(case.deploy)
    product = next(n for n in model.graph.node if n.name == "/MatMul")
    product.input[:] = [product.input[1], product.input[0]]
    onnx.save(model, case.deploy)


def _scale_result(case: Case) -> None:
    cases.scale_dequantizer(case.deploy, PRODUCT, 1.1)


@pytest.mark.parametrize(
    ("damage", "layer", "causes", "text"),
    [
        pytest.param(_scale_result, PRODUCT, {"scale-fault"}, "AscendDequant", marks=pytest.mark.slow),
        (_scale_second, PRODUCT, {"scale-fault"}, "second.quant"),
        # the simulation compensates it, so that no number shows it
        pytest.param(_shift_second, PRODUCT, {"ledger-contradiction"}, "has offset 9", marks=pytest.mark.slow),
        pytest.param(_swap, "/MatMul", {"wiring-changed", "weight-fault"}, "swapped", marks=pytest.mark.slow),
    ],
    ids=["scale of the result", "scale of the second operand", "offset of the second operand", "operands swapped"],
)
def test_fault_in_a_product_of_two_activations_is_named(
    damage: Callable[[Case], None], layer: str, causes: set[str], text: str, tmp_path: Path
) -> None:
    case = converted("torchfx_digitstf_i8sym_op17", tmp_path, samples=16)
    damage(case)
    found = _named(case, ("reference",))
    assert (found.layer, found.cause in causes) == (layer, True), found
    assert text in found.text


@pytest.mark.slow
def test_products_of_two_activations_are_no_fault_on_any_chip(tmp_path: Path) -> None:
    case = converted("torchfx_digitstf_i8sym_op17", tmp_path)
    found = case.compare(devices=["reference", "a2", "310", "310p", "ascend950"])
    assert found.verdict.level != "diverges", found.verdict
    layer = next(e for e in found.layers if e.name == PRODUCT)
    assert layer.second_scale_d == layer.scale_w[0] and layer.compared


@pytest.mark.parametrize(("part", "cause"), [("weight", "weight-fault"), ("bias", "bias-fault")])
def test_weights_and_biases_of_the_fake_quant_model_have_their_causes(part: str, cause: str, small: Case) -> None:
    """They stand behind a Cast; other weights may look like another bias, and the reverse."""
    model = onnx.load(small.fake_quant)
    cast = next(n for n in model.graph.node if n.name.endswith(f".{part}.cast"))
    held = next(t for t in model.graph.initializer if t.name == cast.input[0])
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held)[::-1].copy(), held.name))
    onnx.save(model, small.fake_quant)
    found = next(d for d in small.compare().divergences if d.model == "fake-quant")
    assert (found.cause, found.node) == (cause, cast.name)


def test_quantizer_without_its_offset_is_named(small: Case) -> None:
    """An attribute that is left out is 0, which most offsets are not of: the session runs."""
    model = onnx.load(small.deploy)
    quant = next(n for n in model.graph.node if n.op_type == "AscendQuant")
    quant.attribute.remove(next(a for a in quant.attribute if a.name == "offset"))
    onnx.save(model, small.deploy)
    found = next(d for d in small.compare().divergences if d.model == "deploy@a2")
    assert (found.cause, found.node) == ("zero-point-fault", quant.name)
