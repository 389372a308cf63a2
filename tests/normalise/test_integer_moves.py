"""Data movement between Q and DQ: the layer behind it is int8 and quantizes once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import evaluate, run
from support.older_libraries import needs_node_names
from support.written_models import Array, convert_and_compare, operators, write_model

CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.05),
    "s2": np.float32(0.07),
    "z": np.int8(-10),
    "w": np.random.default_rng(0).integers(-127, 128, (4, 8, 1, 1)).astype(np.int8),
    "sw": np.float32(0.01),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "half": np.array([4, 4], np.int64),
    "one": np.array([1]),
    "five": np.array([5]),
    "two": np.array([2]),
}
MOVES = {
    "max pool": "m = MaxPool <kernel_shape = [2, 2]> (q) d = DequantizeLinear(m, s, z)",
    "pad with the zero point": "m = Pad(q, pads, z) d = DequantizeLinear(m, s, z)",
    "pad with the integer 0": "m = Pad(q, pads) d = DequantizeLinear(m, s, z)",
    "resize": 'm = Resize <mode = "nearest"> (q, , scales) d = DequantizeLinear(m, s, z)',
    "split, concat": "a, b = Split <axis = 1> (q, half) m = Concat <axis = 1> (b, a) d = DequantizeLinear(m, s, z)",
    "split, two DQ": "a, b = Split <axis = 1> (q, half) e = DequantizeLinear(a, s, z) f = DequantizeLinear(b, s, z) "
    "d = Concat <axis = 1> (f, e)",
    "slice, cast": "m = Slice(q, one, five, two) c = Cast <to = 3> (m) d = DequantizeLinear(c, s, z)",
}


def graph(body: str) -> str:
    return f"""g (float[n, 8, 6, 6] x) => (float[n, 4, h, v] y) {{
        q = QuantizeLinear(x, s, z) {body} wd = DequantizeLinear(w, sw) y = Conv(d, wd)
    }}"""


def feeds() -> dict[str, Array]:
    return {"x": np.random.default_rng(1).normal(size=(2, 8, 6, 6)).astype(np.float32) * 3}


@pytest.mark.parametrize("body", MOVES.values(), ids=MOVES.keys())
def test_layer_behind_integer_moves(body: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", graph(body), CONSTANTS)
    report, deploy = convert_and_compare(path, feeds(), units=0)
    assert len(report.converted) == 1
    assert operators(deploy).count("AscendQuant") == 1 and "AscendAntiQuant" not in operators(deploy)


WIDER = {
    "handed out as they are": ("int8", "y = Identity(q)"),
    "wider at the output": ("int32", "y = Cast <to = 6> (q)"),
    "wider and moved": ("int32", "c = Cast <to = 6> (q) y = Reshape(c, all)"),
    "wider and summed": ("int32", "c = Cast <to = 6> (q) y = Add(c, c)"),
    "wider, of two quantizers": (
        "int32",
        "e = QuantizeLinear(x, s2, z) c = Cast <to = 6> (q) k = Cast <to = 6> (e) y = Concat <axis = 1> (c, k)",
    ),
    "wider and compared": ("int64", "c = Cast <to = 7> (q) y = ReduceMax(c)"),
    "wrapped": ("uint8", "y = Cast <to = 2> (q)"),
}


@pytest.mark.parametrize(("kind", "nodes"), WIDER.values(), ids=WIDER)
def test_integers_of_another_type_are_those_of_the_source(kind: str, nodes: str, tmp_path: Path) -> None:
    """Beside a layer, which is int8 all the same."""
    text = f"""g (float[n, 8, 6, 6] x) => ({kind} y, float[n, 4, 6, 6] u) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw) u = Conv(d, wd) {nodes}
    }}"""
    path = write_model(tmp_path / "m.onnx", text, {**CONSTANTS, "all": np.array([-1])})
    report, _ = convert_and_compare(path, feeds(), units=0)
    assert len(report.converted) == len(report.layers) == 1


BODY = "then_branch = t () => (int8[n, 8, 6, 6] p) {{ {} }}, else_branch = e () => (int8[n, 8, 6, 6] r) {{ {} }}"
BODY_CONSTANTS = {"c": np.bool_(True), "all": np.array([-1]), "full": np.array([-1, 8, 6, 6])}
BODIES = {
    "a quantizer": "p = QuantizeLinear(x, s, z)",
    "passed on": "a = QuantizeLinear(x, s, z) p = Identity(a)",
    "selected": "a = QuantizeLinear(x, s, z) p = Relu(a)",
    "moved": "a = QuantizeLinear(x, s, z) b = Reshape(a, all) p = Reshape(b, full)",
}


@pytest.mark.parametrize("nodes", BODIES.values(), ids=BODIES)
def test_integers_that_leave_a_body(nodes: str, tmp_path: Path) -> None:
    """The layer behind it reads them as it reads those of a graph input."""
    text = f"""g (float[n, 8, 6, 6] x) => (float[n, 4, 6, 6] y) {{
        i = If(c) <{BODY.format(nodes, "r = QuantizeLinear(x, s, z)")}>
        d = DequantizeLinear(i, s, z) wd = DequantizeLinear(w, sw) y = Conv(d, wd)
    }}"""
    path = write_model(tmp_path / "m.onnx", text, {**CONSTANTS, **BODY_CONSTANTS})
    report, _ = convert_and_compare(path, feeds(), units=0)
    assert len(report.converted) == len(report.layers) == 1
    held = {v for n in onnx.load(path).graph.node for v in (*n.input, *n.output)} | set("abprx")
    assert {r.tensor for r in report.residuals} <= held
    assert [w.split(" hands out")[0][:4] for w in report.warnings] == ["Node"] * 2


def test_integers_of_16_bits_that_are_a_graph_output(tmp_path: Path) -> None:
    text = """g (float[n, 8, 6, 6] x) => (int16[n, 8, 6, 6] y, float[n, 4, 6, 6] u) {
        y = com.microsoft.QuantizeLinear(x, s2, wide) q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w, sw) u = Conv(d, wd)
    }"""
    constants = {**CONSTANTS, "wide": np.int16(-300)}
    path = write_model(tmp_path / "m.onnx", text, constants, imports='"com.microsoft" : 1')
    report, _ = convert_and_compare(path, feeds(), units=0)
    assert len(report.converted) == len(report.layers) == 1 and "hands out integers" in report.warnings[0]


def test_integers_that_are_a_graph_output(tmp_path: Path) -> None:
    text = """g (float[n, 8, 6, 6] x) => (int8[n, 8, 3, 3] y) {
        q = QuantizeLinear(x, s, z) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q)
    }"""
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    _, deploy = convert_and_compare(path, feeds(), units=0)
    assert deploy.graph.output[0].name == "y"
    assert deploy.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.INT8


def test_interpolated_integers_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    """onnxruntime's integer kernel cuts the fraction off: less than one step away."""
    needs_node_names()
    text = """g (float[n, 8, 6, 6] x) => (float[n, 8, h, v] y, float[n, 4, h, v] c) {
        q = QuantizeLinear(x, s, zp) [up] m = Resize <mode = "linear"> (q, , scales) d = DequantizeLinear(m, s, zp)
        y = Identity(d) wd = DequantizeLinear(w, sw) c = Conv(d, wd)
    }"""
    path = write_model(tmp_path / "m.onnx", text, {**CONSTANTS, "zp": np.uint8(120)})
    report = convert_qat_model(path, tmp_path / "out")
    assert len(report.converted) == 1
    assert [w for w in report.warnings if "'up' (Resize) interpolates the integers of a quantizer" in w]
    fake, source = run(report.fake_quant_model, feeds()), run(path, feeds(), qdq_source=True)
    deploy = evaluate(report.deploy_model, feeds())
    assert all(np.array_equal(deploy[name], fake[name]) for name in ("y", "c"))
    step = float(CONSTANTS["s"])
    off = fake["y"].astype(np.float64) - source["y"]
    assert off.min() >= -step * 1e-5 and 0 < off.max() <= step * (1 + 1e-5)  # float32 products of the scale
