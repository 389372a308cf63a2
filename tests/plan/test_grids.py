"""Quantizers move through data movement, and pairs that change no bit go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.written_models import Array, convert_and_compare, operators, write_model

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.05),
    "z": np.int8(-10),
    "s2": np.float32(0.07),
    "w": RNG.integers(-127, 128, (4, 8, 1, 1)).astype(np.int8),
    "sw": np.float32(0.01),
    "zero": np.float32(0),
    "six": np.float32(0.05) * np.float32(100),
    "off": np.float32(1.2345),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "half": np.array([4, 4], np.int64),
    "perm": np.array([0, 8, -1, 2], np.int64),
}
PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
LAYER = "wd = DequantizeLinear(w, sw) y = Conv(m, wd)"
EXACT = {
    "relu": "m = Relu(d)",
    "max pool": "m = MaxPool <kernel_shape = [2, 2]> (d)",
    "clip on the grid": "m = Clip(d, zero, six)",
    "pad with zero": "m = Pad(d, pads)",
    "pad by reflection": 'm = Pad <mode = "reflect"> (d, pads)',
    "resize nearest": 'm = Resize <mode = "nearest"> (d, , scales)',
    "reshape": "m = Reshape(d, perm)",
    "transpose": "m = Transpose <perm = [0, 1, 3, 2]> (d)",
    "split and concat": "a, b = Split <axis = 1> (d, half) m = Concat <axis = 1> (b, a)",
    "max": "r = Relu(d) m = Max(r, d)",
    "through float64": "r = Cast <to = 11> (d) m = Cast <to = 1> (r)",
    "chain": "r = Relu(d) p = MaxPool <kernel_shape = [2, 2]> (r) m = Identity(p)",
}
INEXACT = {
    "clip off the grid": "m = Clip(d, zero, off)",
    "pad off the grid": "m = Pad(d, pads, off)",
    "average pool": "m = AveragePool <kernel_shape = [2, 2]> (d)",
    "resize linear": 'm = Resize <mode = "linear"> (d, , scales)',
    "sigmoid": "m = Sigmoid(d)",
    "two grids": "q2 = QuantizeLinear(x, s2, z) e = DequantizeLinear(q2, s2, z) m = Max(d, e)",
}


def source(body: str, folder: Path) -> Path:
    text = f"g (float[n, 8, 6, 6] x) => (float[n, 4, h, v] y) {{ {PAIR} {body} {LAYER} }}"
    return write_model(folder / "m.onnx", text, CONSTANTS)


def feeds() -> dict[str, Array]:
    return {"x": np.random.default_rng(1).normal(size=(2, 8, 6, 6)).astype(np.float32) * 3}


@pytest.mark.parametrize("body", EXACT.values(), ids=EXACT.keys())
def test_layer_behind_data_movement_is_int8_and_quantizes_once(body: str, tmp_path: Path) -> None:
    report, deploy = convert_and_compare(source(body, tmp_path), feeds(), units=0)
    assert len(report.converted) == 1
    assert operators(deploy).count("AscendQuant") == 1 and "AscendAntiQuant" not in operators(deploy)


@pytest.mark.parametrize("body", INEXACT.values(), ids=INEXACT.keys())
def test_layer_behind_what_leaves_the_grid_stays_float(body: str, tmp_path: Path) -> None:
    report, deploy = convert_and_compare(source(body, tmp_path), feeds(), units=0)
    assert [e.reason for e in report.refused] == ["activation-not-quantized"]
    assert "AscendAntiQuant" in operators(deploy)


def test_second_pair_with_equal_factors_merges(tmp_path: Path) -> None:
    body = "q2 = QuantizeLinear(d, s, z) m = DequantizeLinear(q2, s, z)"
    _, deploy = convert_and_compare(source(body, tmp_path), feeds(), units=0)
    assert operators(deploy) == ["AscendQuant", "Conv", "AscendDequant"]


def test_second_pair_with_other_factors_requantizes(tmp_path: Path) -> None:
    body = "q2 = QuantizeLinear(d, s2, z) m = DequantizeLinear(q2, s2, z)"
    _, deploy = convert_and_compare(source(body, tmp_path), feeds(), units=0)
    assert operators(deploy) == ["AscendQuant", "AscendAntiQuant", "AscendQuant", "Conv", "AscendDequant"]


def test_saturation_that_stands_for_a_relu_survives(tmp_path: Path) -> None:
    """u8 with zero point 0 clamps negatives; the pair in front of an average pool must stay."""
    text = """g (float[n, 8, 6, 6] x) => (float[n, 4, 1, 1] y) {
        q = QuantizeLinear(x, s, u) d = DequantizeLinear(q, s, u)
        a = GlobalAveragePool(d)
        p = QuantizeLinear(a, s, u) m = DequantizeLinear(p, s, u)
        wd = DequantizeLinear(w, sw) y = Conv(m, wd)
    }"""
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS | {"u": np.uint8(0)})
    _, deploy = convert_and_compare(path, feeds(), units=0)
    assert operators(deploy)[:3] == ["AscendQuant", "AscendAntiQuant", "GlobalAveragePool"]


def test_narrow_range_behind_data_movement_keeps_its_clamp(tmp_path: Path) -> None:
    text = """g (float[n, 8, 6, 6] x) => (float[n, 4, h, v] y) {
        q = QuantizeLinear(x, s, u) c = Clip(q, lo, hi) d = DequantizeLinear(c, s, u)
        m = MaxPool <kernel_shape = [2, 2]> (d)
        wd = DequantizeLinear(w, sw) y = Conv(m, wd)
    }"""
    constants = CONSTANTS | {"u": np.uint8(64), "lo": np.uint8(0), "hi": np.uint8(127)}
    path = write_model(tmp_path / "m.onnx", text, constants)
    _, deploy = convert_and_compare(path, feeds(), units=0)
    assert operators(deploy).count("AscendQuant") == 1 and "Clip" in operators(deploy)


@pytest.mark.parametrize("per_row", [False, True])
def test_layer_behind_a_table_of_dequantized_integers(per_row: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    constants = {
        "table": random.integers(0, 256, (20, 8)).astype(np.uint8),
        "s": np.linspace(0.05, 0.1, 20, dtype=np.float32) if per_row else np.float32(0.05),
        "w": random.integers(-127, 128, (8, 4)).astype(np.int8),
        "sw": np.float32(0.01),
    }
    text = f"""g (int64[n, 3] x) => (float[n, 3, 4] y) {{
        t = DequantizeLinear{" <axis = 0>" if per_row else ""}(table, s) d = Gather(t, x) v = DequantizeLinear(w, sw)
        y = MatMul(d, v)
    }}"""
    feeds = {"x": random.integers(0, 20, (2, 3))}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds, units=0)
    assert len(report.converted) == (not per_row)
    if per_row:
        assert "of the dequantized 't'" in report.layers[0].detail
