"""float16 models: AscendQuant on float16, AscendDequant with dtype 1, and a fake-quant model that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_onnx import DeploySession, compare, convert_qat_model
from amct_onnx.graph.float16_rounding import round_float16_nodes
from support.deploy_evaluator import attributes, evaluate, run
from support.older_libraries import needs_float16_rounding
from support.written_models import operators, write_model

FORMS = {
    "casts around Q and DQ": (
        17,
        "u = Cast <to = 1> (x) q = QuantizeLinear(u, s, z) e = DequantizeLinear(q, s, z) d = Cast <to = 10> (e)",
        "v = DequantizeLinear(w, s) wd = Cast <to = 10> (v)",
    ),
    "float16 scales": (
        19,
        "q = QuantizeLinear(x, h, z) d = DequantizeLinear(q, h, z)",
        "wd = DequantizeLinear(w, h)",
    ),
}


@pytest.mark.parametrize(("opset", "quantizer", "weight"), FORMS.values(), ids=FORMS.keys())
def test_float16_model(opset: int, quantizer: str, weight: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scale = np.float16(0.0625)
    text = f"g (float16[n, 6] x) => (float16[n, 4] y) {{ {quantizer} {weight} m = MatMul(d, wd) y = Add(m, b) }}"
    constants = {
        "s": np.float32(scale),
        "h": scale,
        "z": np.int8(-5),
        "w": rng.integers(-127, 128, (6, 4)).astype(np.int8),
        "b": rng.integers(-99, 99, 4).astype(np.float16) * scale * scale,
    }
    used = {k: v for k, v in constants.items() if f"{k})" in text or f"{k}," in text}
    path = write_model(tmp_path / "m.onnx", text, used, opset=opset)
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert len(report.converted) == 1
    deploy = onnx.load(report.deploy_model)
    assert operators(deploy) == ["AscendQuant", "MatMul", "Add", "AscendDequant"]
    assert attributes(deploy.graph.node[-1])["dtype"] == 1
    feeds = {"x": rng.normal(size=(7, 6)).astype(np.float16)}
    ours, exact = run(report.fake_quant_model, feeds), evaluate(report.deploy_model, feeds)
    assert ours["y"].dtype == np.float16
    assert np.array_equal(ours["y"], exact["y"])
    if quantizer.startswith("q = QuantizeLinear(x, h"):
        needs_float16_rounding(path)
    # every product is a multiple of 2^-8, so that only the last cast to float16 rounds, once in each
    np.testing.assert_array_equal(ours["y"], run(path, feeds)["y"])


def test_per_channel_float16_matmul_is_rounded_once(tmp_path: Path) -> None:
    """The ratio behind the common scale is applied in float32: deploy equals fake-quant bit for bit."""
    text = """g (float16[n, 6] x) => (float16[n, 4] y) {
        q = QuantizeLinear(x, h, z) d = DequantizeLinear(q, h, z)
        wd = DequantizeLinear <axis = 1> (w, sw, zw) y = MatMul(d, wd)
    }"""
    rng = np.random.default_rng(0)
    constants = {
        "h": np.float16(0.037),
        "z": np.int8(-5),
        "w": rng.integers(-127, 128, (6, 4)).astype(np.int8),
        "sw": rng.uniform(0.001, 0.1, 4).astype(np.float16),
        "zw": np.zeros(4, np.int8),
    }
    path = write_model(tmp_path / "m.onnx", text, constants, opset=19)
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert operators(onnx.load(report.deploy_model)) == ["AscendQuant", "MatMul", "AscendDequant", "Mul", "Cast"]
    feeds = {"x": rng.normal(size=(50, 6)).astype(np.float16)}
    ours, exact = run(report.fake_quant_model, feeds), evaluate(report.deploy_model, feeds)
    assert ours["y"].dtype == np.float16
    assert np.array_equal(ours["y"], exact["y"])


def test_padding_is_resolved_behind_casts_without_declared_shapes(tmp_path: Path) -> None:
    text = """g (float16[1, 3, 8, 8] x) => (float16[1, 4, 4, 4] y) {
        r = Relu(x) u = Cast <to = 1> (r) q = QuantizeLinear(u, s, z) e = DequantizeLinear(q, s, z)
        d = Cast <to = 10> (e) v = DequantizeLinear(w, s) wd = Cast <to = 10> (v)
        y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (d, wd)
    }"""
    weight = np.ones((4, 3, 3, 3), np.int8)
    path = write_model(tmp_path / "m.onnx", text, {"s": np.float32(0.0625), "z": np.int8(3), "w": weight})
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert [(e.reason, e.detail) for e in report.refused] == []


def test_float_layers_round_and_the_ledger_says_by_which_nodes(tmp_path: Path) -> None:
    """onnxruntime alone would compute Mul, Add, the float MatMul and Relu in float32 and round once."""
    text = """g (float16[n, 6] x) => (float16[n, 4] y) {
        q = QuantizeLinear(x, h, z) d = DequantizeLinear(q, h, z) wd = DequantizeLinear(w, h)
        m = MatMul(d, wd) a = Mul(m, k) b = Add(a, k) f = MatMul(b, v) y = Relu(f)
    }"""
    rng = np.random.default_rng(3)
    constants = {
        "h": np.float16(0.0371),
        "z": np.int8(-5),
        "w": rng.integers(-127, 128, (6, 4)).astype(np.int8),
        "k": np.float16(1.37),
        "v": rng.normal(size=(4, 4)).astype(np.float16),
    }
    path = write_model(tmp_path / "m.onnx", text, constants, opset=19)
    report = convert_qat_model(path, tmp_path / "out" / "m")
    feeds = {"x": rng.normal(size=(500, 6)).astype(np.float16)}
    fake, exact = run(report.fake_quant_model, feeds), evaluate(report.deploy_model, feeds)
    assert np.array_equal(fake["y"], exact["y"])
    (floating,) = [e for e in report.layers if e.verdict != "converted"]
    nodes = {n.name: n for n in onnx.load(report.fake_quant_model).graph.node}
    kinds = [nodes[n].op_type for n in floating.fake_quant_nodes]
    assert kinds == ["Cast", "MatMul", "Cast"]
    first, _, last = (nodes[n] for n in floating.fake_quant_nodes)
    assert (list(first.input), list(last.output)) == (["b"], ["f"])
    assert not any(n.op_type == "Cast" for n in onnx.load(report.deploy_model).graph.node)


@pytest.mark.parametrize(
    ("bounds", "low", "high"), [("", -65504, 65504), (", l", -3.5, 65504), (", , l", -65504, -3.5)]
)
def test_clip_without_a_bound_ends_where_float16_does(bounds: str, low: float, high: float, tmp_path: Path) -> None:
    """float32 would end far beyond, and leave infinity what it is."""
    text = f"""g (float16[n, 6] x) => (float16[n, 4] y, float16[n, 4] b) {{
        q = QuantizeLinear(x, h, z) d = DequantizeLinear(q, h, z) wd = DequantizeLinear(w, h)
        m = MatMul(d, wd) a = Exp(m) b = Sub(a, e) y = Clip(b{bounds})
    }}"""
    constants = {
        "h": np.float16(0.5),
        "z": np.int8(0),
        "w": np.random.default_rng(3).integers(-127, 128, (6, 4)).astype(np.int8),
        "e": np.array([0, np.inf, 1, 2], np.float16),
    } | ({"l": np.float16(-3.5)} if bounds else {})
    report = convert_qat_model(write_model(tmp_path / "m.onnx", text, constants, opset=19), tmp_path / "out" / "m")
    feeds = {"x": np.random.default_rng(4).normal(size=(50, 6)).astype(np.float16)}
    fake, deploy = run(report.fake_quant_model, feeds), DeploySession(report.deploy_model).run(["y"], feeds)[0]
    expected = np.clip(fake["b"], np.float16(low), np.float16(high))
    assert (np.abs(expected) == 65504).any()
    np.testing.assert_array_equal(fake["y"], expected)
    np.testing.assert_array_equal(deploy, expected)


def test_nodes_of_unknown_type_are_left_alone() -> None:
    """Nobody knows what a custom operator gives: rounding behind it might join two types in one node."""
    text = """<ir_version: 8, opset_import: ["" : 13, "custom" : 1]>
    g (float16[2] x) => (y, float16[2] z) { c = custom.Op(x) y = Add(c, x) z = Mul(x, x) }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    round_float16_nodes(model)
    assert [n.op_type for n in model.graph] == ["Op", "Add", "Cast", "Mul", "Cast"]


@pytest.mark.parametrize("choice", ["keep", "drop"])
def test_compare_finds_no_fault_where_elements_move_before_a_factor(choice: str, tmp_path: Path) -> None:
    """The source that runs has another tensor under the name of the moved one: rounding gives names as well."""
    text = "g (float16[n, 4] x) => (float16[n, 4] y, float16[n, 4] u) { "
    text += "q0 = QuantizeLinear(x, s, z) d0 = DequantizeLinear(q0, s, z) u = Exp(d0) "
    text += "a = Sigmoid(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) k = Mul(d, half) "
    text += "q1 = QuantizeLinear(k, t, z) d1 = DequantizeLinear(q1, t, z) r = Reshape(d1, shape) "
    text += (
        "q2 = QuantizeLinear(r, t, z) d2 = DequantizeLinear(q2, t, z) e = DequantizeLinear(w, s) y = MatMul(d2, e) }"
    )
    constants = {
        "s": np.float16(2.0**-6),
        "t": np.float16(2.0**-7),
        "half": np.float16(0.5),
        "z": np.int8(0),
        "shape": np.asarray([-1, 4], np.int64),
        "w": np.arange(-8, 8).astype(np.int8).reshape(4, 4),
    }
    path = write_model(tmp_path / "m.onnx", text, constants, opset=21, ir_version=10)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"n_{node.output[0]}"
    onnx.save(model, path)
    needs_float16_rounding(path)
    report = convert_qat_model(path, tmp_path / "m", residual_quantizers=choice)
    assert report.layers[0].read_scale == 2.0**-7
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(16, 4)).astype(np.float16))
    compared = compare(path, tmp_path / "m", tmp_path / "x.npz")
    assert not [d for d in compared.divergences if d.is_fault]
    assert compared.verdict.level != "incomplete"
