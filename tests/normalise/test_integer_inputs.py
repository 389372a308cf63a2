"""Whole numbers that other operators than QuantizeLinear round reach an int8 layer, ties as in the source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from amct_onnx import convert_qat_model
from support.written_models import convert_and_compare, write_model

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, np.ndarray] = {
    **{"s": np.float32(0.0625), "u": np.float32(16), "half": np.float32(0.5), "z": np.float32(7)},
    **{"lo": np.float32(-127), "hi": np.float32(127), "nil": np.float32(0), "last": np.float32(255)},
    **{"frac": np.float32(7.5), "other": np.float32(0.03), "w": RNG.integers(-127, 128, (4, 3)).astype(np.int8)},
}
FORMS = {
    "sign and floor": "g = Sign(x) a = Abs(x) d = Div(a, s) h = Add(d, half) f = Floor(h) c = Clip(f, nil, hi) "
    "m = Mul(g, c) y = Mul(m, s)",
    "sign of the quotient": "d = Div(x, s) g = Sign(d) a = Abs(d) h = Add(a, half) f = Floor(h) m = Mul(f, g) "
    "c = Clip(m, lo, hi) y = Mul(c, s)",
    "sign and round": "g = Sign(x) a = Abs(x) d = Mul(a, u) r = Round(d) c = Min(r, hi) m = Mul(c, s) y = Mul(m, g)",
    "floor": "d = Div(x, s) h = Add(d, half) f = Floor(h) c = Clip(f, lo, hi) y = Mul(c, s)",
    "ceil": "d = Div(x, s) h = Sub(d, half) f = Ceil(h) c = Clip(f, lo, hi) y = Mul(c, s)",
    "floor alone": "d = Div(x, s) f = Floor(d) c = Clip(f, lo, hi) y = Mul(c, s)",
    "cast and back": "d = Div(x, s) g = Sign(d) e = Mul(g, half) h = Add(d, e) i = Cast <to = 6> (h) "
    "f = Cast <to = 1> (i) c = Clip(f, lo, hi) y = Mul(c, s)",
    "uint8 with a zero point": "d = Div(x, s) h = Add(d, half) f = Floor(h) e = Add(f, z) c = Clip(e, nil, last) "
    "m = Sub(c, z) y = Mul(m, s)",
    "another scale back": "d = Div(x, s) r = Round(d) c = Clip(r, lo, hi) y = Mul(c, other)",
    "integers into the layer": "d = Mul(x, u) r = Round(d) y = Clip(r, lo, hi)",
    "Relu behind it": "d = Div(x, s) f = Floor(d) c = Clip(f, lo, hi) e = Mul(c, s) y = Relu(e)",
    "two scales back": "d = Mul(x, u) h = Add(d, half) r = Floor(h) c = Clip(r, lo, hi) m = Mul(c, s) y = Mul(m, half)",
}


def model_of(nodes: str, folder: Path) -> Path:
    text = f"g (float[n, 4] x) => (float[n, 3] o) {{ {nodes} e1 = DequantizeLinear(w, other) o = MatMul(y, e1) }}"
    return write_model(folder / "m.onnx", text, CONSTANTS)


@pytest.mark.parametrize("nodes", FORMS.values(), ids=FORMS)
def test_whole_numbers_times_a_scale_are_a_grid(nodes: str, tmp_path: Path) -> None:
    """Every multiple of half a step is fed: all ties, either sign, and both ends."""
    feeds = {"x": (np.arange(-320, 320).reshape(-1, 4) * np.float32(0.03125)).astype(np.float32)}
    report, _ = convert_and_compare(model_of(nodes, tmp_path), feeds, units=0)
    assert len(report.converted) == 1


@pytest.mark.parametrize(("kind", "reason"), [("int32", "activation-not-quantized"), ("int8", None)])
def test_integers_without_a_zero_point_are_of_the_type_that_their_maker_gives(
    kind: str, reason: str | None, tmp_path: Path
) -> None:
    """No value_info tells the type of what Abs makes; int32 leaves the range of an AscendQuant."""
    text = (
        f"g ({kind}[n, 4] x) => (float[n, 3] o) {{ k = Abs(x) y = DequantizeLinear(k, s) "
        "e1 = DequantizeLinear(w, other) o = MatMul(y, e1) }"
    )
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    numbers = np.arange(-40, 40, dtype=kind).reshape(-1, 4) * (100 if kind == "int32" else 1)
    report, _ = convert_and_compare(path, {"x": numbers}, units=0)
    assert [layer.reason for layer in report.layers] == [reason]


UNREAD = {
    "no bounds": ("d = Div(x, s) r = Floor(d) y = Mul(r, s)", r"Floor '.*', Mul '.*' \(whole numbers without bounds, "),
    "too wide": ("d = Div(x, s) r = Floor(d) c = Clip(r, lo, u) e = Mul(c, u) y = Mul(e, s)", "from -2032 to 256, "),
    "zero point of 7.5": (
        "d = Div(x, s) a = Add(d, frac) r = Round(a) c = Clip(r, lo, hi) b = Sub(c, frac) y = Mul(b, s)",
        "it has a zero point that is not an integer",
    ),
    "Mod": ("m = Mod <fmod = 1> (x, s) y = Sub(x, m)", "Mod '.*', Sub '.*'"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_rounds_otherwise_is_told_as_what_it_is(kind: str, tmp_path: Path) -> None:
    nodes, why = UNREAD[kind]
    report, _ = convert_and_compare(
        model_of(nodes, tmp_path), {"x": RNG.normal(size=(5, 4)).astype(np.float32)}, units=0
    )
    (refused,) = report.refused
    assert refused.reason == "activation-not-quantized"
    assert "is rounded by operators that are not a quantizer" in refused.detail
    assert re.search(why, refused.detail)


def test_a_source_without_names_is_not_taken_for_an_output(tmp_path: Path) -> None:
    model = onnx.load(model_of(FORMS["integers into the layer"], tmp_path))
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "unnamed.onnx")
    assert len(convert_qat_model(tmp_path / "unnamed.onnx", tmp_path / "o").converted) == 1


def test_no_shape_is_written_that_the_graph_does_not_make(tmp_path: Path) -> None:
    """Found by fuzz/run.py: the zero point had the shape of the integers."""
    text = (
        "g (int8[n, 4] x) => (float[n, 3] o) "
        "{ y = DequantizeLinear(x, s, zero) e1 = DequantizeLinear(w, other) o = MatMul(y, e1) }"
    )
    path = write_model(tmp_path / "m.onnx", text, {**CONSTANTS, "zero": np.int8(3)})
    report, _ = convert_and_compare(path, {"x": RNG.integers(-128, 128, (5, 4)).astype(np.int8)}, units=0)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    ort.InferenceSession(report.fake_quant_model, options, providers=["CPUExecutionProvider"])
