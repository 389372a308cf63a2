"""Foreign fake-quant nodes against their definitions, written here again in numpy for onnx's reference evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from amct_onnx.common.onnxruntime_session import AMCT_SO
from amct_onnx.errors import AmctError, FactorError, UnsupportedModelError
from amct_onnx.normalise.container import normalise_container
from amct_onnx.normalise.foreign_quantizers.rewrite import express_foreign_quantizers
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import Evaluator, run
from support.golden_models import MODELS

QONNX, VINO, MCT, MICROSOFT = "qonnx.custom_op.general", "org.openvinotoolkit", "mct_quantizers", "com.microsoft"
RNG = np.random.default_rng(3)
MODES = {
    "ROUND": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "UP": lambda v: np.sign(v) * np.ceil(np.abs(v)),
    "HALF_UP": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
    "HALF_DOWN": lambda v: np.sign(v) * np.ceil(np.abs(v) - 0.5),
}


class Quant(OpRun):
    """QONNX Quant."""

    op_domain = QONNX

    def _run(self, x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):  # type: ignore[no-untyped-def]
        bits = float(bits.item())
        low = (-(2 ** (bits - 1)) + narrow) if signed else 0.0
        high = (2 ** (bits - 1) - 1) if signed else 2**bits - 1 - narrow
        q = MODES[rounding_mode](np.clip((x / scale).astype(np.float64) + zero, low, high))
        return (((q - zero) * scale.astype(np.float64)).astype(np.float32),)


class BatchNormalization(OpRun):
    """In inference; onnx's own gives other numbers here than onnxruntime and the definition."""

    def _run(self, x, gamma, beta, mean, var, epsilon=1e-5, momentum=0.9, training_mode=0):  # type: ignore[no-untyped-def]
        shape = (1, -1, *[1] * (x.ndim - 2))
        factor = gamma / np.sqrt(var + np.float32(epsilon))
        return (((x - mean.reshape(shape)) * factor.reshape(shape) + beta.reshape(shape)).astype(np.float32),)


class BipolarQuant(OpRun):
    """QONNX BipolarQuant."""

    op_domain = QONNX

    def _run(self, x, scale):  # type: ignore[no-untyped-def]
        return (np.where(x >= 0, scale, -scale).astype(np.float32),)


class Trunc(OpRun):
    """QONNX Trunc, version 1."""

    op_domain = QONNX

    def _run(self, x, scale, zero, bits, out_bits, rounding_mode="FLOOR"):  # type: ignore[no-untyped-def]
        q = MODES[rounding_mode](np.rint(x / scale + zero) / 2.0 ** float(bits - out_bits))
        return (((q - zero) * scale).astype(np.float32),)


class FakeQuantize(OpRun):
    """OpenVINO FakeQuantize."""

    op_domain = VINO

    def _run(self, x, low, high, out_low, out_high, levels=256):  # type: ignore[no-untyped-def]
        low, high, out_low, out_high = (v.astype(np.float64) for v in (low, high, out_low, out_high))
        q = np.rint((np.clip(x, low, high) - low) / (high - low) * (levels - 1))
        return ((q / (levels - 1) * (out_high - out_low) + out_low).astype(np.float32),)


class Symmetric(OpRun):
    """mct_quantizers ActivationSymmetricQuantizer."""

    op_domain = MCT

    @classmethod
    def _of(cls, x: np.ndarray, threshold: Any, bits: int, signed: int) -> np.ndarray:
        step = np.asarray(threshold, np.float64) / 2 ** (bits - signed)
        low = -(2 ** (bits - 1)) if signed else 0
        return (np.clip(np.rint(x / step), low, 2 ** (bits - signed) - 1) * step).astype(np.float32)


class ActivationPOTQuantizer(Symmetric):
    """Threshold as an attribute."""

    def _run(self, x, num_bits=8, signed=1, threshold=1.0):  # type: ignore[no-untyped-def]
        return (self._of(x, threshold, num_bits, signed),)


class WeightsSymmetricQuantizer(Symmetric):
    """Thresholds as an input."""

    def _run(self, x, threshold, num_bits=8, per_channel=1, channel_axis=0, signed=1):  # type: ignore[no-untyped-def]
        shape = [1] * x.ndim
        shape[channel_axis] = -1
        return (self._of(x, threshold.reshape(shape), num_bits, 1),)


class ActivationUniformQuantizer(OpRun):
    """mct_quantizers ActivationUniformQuantizer."""

    op_domain = MCT

    def _run(self, x, num_bits=8, min_range=0.0, max_range=1.0):  # type: ignore[no-untyped-def]
        step = (max_range - min_range) / (2**num_bits - 1)
        low = step * np.round(min_range / step)
        high = max_range - min_range + low
        return ((step * np.round((np.clip(x, low, high) - low) / step) + low).astype(np.float32),)


OPERATORS = [
    BatchNormalization,
    Quant,
    BipolarQuant,
    Trunc,
    FakeQuantize,
    ActivationPOTQuantizer,
    WeightsSymmetricQuantizer,
    ActivationUniformQuantizer,
]


def f(*values: float, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """float32 scalar or array."""
    array = np.asarray(values[0] if len(values) == 1 else values, np.float32)
    return array if shape is None else array.reshape(shape)


def one_node(
    domain: str, op_type: str, x: np.ndarray, factors: list[np.ndarray], constant: bool, opset: int = 13, **attrs: Any
) -> onnx.ModelProto:
    """X -> the node -> y; when x is constant, a graph input is added to the result."""
    names = [f"f{i}" for i in range(len(factors))]
    nodes = [helper.make_node(op_type, ["x", *names], ["y"], "the_node", domain=domain, **attrs)]
    inputs = [helper.make_tensor_value_info("a" if constant else "x", onnx.TensorProto.FLOAT, x.shape)]
    if constant:
        nodes.append(helper.make_node("Add", ["a", "y"], ["z"], "sum"))
    initializers = [numpy_helper.from_array(a, n) for n, a in zip(names, factors, strict=True)]
    if constant:
        initializers.append(numpy_helper.from_array(x, "x"))
    output = helper.make_tensor_value_info("z" if constant else "y", onnx.TensorProto.FLOAT, x.shape)
    graph = helper.make_graph(nodes, "g", inputs, [output], initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def expressed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after the rule."""
    result = normalise_container(ir.from_proto(model))
    express_foreign_quantizers(result)
    return ir.to_proto(result)


def values(shape: tuple[int, ...] = (2, 4, 60)) -> np.ndarray:
    """Random values off the ties of any grid in use."""
    return (RNG.standard_normal(shape) * 2).astype(np.float32)


def check(model: onnx.ModelProto, feeds: dict[str, np.ndarray], after: onnx.ModelProto) -> None:
    """Equal to the definition; float32 products against float64: 2^-22 of the largest value."""
    (expected,) = ReferenceEvaluator(model, new_ops=OPERATORS).run(None, feeds)
    (found,) = ort.InferenceSession(after.SerializeToString(), AMCT_SO).run(None, feeds)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=float(np.abs(expected).max()) * 2.0**-22 + 1e-9)


def kinds(model: onnx.ModelProto) -> set[str]:
    """Operator types."""
    return {n.op_type for n in model.graph.node}


PC = f(0.02, 0.03, 0.01, 0.05, shape=(4, 1))
QUANTS: dict[str, tuple[list[np.ndarray], dict[str, Any], str]] = {
    "int8": ([f(0.03), f(0.0), f(8.0)], {}, "Q/DQ"),
    "int8 narrow": ([f(0.03), f(0.0), f(8.0)], dict(narrow=1), "Clip"),
    "uint8": ([f(0.03), f(0.0), f(8.0)], dict(signed=0), "Q/DQ"),
    "uint8 narrow, zero point": ([f(0.03), f(100.0), f(8.0)], dict(signed=0, narrow=1), "Clip"),
    "int8, even zero point": ([f(0.03), f(-6.0), f(8.0)], {}, "Q/DQ"),
    "4 bits": ([f(0.3), f(0.0), f(4.0)], dict(narrow=1), "Clip"),
    "unsigned 4 bits": ([f(0.3), f(8.0), f(4.0)], dict(signed=0), "Clip"),
    "7 bits of vectors": ([f(0.03, shape=(1,)), f(0.0, shape=(1,)), f(7.0, shape=(1,))], {}, "Clip"),
    "per channel": ([PC, f(0.0), f(8.0)], {}, "Q/DQ"),
    "per channel with zero points": ([PC, f(1.0, 2.0, 3.0, 4.0, shape=(4, 1)), f(8.0)], {}, "Q/DQ"),
    "16 bits": ([f(0.001), f(0.0), f(16.0)], {}, "Q/DQ"),
    "12 bits": ([f(0.001), f(0.0), f(12.0)], {}, "Clip"),
    "24 bits": ([f(0.0001), f(0.0), f(24.0)], {}, "float"),
    "fractional zero point": ([f(0.03), f(0.25), f(8.0)], {}, "float"),
    "two axes": ([f(*np.linspace(0.01, 0.1, 8), shape=(2, 4, 1)), f(0.0), f(8.0)], {}, "float"),
    **{f"mode {m}": ([f(0.03), f(0.0), f(6.0)], dict(rounding_mode=m), "float") for m in MODES if m != "ROUND"},
}


@pytest.mark.parametrize("case", QUANTS)
@pytest.mark.parametrize("constant", [False, True], ids=["activation", "constant"])
def test_qonnx_quant(case: str, constant: bool) -> None:
    factors, attributes, form = QUANTS[case]
    x = values()
    model = one_node(QONNX, "Quant", x, factors, constant, **attributes)
    feeds = {"a": np.zeros_like(x)} if constant else {"x": x}
    if not constant and form == "float":
        with pytest.raises(UnsupportedModelError, match="the_node"):
            expressed(model)
        # beside another quantizer it is left in float operators
        pair = [
            helper.make_node(t, [v, "f0", "z"], [o])
            for t, v, o in (("QuantizeLinear", "y", "yq"), ("DequantizeLinear", "yq", "other"))
        ]
        model.graph.node.extend(pair)
        model.graph.output.append(onnx.ValueInfoProto(name="other"))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros_like(factors[0], np.int8), "z"))
        after = expressed(model)
        for graph in (after.graph, model.graph):
            del graph.node[-2:], graph.output[-1]
        assert kinds(after).isdisjoint({"QuantizeLinear", "Quant"})
    else:
        after = expressed(model)
        assert "Quant" not in kinds(after)
        if not constant:
            assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(after)
            assert ("Clip" in kinds(after)) == (form == "Clip")
            if "16 bits" in case or "12 bits" in case:
                after.opset_import[0].version, after.ir_version = 21, 10  # int16 is newer than the model's opset
                for node in [n for n in after.graph.node if n.op_type == "Clip"]:
                    node.op_type = "Identity"  # onnxruntime has no Clip of int16; the values reach no bound
                    del node.input[1:]
    if case != "12 bits" or constant:
        check(model, feeds, after)


def test_constants_become_symmetric_int8_where_they_fit() -> None:
    """Asymmetric ranges of which no value lies beyond int8; one beyond; a bias of 32 bits."""
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 12)
    for factors, attributes, dtype, zero in (
        ([f(0.01), f(0.0), f(8.0)], {}, np.int8, 0),
        ([f(0.01), f(120.0), f(8.0)], dict(signed=0), np.int8, 0),
        ([f(0.01), f(20.0), f(8.0)], dict(signed=0), np.int8, 0),
        ([f(0.005), f(100.0), f(8.0)], dict(signed=0), np.uint8, 100),
        ([f(1e-6), f(0.0), f(32.0)], {}, np.int32, 0),
    ):
        after = expressed(one_node(QONNX, "Quant", x, factors, True, **attributes))
        constants = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
        dq = next(n for n in after.graph.node if n.op_type == "DequantizeLinear")
        integers = constants[dq.input[0]]
        assert integers.dtype == dtype
        assert (constants[dq.input[2]] if len(dq.input) > 2 else 0) == zero
        scaled = np.rint(x / factors[0])
        low, high = (-128, 127) if attributes.get("signed", 1) else (0, 255)
        if dtype != np.int32:
            scaled = np.clip(scaled + factors[1], low, high) - factors[1] + zero
        assert np.array_equal(integers, scaled)


@pytest.mark.parametrize("constant", [False, True], ids=["activation", "constant"])
def test_one_bit(constant: bool) -> None:
    x = values()
    feeds = {"a": np.zeros_like(x)} if constant else {"x": x}
    for op_type, factors in (("BipolarQuant", [PC]), ("Trunc", [f(0.25), f(0.0), f(8.0), f(6.0)])):
        model = one_node(QONNX, op_type, x, factors, constant)
        if constant:
            check(model, feeds, expressed(model))
        else:
            with pytest.raises(UnsupportedModelError, match="the_node"):
                expressed(model)


RANGES: dict[str, tuple[list[np.ndarray], int, str]] = {
    "symmetric 256": ([f(-128 / 64), f(127 / 64)] * 2, 256, "Q/DQ"),
    "symmetric 255": ([f(-127 / 64), f(127 / 64)] * 2, 255, "Clip"),
    "unsigned": ([f(0.0), f(3.0)] * 2, 256, "Q/DQ"),
    "asymmetric": ([f(-100 * 0.013), f(155 * 0.013)] * 2, 256, "Q/DQ"),
    "per channel": ([PC * -127, PC * 127] * 2, 255, "Clip"),
    "16 levels": ([f(-0.8), f(0.7)] * 2, 16, "Clip"),
}


@pytest.mark.parametrize("case", RANGES)
@pytest.mark.parametrize("constant", [False, True], ids=["activation", "constant"])
def test_openvino_fake_quantize(case: str, constant: bool) -> None:
    factors, levels, form = RANGES[case]
    x = values()
    model = one_node(VINO, "FakeQuantize", x, factors, constant, levels=levels)
    after = expressed(model)
    if not constant:
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(after)
        assert ("Clip" in kinds(after)) == (form == "Clip")
    check(model, {"a": np.zeros_like(x)} if constant else {"x": x}, after)


def test_openvino_ranges_without_a_zero_are_refused() -> None:
    for factors in ([f(-1.003), f(2.0)] * 2, [f(-1.28), f(1.27), f(-2.56), f(2.54)]):
        with pytest.raises(UnsupportedModelError, match="the_node"):
            expressed(one_node(VINO, "FakeQuantize", values(), factors, False, levels=256))
    with pytest.raises(FactorError, match="empty range"):
        expressed(one_node(VINO, "FakeQuantize", values(), [f(1.0), f(1.0)] * 2, False, levels=256))


def test_mct() -> None:
    x = values()
    for op_type, factors, attributes, constant in (
        ("ActivationPOTQuantizer", [], dict(num_bits=8, signed=1, threshold=2.0), False),
        ("ActivationPOTQuantizer", [], dict(num_bits=8, signed=0, threshold=4.0), False),
        ("ActivationPOTQuantizer", [], dict(num_bits=4, signed=1, threshold=2.0), False),
        ("ActivationUniformQuantizer", [], dict(num_bits=8, min_range=-1.3, max_range=2.1), False),
        (
            "WeightsSymmetricQuantizer",
            [f(1.0, 2.0, 0.5, 3.0)],
            dict(num_bits=8, per_channel=1, channel_axis=1, signed=1),
            True,
        ),
    ):
        model = one_node(MCT, op_type, x, factors, constant, **attributes)
        check(model, {"a": np.zeros_like(x)} if constant else {"x": x}, expressed(model))


def test_microsoft_pairs_move_to_the_default_domain(tmp_path: Path) -> None:
    """A real model whose Q/DQ are all put into com.microsoft converts to the same integers."""
    source = onnx.load(MODELS / "torchfx_digitsnet_u8_bnfold_op13" / "model.onnx")
    plain = convert_qat_model(MODELS / "torchfx_digitsnet_u8_bnfold_op13" / "model.onnx", tmp_path / "a")
    for node in source.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = MICROSOFT
    source.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    onnx.save(source, tmp_path / "source.onnx")
    report = convert_qat_model(tmp_path / "source.onnx", tmp_path / "b")
    assert Path(report.deploy_model).read_bytes() == Path(plain.deploy_model).read_bytes()


@pytest.mark.parametrize(
    ("domain", "op_type"), [(QONNX, "FloatQuant"), (QONNX, "MultiThreshold"), (MCT, "WeightsLUTPOTQuantizer")]
)
def test_what_is_no_integer_quantizer_is_named(domain: str, op_type: str) -> None:
    with pytest.raises(UnsupportedModelError, match=op_type):
        expressed(one_node(domain, op_type, values(), [f(1.0)], False))


UNUSABLE: dict[str, tuple[str, str, list[np.ndarray], dict[str, Any]]] = {
    "scale 0": (QONNX, "Quant", [f(0.0), f(0.0), f(8.0)], {}),
    "scale 0 in float32": (QONNX, "Quant", [np.asarray(1e-60), f(0.0), f(8.0)], {}),
    "scale NaN": (QONNX, "Quant", [f(np.nan), f(0.0), f(8.0)], {}),
    "7.5 bits": (QONNX, "Quant", [f(0.1), f(0.0), f(7.5)], {}),
    "40 bits": (QONNX, "Quant", [f(0.1), f(0.0), f(40)], {}),
    "ranges of two shapes": (VINO, "FakeQuantize", [f(-1, -1), f(1, 1, 1), f(-1.0), f(1.0)], dict(levels=256)),
    "2^62 bits": (MCT, "ActivationUniformQuantizer", [], dict(num_bits=2**62, min_range=-1.0, max_range=1.0)),
    "no bits": (MCT, "ActivationPOTQuantizer", [], dict(num_bits=0, threshold=1.0)),
    "threshold below 0": (MCT, "ActivationSymmetricQuantizer", [], dict(threshold=-1.0)),
    "range to infinity": (MCT, "ActivationUniformQuantizer", [], dict(min_range=-1.0, max_range=float("inf"))),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_factors_are_errors(case: str) -> None:
    domain, op_type, factors, attributes = UNUSABLE[case]
    with pytest.raises(AmctError, match="the_node"):
        expressed(one_node(domain, op_type, values(), factors, False, **attributes))


def test_layer_behind_an_inexpressible_quantizer_names_it(tmp_path: Path) -> None:
    model = onnx.load(MODELS / "brevitas_biasnet_i32_qonnx_op13" / "model.onnx")
    first = model.graph.node[0]
    assert first.op_type == "Quant"
    next(a for a in first.attribute if a.name == "rounding_mode").s = b"FLOOR"
    onnx.save(model, tmp_path / "source.onnx")
    report = convert_qat_model(tmp_path / "source.onnx", tmp_path / "m")
    (entry,) = report.refused
    assert entry.reason == "quantizer-not-integer" and "FLOOR" in str(entry.detail) and str(first.name) in entry.detail


@pytest.mark.parametrize(
    ("case", "layers", "data"),
    [
        ("brevitas_biasnet_i32_qonnx_op13", 4, "torchfx_digitsnet_i8sym_op13"),
        ("brevitas_digitsnet_pc_qonnx_op13", 7, "torchfx_digitsnet_i8sym_op13"),
        ("brevitas_mlp3d_pc_qonnx_op13", 4, "torchfx_mlp3d_i8sym_op13"),
    ],
)
def test_real_model(case: str, layers: int, data: str, tmp_path: Path) -> None:
    """onnxruntime cannot load the source: onnx's reference evaluator with the operators above is the witness."""
    source = MODELS / case / "model.onnx"
    report = convert_qat_model(source, tmp_path / "m")
    assert len(report.converted) == layers and not report.refused
    x = np.load(MODELS / data / "testset.npz")["x"][:60]
    feeds = {onnx.load(source).graph.input[0].name: x}
    (expected,) = ReferenceEvaluator(str(source), new_ops=OPERATORS).run(None, feeds)
    normal = ir.to_proto(normalise(ir.load(source)))
    (found,) = ort.InferenceSession(normal.SerializeToString(), AMCT_SO).run(None, feeds)
    (fake,) = run(report.fake_quant_model, feeds).values()
    (deploy,) = Evaluator(report.deploy_model).run(feeds).values()
    assert np.array_equal(deploy, fake)
    # float32 sums in another order decide exact ties of later quantizers, one step each; hardly any output meets one
    assert np.mean(np.abs(found - expected) > 1e-4) < 0.02
    assert np.mean(fake.argmax(1) != expected.argmax(1)) <= 1 / 60
