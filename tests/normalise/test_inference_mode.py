"""Dropout in inference: its input, and a mask of truths where something reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.written_models import convert_and_compare, write_model

CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": np.random.default_rng(0).integers(-127, 128, (8, 4)).astype(np.int8),
    "sw": np.float32(0.0237),
}
FORMS = {
    "mask unread": ("m, k = Dropout(d)", ""),
    "mask read": ("m, k = Dropout(d) u = Cast <to = 1> (k)", ", float[n, 8] u"),
    "mask handed out": ("m, u = Dropout(d)", ", bool[n, 8] u"),
}


@pytest.mark.parametrize(("nodes", "output"), FORMS.values(), ids=FORMS)
def test_layer_behind_dropout_is_int8(nodes: str, output: str, tmp_path: Path) -> None:
    text = f"""g (float[n, 8] x) => (float[n, 4] y{output}) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) {nodes} wd = DequantizeLinear(w, sw) y = MatMul(m, wd)
    }}"""
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, CONSTANTS), feeds, units=0)
    assert len(report.converted) == len(report.layers) == 1


def test_dropout_inside_written_out_fake_quantization(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 4] y) {
        a = Div(x, s) b = Dropout(a) r = Round(b) c = Clip(r, low, high) e = Dropout(c) d = Mul(e, s)
        wd = DequantizeLinear(w, sw) y = MatMul(d, wd)
    }"""
    constants = CONSTANTS | {"low": np.float32(-128), "high": np.float32(127)}
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds, units=0)
    assert len(report.converted) == len(report.layers) == 1
