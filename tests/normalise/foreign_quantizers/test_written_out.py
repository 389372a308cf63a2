"""Fake quantization written as operators, and as PyTorch's nodes: int8, and the numbers of the formula."""

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

from amct_onnx.errors import FactorError, NoQuantizerError
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.written_models import convert_and_compare, write_model

CHANNELS, FILTERS, SIZE = 3, 4, 6
WHERE = {"Where": ("Greater", False), "turned": ("Greater", True), "or equal": ("GreaterOrEqual", True)}
"""Clipping by Where: its comparison, and whether the bound stands first in it."""
OFF_TIES = 0.4
"""Inputs are this far from a step at most: x * (1 / s) and x / s round alike."""


class Chain:
    """Nodes and initializers of one written-out quantizer."""

    def __init__(self, name: str) -> None:
        self.name, self.nodes, self.tensors = name, [], []

    def constant(self, content: Any, kind: Any = np.float32) -> str:
        name = f"{self.name}_c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(content, kind), name))
        return name

    def add(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{self.name}_{len(self.nodes)}{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, domain=domain, **attributes))
        return name

    def clip(self, value: str, low: Any, high: Any, form: str) -> str:
        low, high = self.constant(low), self.constant(high)
        if form == "Clip" and all(t.dims == [] for t in self.tensors[-2:]):
            return self.add("Clip", value, low, high)
        if form in WHERE:
            for bound, lower in ((high, False), (low, True)):
                value = self._selected(value, bound, *WHERE[form], lower=lower)
            return value
        first, second = (("Max", low), ("Min", high)) if form == "Max" else (("Min", high), ("Max", low))
        value = self.add(first[0], first[1], value)
        return self.add(second[0], value, second[1])

    def _selected(self, value: str, bound: str, above: str, turned: bool, *, lower: bool) -> str:
        """Min(value, bound), or Max, as Where and a comparison: of value with bound, or of bound with value."""
        below = above.replace("Greater", "Less")
        if turned:
            return self.add("Where", self.add(above if lower else below, bound, value), bound, value)
        return self.add("Where", self.add(above if lower else below, value, bound), value, bound)


def written(chain: Chain, x: str, scale: Any, zero: int, low: int, high: int, form: dict[str, Any]) -> str:
    """q = clip(round(x / scale) + zero, low, high), y = (q - zero) * scale, in the form asked for."""
    s = np.asarray(scale, np.float32)
    value = x
    if form["clip"] == "first":
        value = chain.clip(value, (low - zero) * s, (high - zero) * s, form["bounds"])
    if form["front"] == "Div":
        value = chain.add("Div", value, chain.constant(s))
    elif form["front"] == "Reciprocal":
        value = chain.add("Mul", chain.add("Reciprocal", chain.constant(s)), value)
    else:
        value = chain.add("Mul", value, chain.constant(1 / s))
    inside, moved = form["zero"] == "inside", form["zero"] != "none"
    if inside:
        value = chain.add("Add", value, chain.constant(zero))
    if form["clip"] == "before":
        offset = 0 if inside else zero
        value = chain.clip(value, low - offset, high - offset, form["bounds"])
    before, value = value, chain.add("Round", value)
    if form["straight"]:
        value = chain.add("Add", before, chain.add("Sub", value, before))
    if moved and not inside:
        minus = form["zero"] == "minus"
        value = chain.add("Sub" if minus else "Add", value, chain.constant(-zero if minus else zero))
    if form["clip"] == "behind":
        offset = 0 if moved else zero
        value = chain.clip(value, low - offset, high - offset, form["bounds"])
        if form["cast"]:
            value = chain.add("Cast", value, to=onnx.TensorProto.INT32)
            value = chain.add("Cast", value, to=onnx.TensorProto.FLOAT)
    if moved:
        value = chain.add("Sub", value, chain.constant(zero))
    value = (
        chain.add("Mul", value, chain.constant(s)) if form["end"] else chain.add("Div", value, chain.constant(1 / s))
    )
    if form["clip"] == "last":
        value = chain.clip(value, (low - zero) * s, (high - zero) * s, form["bounds"])
    return value


def model_of(chains: list[Chain], end: list[onnx.NodeProto], opset: int = 13, **domains: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    nodes = [n for c in chains for n in c.nodes] + end
    graph = helper.make_graph(nodes, "g", [x], [y], [t for c in chains for t in c.tensors])
    imports = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(d.replace("_", "."), v) for d, v in domains.items()),
    ]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def convert(model: onnx.ModelProto, folder: str | Path) -> ConversionReport:
    path = Path(folder) / "source.onnx"
    onnx.save(model, path)
    return convert_qat_model(path, Path(folder) / "m", grid_weights=False)


def run(model: str | bytes, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


FORMS = st.fixed_dictionaries(
    {
        "front": st.sampled_from(["Div", "Mul", "Reciprocal"]),
        "zero": st.sampled_from(["none", "inside", "plus", "minus"]),
        "clip": st.sampled_from(["first", "before", "behind", "last"]),
        "bounds": st.sampled_from(["Clip", "Max", "Min", *WHERE]),
        "straight": st.booleans(),
        "cast": st.booleans(),
        "end": st.booleans(),
    }
)
RANGES = st.sampled_from([(-128, 127), (0, 255), (-127, 127), (0, 15), (-8, 7)])


@settings(max_examples=20, deadline=None)
@given(
    form=FORMS,
    weight_form=FORMS,
    bounds=RANGES,
    share=st.floats(0, 1),
    log_scale=st.floats(-12, 3),
    per_channel=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_every_form_becomes_int8_with_the_numbers_of_the_source(
    form: dict[str, Any],
    weight_form: dict[str, Any],
    bounds: tuple[int, int],
    share: float,
    log_scale: float,
    per_channel: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    low, high = bounds
    zero = int(round(low + share * (high - low)))
    scale = np.float32(2.0**log_scale)
    w_scale = random.uniform(0.01, 0.1, (FILTERS, 1, 1, 1) if per_channel else ()).astype(np.float32)
    activation, weight = Chain("a"), Chain("w")
    x_name = written(activation, "x", scale, zero, low, high, form)
    steps = random.integers(-120, 121, (FILTERS, CHANNELS, 3, 3)) + random.uniform(-OFF_TIES, OFF_TIES)
    w_name = written(weight, weight.constant(steps * w_scale), w_scale, 0, -127, 127, weight_form)
    model = model_of([activation, weight], [helper.make_node("Conv", [x_name, w_name], ["y"], "conv")])
    noise = random.uniform(-OFF_TIES, OFF_TIES, (1, CHANNELS, SIZE, SIZE))
    x = ((random.integers(low - 9, high + 10, noise.shape) - zero + noise) * scale).astype(np.float32)
    with TemporaryDirectory() as folder:
        report = convert(model, folder)
        assert len(report.converted) == len(report.layers) == 1
        expected, result = run(model.SerializeToString(), x), run(report.fake_quant_model, x)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), float(scale)))


ALMOST = {
    "zero": ("Add", 0.5, "has a zero point that is not an integer"),
    "scale back": ("Mul", 0.2, "scales back by another number than it divides by"),
    "sign": ("Mul", -0.1, "scales back by another number than it divides by"),
    "nothing": ("Mul", 0.0, "has a scale that is 0 or not finite"),
    "bounds": ("Clip", 100.3, "clips at numbers that are not on its grid"),
}


@pytest.mark.parametrize("kind", ALMOST)
def test_what_is_almost_a_quantizer_stays_and_says_why(kind: str, tmp_path: Path) -> None:
    op_type, number, why = ALMOST[kind]
    chain = Chain("a")
    value = chain.add("Div", "x", chain.constant(0.1))
    if op_type == "Add":
        value = chain.add("Add", value, chain.constant(number))
    value = chain.clip(chain.add("Round", value), -128, number if op_type == "Clip" else 127, "Clip")
    if op_type == "Add":
        value = chain.add("Sub", value, chain.constant(number))
    value = chain.add("Mul", value, chain.constant(number if op_type == "Mul" else 0.1))
    other = Chain("o")
    zero = other.constant(0, np.int8)
    other.add("DequantizeLinear", other.add("QuantizeLinear", value, other.constant(0.2), zero), other.tensors[1].name)
    end = helper.make_node("Identity", [other.nodes[-1].output[0]], ["y"], "end")
    model = model_of([chain, other], [end])
    report = convert(model, tmp_path)
    assert any("'a_" in w and why in w for w in report.warnings)
    x = np.random.default_rng(0).normal(size=(1, CHANNELS, SIZE, SIZE)).astype(np.float32) * 8
    np.testing.assert_allclose(run(report.fake_quant_model, x), run(model.SerializeToString(), x), rtol=1e-6)


@pytest.mark.parametrize("change", ["floor", "other_scale", "no_bounds"])
def test_other_roundings_are_no_quantizers(change: str, tmp_path: Path) -> None:
    chain = Chain("a")
    value = chain.add("Div", "x", chain.constant(0.1))
    value = chain.add("Floor" if change == "floor" else "Round", value)
    if change != "no_bounds":
        value = chain.clip(value, -128, 127, "Clip")
    value = chain.add("Mul", value, chain.constant(0.2 if change == "other_scale" else 0.1))
    weight = chain.constant(np.ones((FILTERS, CHANNELS, 3, 3)))
    model = model_of([chain], [helper.make_node("Conv", [value, weight], ["y"], "conv")])
    with pytest.raises(NoQuantizerError):
        convert(model, tmp_path)


def formula(x: np.ndarray, scale: Any, zero: Any, low: int, high: int) -> np.ndarray:
    q = np.clip(np.rint(x / np.asarray(scale, np.float32)) + zero, low, high)
    return ((q - zero) * np.asarray(scale, np.float32)).astype(np.float32)


TORCH = {
    "aten": ("org.pytorch.aten", "ATen", "ATen"),
    "plain": ("aten", "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"),
    "mqbench": ("", "LearnablePerTensorAffine", "FixedPerChannelAffine"),
    "mqbench_inputs": ("custom", "FakeQuantizeLearnablePerTensorAffine", "FakeQuantizeLearnablePerchannelAffine"),
}


@pytest.mark.parametrize("kind", TORCH)
def test_nodes_of_torch_are_read(kind: str, tmp_path: Path) -> None:
    domain, tensor_type, channel_type = TORCH[kind]
    chain, random = Chain("a"), np.random.default_rng(4)
    scales = random.uniform(0.01, 0.1, FILTERS).astype(np.float32)
    w = random.normal(size=(FILTERS, CHANNELS, 3, 3)).astype(np.float32)
    w_name, axis = chain.constant(w), []
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    bounds = [chain.constant(n, np.int64) for n in (0, 255, -128, 127)]
    if kind == "mqbench":
        first, second = {"quant_min": 0, "quant_max": 255}, {"quant_min": -128, "quant_max": 127, "ch_axis": 0}
        bounds = []
    elif kind in ("aten", "plain"):
        axis = [chain.constant(0, np.int64)]
    if kind == "aten":
        first["operator"], second["operator"] = TORCH["plain"][1:]
    zero = chain.constant(7.0)
    x_name = chain.add(tensor_type, "x", chain.constant(0.05), zero, *bounds[:2], domain=domain, **first)
    channels = [chain.constant(scales), chain.constant(np.zeros(FILTERS)), *axis, *bounds[2:]]
    w_name = chain.add(channel_type, w_name, *channels, domain=domain, **second)
    conv = helper.make_node("Conv", [x_name, w_name], ["y"], "conv")
    report = convert(model_of([chain], [conv], **({domain.replace(".", "_"): 1} if domain else {})), tmp_path)
    assert len(report.converted) == len(report.layers) == 1
    x = random.normal(size=(1, CHANNELS, SIZE, SIZE)).astype(np.float32)
    plain = Chain("p")
    rounded = formula(w, scales.reshape(-1, 1, 1, 1), 0, -128, 127)
    plain_conv = helper.make_node("Conv", ["x", plain.constant(rounded)], ["y"], "conv")
    expected = run(model_of([plain], [plain_conv]).SerializeToString(), formula(x, 0.05, 7, 0, 255))
    np.testing.assert_allclose(run(report.fake_quant_model, x), expected, rtol=0, atol=1e-5)


def test_a_node_without_its_range_is_named(tmp_path: Path) -> None:
    chain = Chain("a")
    chain.add("LearnablePerTensorAffine", "x", chain.constant(0.1), chain.constant(0))
    end = helper.make_node("Relu", [chain.nodes[0].output[0]], ["y"], "end")
    with pytest.raises(FactorError, match=r"'a_0LearnablePerTensorAffine'.*lacks its attribute quant_min"):
        convert(model_of([chain], [end]), tmp_path)


def test_unknown_quantizers_are_listed_by_type_and_name(tmp_path: Path) -> None:
    chain = Chain("a")
    value = chain.add("QcQuantizeOp", "x", chain.constant(0.1), domain="aimet.customop.cpu")
    end = helper.make_node("Relu", [value], ["y"], "end")
    model = model_of([chain], [end], aimet_customop_cpu=1)
    with pytest.raises(NoQuantizerError, match=r"1 x aimet.customop.cpu::QcQuantizeOp \('a_0QcQuantizeOp'\)"):
        convert(model, tmp_path)
    pair = Chain("p")
    zero = pair.constant(0, np.int8)
    value = pair.add("QuantizeLinear", value, pair.constant(0.1), zero)
    value = pair.add("DequantizeLinear", value, pair.tensors[1].name, zero)
    model = model_of([chain, pair], [helper.make_node("Relu", [value], ["y"], "end")], aimet_customop_cpu=1)
    assert any("QcQuantizeOp ('a_0QcQuantizeOp')" in w for w in convert(model, tmp_path).warnings)


SIGNS = {
    "negated twice": "a = Div(x, s) r = Round(a) m = Neg(r) c = Clip(m, lo, hi) d = Mul(c, t)",
    "negative scales": "a = Mul(x, u) r = Round(a) c = Clip(r, lo, hi) d = Div(c, u)",
    "zero point minus integers": "a = Div(x, s) r = Round(a) b = Sub(z, r) c = Clip(b, lo, hi) e = Sub(z, c) "
    "d = Mul(e, s)",
    "rounded by Floor": "a = Div(x, s) b = Add(a, half) r = Floor(b) c = Clip(r, lo, hi) d = Mul(c, s)",
    "signs of each channel": "a = Div(x, v) r = Round(a) c = Clip(r, even, hi) d = Mul(c, v)",
}


@pytest.mark.parametrize("nodes", SIGNS.values(), ids=SIGNS)
def test_chain_of_any_sign(nodes: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    constants = {
        **{"s": np.float32(0.05), "t": np.float32(-0.05), "u": np.float32(-20.0), "half": np.float32(0.5)},
        **{"z": np.float32(7), "lo": np.float32(-100), "hi": np.float32(127), "even": np.float32(-127)},
        "v": np.float32([0.05, -0.05, 0.05, -0.05]),
        "w": random.integers(-127, 128, (4, 3)).astype(np.int8),
    }
    text = f"g (float[n, 4] x) => (float[n, 3] y) {{ {nodes} e1 = DequantizeLinear(w, s) y = MatMul(d, e1) }}"
    steps = random.integers(-150, 150, (5, 4)) + random.uniform(-OFF_TIES, OFF_TIES, (5, 4))
    feeds = {"x": (steps * 0.05).astype(np.float32)}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds, units=0)
    assert len(report.converted) == 1 and report.warnings == ()
