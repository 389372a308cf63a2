"""Operators that ONNX Runtime fuses: their standard form against ONNX Runtime's kernel, and int8 layers inside."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.older_libraries import needs_right_kernel

FLOAT, MICROSOFT = onnx.TensorProto.FLOAT, "com.microsoft"
SCALE = 0.03
BATCH, WIDTH, UNITS = 2, 6, 4
BIAS = 6e-4
"""Biases become int32 at 0.03 * 0.02 at most: half of that for the result, twice as much behind what amplifies it."""


class Model:
    """A graph that grows: x is the input of shape ``shape``."""

    def __init__(self, shape: list[int], opset: int = 13) -> None:
        self.shape, self.opset = shape, opset
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, content: Any, kind: Any = np.float32) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(content, kind), name))
        return name

    def add(self, op_type: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}_{op_type}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, names, name, domain=domain, **attributes))
        return name

    def quantized(self, value: str, zero: int = 3) -> str:
        scale, point = self.constant(SCALE), self.constant(zero, np.int8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", value, scale, point), scale, point)

    def weight(self, random: np.random.Generator, shape: list[int], axis: int) -> str:
        integers = self.constant(random.integers(-127, 128, shape), np.int8)
        scales = self.constant(random.uniform(0.005, 0.02, shape[axis]))
        zeros = self.constant(np.zeros(shape[axis]), np.int8)
        return self.add("DequantizeLinear", integers, scales, zeros, axis=axis)

    def proto(self, output: str) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(output, FLOAT, None)]
        inputs = [helper.make_tensor_value_info("x", FLOAT, self.shape)]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.tensors)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def convert(model: onnx.ModelProto, folder: str | Path) -> ConversionReport:
    path = Path(folder) / "source.onnx"
    onnx.save(model, path)
    return convert_qat_model(path, Path(folder) / "m")


def run(model: str | bytes, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def hold(model: onnx.ModelProto, int8: int, layers: int, x: np.ndarray, share: float = BIAS) -> None:
    """The numbers of the source and so many layers; nothing of another domain is left where all are int8."""
    with TemporaryDirectory() as folder:
        report = convert(model, folder)
        assert (len(report.converted), len(report.layers)) == (int8, layers)
        if int8 == layers:
            assert not any(n.domain for n in onnx.load(report.fake_quant_model).graph.node)
        expected, result = run(model.SerializeToString(), x), run(report.fake_quant_model, x)
    assert expected.shape == result.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=share * max(1.0, float(np.abs(expected).max())))


ACTIVATIONS = st.sampled_from(
    [
        ("", []),
        ("Relu", []),
        ("Sigmoid", []),
        ("Tanh", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 1.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ]
)
SEEDS = st.integers(0, 2**16)
FEW = settings(max_examples=12, deadline=None)


@FEW
@given(activation=ACTIVATIONS, bias=st.booleans(), add=st.booleans(), seed=SEEDS)
def test_fused_conv(activation: tuple[str, list[float]], bias: bool, add: bool, seed: int) -> None:
    random, model = np.random.default_rng(seed), Model([1, 3, 5, 5])
    x, w = model.quantized("x"), model.weight(random, [UNITS, 3, 3, 3], 0)
    more = [model.constant(random.normal(size=UNITS))] if bias or add else []
    if add:
        more.append(model.constant(random.normal(size=(1, UNITS, 5, 5))))
    kind, numbers = activation
    attributes: dict[str, Any] = {"activation": kind} if kind else {}
    if numbers:
        attributes["activation_params"] = numbers
    y = model.add("FusedConv", x, w, *more, domain=MICROSOFT, pads=[1, 1, 1, 1], **attributes)
    hold(model.proto(y), 1, 1, random.normal(size=(1, 3, 5, 5)).astype(np.float32), BIAS)


@FEW
@given(
    activation=ACTIVATIONS.filter(lambda a: a[0] not in ("Clip", "")),
    transposed=st.booleans(),
    bias=st.booleans(),
    seed=SEEDS,
)
def test_fused_gemm(activation: tuple[str, list[float]], transposed: bool, bias: bool, seed: int) -> None:
    random, model = np.random.default_rng(seed), Model([BATCH, WIDTH])
    shape = [UNITS, WIDTH] if transposed else [WIDTH, UNITS]
    x, w = model.quantized("x"), model.weight(random, shape, 0 if transposed else 1)
    more = [model.constant(random.normal(size=UNITS))] if bias else []
    numbers = dict(zip(("activation_alpha", "activation_beta"), activation[1], strict=False))
    y = model.add(
        "FusedGemm", x, w, *more, domain=MICROSOFT, transB=int(transposed), activation=activation[0], **numbers
    )
    hold(model.proto(y), 1, 1, random.normal(size=(BATCH, WIDTH)).astype(np.float32), BIAS)


@FEW
@given(sides=st.tuples(*[st.booleans()] * 2), alpha=st.sampled_from([1.0, 0.5, -2.0]), seed=SEEDS)
def test_fused_matmul(sides: tuple[bool, bool], alpha: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = [3, WIDTH, BATCH] if sides[0] else [3, BATCH, WIDTH]
    model = Model(shape)
    w_shape = [UNITS, WIDTH] if sides[1] else [WIDTH, UNITS]
    x, w = model.quantized("x"), model.weight(random, w_shape, 0 if sides[1] else 1)
    y = model.add("FusedMatMul", x, w, domain=MICROSOFT, transA=int(sides[0]), transB=int(sides[1]), alpha=alpha)
    hold(model.proto(y), 1, 1, random.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("batches", [(1, 0), (0, 1), (1, 1)])
def test_batches_that_a_fused_matmul_transposes(batches: tuple[int, int]) -> None:
    random, model = np.random.default_rng(0), Model([2, 3, 3, 4])
    model.quantized("x")
    first = "x" if not batches[0] else model.add("Transpose", "x", perm=[2, 0, 1, 3])
    second = model.constant(random.normal(size=(4, 2, 3, 5) if batches[1] else (2, 3, 4, 5)))
    attributes = {"transBatchA": batches[0], "transBatchB": batches[1]}
    y = model.add("FusedMatMul", model.quantized(first), second, domain=MICROSOFT, **attributes)
    hold(model.proto(y), 0, 1, random.normal(size=(2, 3, 3, 4)).astype(np.float32))


@FEW
@given(per_channel=st.booleans(), zeros=st.booleans(), bias=st.booleans(), seed=SEEDS)
def test_matmul_integer_to_float_with_constant_scales(per_channel: bool, zeros: bool, bias: bool, seed: int) -> None:
    random, model = np.random.default_rng(seed), Model([BATCH, WIDTH])
    scale, zero = model.constant([SCALE]), model.constant([120], np.uint8)
    x = model.add("QuantizeLinear", "x", model.constant(SCALE), model.constant(120, np.uint8))
    w = model.constant(random.integers(-127, 128, (WIDTH, UNITS)), np.int8)
    size = (UNITS,) if per_channel else (1,)
    inputs = [x, w, scale, model.constant(random.uniform(0.005, 0.02, size)), zero]
    inputs.append(model.constant(np.zeros(size), np.int8) if zeros else "")
    inputs.append(model.constant(random.normal(size=UNITS)) if bias else "")
    y = model.add("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
    hold(model.proto(y), 1, 1, random.normal(size=(BATCH, WIDTH)).astype(np.float32), BIAS)


UNARY: dict[str, tuple[int, dict[str, Any]]] = {
    "Gelu": (0, {}),
    "BiasGelu": (1, {}),
    "FastGelu": (1, {}),
    "QuickGelu": (0, {"alpha": 1.5}),
}


@pytest.mark.parametrize("op_type", [*UNARY, "FastGelu without bias"])
def test_activations(op_type: str) -> None:
    random, model = np.random.default_rng(1), Model([BATCH, 5, WIDTH])
    kind = op_type.split()[0]
    biases, attributes = UNARY[kind] if kind == op_type else (0, {})
    y = model.add("MatMul", model.quantized("x"), model.weight(random, [WIDTH, UNITS], 1))
    more = [model.constant(random.normal(size=UNITS)) for _ in range(biases)]
    y = model.add(kind, y, *more, domain=MICROSOFT, **attributes)
    hold(model.proto(y), 1, 1, (random.normal(size=(BATCH, 5, WIDTH)) * 3).astype(np.float32))


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("op_type", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sum_is_read", [False, True])
def test_normalisations(op_type: str, opset: int, bias: bool, sum_is_read: bool) -> None:
    random, model = np.random.default_rng(2), Model([BATCH, 5, WIDTH], opset)
    x = model.quantized("x")
    y = model.add("MatMul", x, model.weight(random, [WIDTH, WIDTH], 1))
    gamma, beta, more = (model.constant(random.normal(size=WIDTH)) for _ in range(3))
    inputs = [y, x, gamma] + ([beta] if op_type == "SkipLayerNormalization" else []) + ([more] if bias else [])
    y = model.add(op_type, *inputs, domain=MICROSOFT, outputs=4 if sum_is_read else 1, epsilon=1e-5)
    if sum_is_read:
        y = model.add("Add", y, f"{y}_3")
    needs_right_kernel(*skip_normalisation(op_type, bias))
    hold(model.proto(y), 1, 1, random.normal(size=(BATCH, 5, WIDTH)).astype(np.float32), 4 * BIAS)


def skip_normalisation(op_type: str, bias: bool) -> tuple[dict[str, np.ndarray], onnx.NodeProto, np.ndarray]:
    """Inputs, node and result of one that normalises x + s, and + b."""
    random, centred = np.random.default_rng(0), op_type == "SkipLayerNormalization"
    names = ["x", "s", "g"] + ["t"] * centred + ["b"] * bias
    inputs = {n: random.normal(size=(2, 3, 4) if n in "xs" else 4).astype(np.float32) for n in names}
    total = inputs["x"] + inputs["s"] + inputs.get("b", np.float32(0))
    total -= total.mean(axis=-1, keepdims=True) * centred
    result = total / np.sqrt((total**2).mean(axis=-1, keepdims=True) + 1e-5) * inputs["g"]
    node = onnx.helper.make_node(op_type, names, ["y"], op_type, domain=MICROSOFT, epsilon=1e-5)
    return inputs, node, result + inputs.get("t", np.float32(0))


def test_simplified_layer_normalization_of_the_default_domain() -> None:
    random, model = np.random.default_rng(3), Model([BATCH, 5, WIDTH])
    y = model.add("MatMul", model.quantized("x"), model.weight(random, [WIDTH, UNITS], 1))
    y = model.add("SimplifiedLayerNormalization", y, model.constant(random.normal(size=UNITS)), axis=-1)
    hold(model.proto(y), 1, 1, random.normal(size=(BATCH, 5, WIDTH)).astype(np.float32), BIAS)


def test_an_integer_operator_that_nothing_defines_is_a_line_in_the_ledger(tmp_path: Path) -> None:
    model = Model([BATCH, WIDTH])
    scale, zero = model.constant(SCALE), model.constant(0, np.int8)
    x = model.add("QuantizeLinear", "x", scale, zero)
    y = model.add("QLinearUnheardOf", x, scale, zero, domain=MICROSOFT)
    (entry,) = convert(model.proto(model.add("DequantizeLinear", y, scale, zero)), tmp_path).refused
    assert (entry.op_type, entry.reason) == ("QLinearUnheardOf", "foreign-operator")


@pytest.mark.parametrize("turned", [False, True])
def test_channels_last_convolutions(turned: bool, tmp_path: Path) -> None:
    """No kernel of a CPU build runs them: held to Conv between Transposes."""
    random = np.random.default_rng(6)
    outputs = []
    feed = random.normal(size=(1, 5, 5, 3)).astype(np.float32)
    for fused in (True, False):
        random, model = np.random.default_rng(7), Model([1, 5, 5, 3])
        shape, order = [UNITS, 2, 2, 3], [0, 3, 1, 2]
        x, w = model.quantized("x"), model.weight(random, shape, 0)
        if not (fused and turned):
            w = model.add("Transpose", w, perm=order)
        if fused:
            y = model.add("NhwcFusedConv", x, w, domain=MICROSOFT, activation="Relu")
        else:
            y = model.add("Conv", model.add("Transpose", x, perm=order), w)
            y = model.add("Relu", model.add("Transpose", y, perm=[0, 2, 3, 1]))
        folder = tmp_path / str(fused)
        folder.mkdir()
        report = convert(model.proto(y), folder)
        assert len(report.converted) == len(report.layers) == 1
        outputs.append(run(report.fake_quant_model, feed))
    np.testing.assert_array_equal(*outputs)


def test_what_no_definition_holds_is_named(tmp_path: Path) -> None:
    model = Model([1, 3, 5, 5])
    w = model.constant(np.ones((2, 3, 1, 1)))
    y = model.add("FusedConv", model.quantized("x"), w, domain=MICROSOFT, activation="Mish")
    with pytest.raises(UnsupportedModelError, match=r"'n2_FusedConv' \(FusedConv\): its activation Mish"):
        convert(model.proto(y), tmp_path)
