"""Every form in which a weight may reach its layer."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from amct_onnx import convert_qat_model
from support.deploy_evaluator import op_types
from support.written_models import Array, convert_and_compare, write_model

RNG = np.random.default_rng(0)
ACTIVATION = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"


def source(body: str, constants: dict[str, Array], folder: Path, *, opset: int = 17) -> Path:
    text = f"g (float[n, 6] x) => (float[n, 4] y) {{ {ACTIVATION} {body} }}"
    return write_model(folder / "m.onnx", text, {"s": np.float32(0.05), "z": np.int8(3)} | constants, opset=opset)


def feeds() -> dict[str, Array]:
    return {"x": np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)}


def int8_weights(deploy: onnx.ModelProto) -> list[Array]:
    return [a for t in deploy.graph.initializer if (a := numpy_helper.to_array(t)).dtype == np.int8]


INTEGERS = RNG.integers(-100, 101, (6, 4)).astype(np.int8)
SCALES = RNG.uniform(0.005, 0.02, 4).astype(np.float32)


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("e = DequantizeLinear <axis = 1> (w, sw) y = MatMul(d, e)", {"w": INTEGERS}),
        ("t = DequantizeLinear <axis = 0> (w, sw) e = Transpose(t) y = MatMul(d, e)", {"w": INTEGERS.T}),
        ("t = DequantizeLinear <axis = -1> (w, sw) e = Identity(t) y = MatMul(d, e)", {"w": INTEGERS}),
        (
            "t = DequantizeLinear <axis = 1> (w, sw) e = Reshape(t, two) y = MatMul(d, e)",
            {"w": INTEGERS.reshape(6, 4, 1), "two": np.array([6, 4])},
        ),
        (
            "t = DequantizeLinear <axis = 1> (w, sw) a = Squeeze(t, ax) e = Unsqueeze(a, ax) f = Squeeze(e, ax) "
            "y = MatMul(d, f)",
            {"w": INTEGERS.reshape(6, 4, 1), "ax": np.array([2])},
        ),
        ("p = QuantizeLinear <axis = 1> (w, sw, zw) e = DequantizeLinear <axis = 1> (p, sw, zw) y = MatMul(d, e)", {}),
    ],
    ids=["axis 1", "transposed", "negative axis", "reshaped", "squeezed", "float with Q/DQ"],
)
def test_forms_of_one_weight_give_the_same_integers(body: str, constants: dict[str, Array], tmp_path: Path) -> None:
    shared = {"sw": SCALES, "zw": np.zeros(4, np.int8), "w": (INTEGERS * SCALES).astype(np.float32)}
    used = {k: v for k, v in (shared | constants).items() if k in body}
    report, deploy = convert_and_compare(source(body, used, tmp_path), feeds(), units=0)
    assert len(report.converted) == 1
    assert np.array_equal(int8_weights(deploy)[0], INTEGERS)


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_weight_that_a_cast_makes_float32(kind: type[np.generic], tmp_path: Path) -> None:
    """onnxruntime takes no array of bfloat16, numpy casts it alike."""
    path = source(
        "f = Cast <to = 1> (w) p = QuantizeLinear(f, sw, zw) e = DequantizeLinear(p, sw, zw) y = MatMul(d, e)",
        {"w": (INTEGERS * 0.01).astype(kind), "sw": np.float32(0.01), "zw": np.int8(0)},
        tmp_path,
    )
    _, deploy = convert_and_compare(path, feeds(), units=0)
    stored = (INTEGERS * 0.01).astype(kind).astype(np.float32)
    assert np.array_equal(int8_weights(deploy)[0], np.rint(stored / np.float32(0.01)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scale", "bias", "reason"),
    [
        (np.float32(1e-20), np.float32(0), None),
        (np.float32(1e-20), np.float32(3e38), None),
        (np.array([1e35, 1, 1, 1], np.float32), np.float32(0), None),
        (np.array([1e36, 1, 1, 1], np.float32), np.float32(0), "deq-scale-range"),
    ],
    ids=["quotient", "bias", "largest ratio", "ratio"],
)
def test_overflow_saturates_or_is_refused_without_a_warning(
    scale: Array, bias: np.float32, reason: str | None, tmp_path: Path
) -> None:
    """The ratio of a per-channel MatMul is 2^14 times its scale; as infinity it stood in the deploy model."""
    floats = np.linspace(-3e38, 3e38, 24, dtype=np.float32).reshape(6, 4)
    axis = "<axis = 1>" if scale.ndim else ""
    body = (
        f"p = QuantizeLinear {axis} (w, sw, zw) e = DequantizeLinear {axis} (p, sw, zw) t = MatMul(d, e) y = Add(t, b)"
    )
    constants = {"w": floats, "sw": scale, "zw": np.zeros(scale.shape, np.int8), "b": np.full(4, bias)}
    report = convert_qat_model(source(body, constants, tmp_path), tmp_path / "out" / "m")
    assert report.layers[0].reason == reason
    if reason is None:
        (integers,) = int8_weights(onnx.load(report.deploy_model))
        assert {int(v) for v in integers[:, -1]} == {-128, 127}


def test_asymmetric_weight_that_fits_int8_is_moved_exactly(tmp_path: Path) -> None:
    weight = RNG.integers(20, 250, (6, 4)).astype(np.uint8)
    constants = {"w": weight, "sw": np.float32(0.01), "zw": np.uint8(140)}
    body = "e = DequantizeLinear(w, sw, zw) y = MatMul(d, e)"
    report, deploy = convert_and_compare(source(body, constants, tmp_path), feeds(), units=0)
    assert "asymmetric" in report.converted[0].detail
    assert np.array_equal(int8_weights(deploy)[0], weight.astype(np.int16) - 140)


def test_asymmetric_weight_beyond_int8_is_refused_with_its_range(tmp_path: Path) -> None:
    weight = np.array([0, 255, 3, 4] * 6, np.uint8).reshape(6, 4)
    constants = {"w": weight, "sw": np.float32(0.01), "zw": np.uint8(100)}
    body = "e = DequantizeLinear(w, sw, zw) y = MatMul(d, e)"
    report, _ = convert_and_compare(source(body, constants, tmp_path), feeds(), units=0)
    assert report.refused[0].reason == "weight-asymmetric" and "from -100 to 155" in report.refused[0].detail


def test_the_weight_of_a_written_out_operator_has_the_name_of_the_users_tensor(tmp_path: Path) -> None:
    weight = np.array([0, 255, 3, 4] * 6, np.uint8).reshape(6, 4)
    text = """g (float[n, 6] x) => (float[n, 4] y) {
        q = QuantizeLinear(x, s, z) m = QLinearMatMul(q, s, z, theirs, s, zw, s, z) y = DequantizeLinear(m, s, z)
    }"""
    constants = {"s": np.float32(0.05), "z": np.uint8(3), "theirs": weight, "zw": np.uint8(100)}
    path = write_model(tmp_path / "m.onnx", text, constants)
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert report.refused[0].detail.startswith("its weight 'theirs' is asymmetric")


def test_tied_weight_is_int8_where_its_scales_are_output_channels(tmp_path: Path) -> None:
    text = f"""g (float[n, 6] x, float[n, 4] u) => (float[n, 4] y, float[n, 6] v) {{
        {ACTIVATION}
        e = DequantizeLinear <axis = 1> (w, sw)
        y = MatMul(d, e)
        p = QuantizeLinear(u, s, z) r = DequantizeLinear(p, s, z)
        t = Transpose(e)
        v = MatMul(r, t)
    }}"""
    constants = {"s": np.float32(0.05), "z": np.int8(3), "w": INTEGERS, "sw": SCALES}
    path = write_model(tmp_path / "m.onnx", text, constants)
    inputs = feeds() | {"u": RNG.normal(size=(5, 4)).astype(np.float32)}
    report, _ = convert_and_compare(path, inputs, units=0)
    assert len(report.converted) == 1 and [e.reason for e in report.refused] == ["weight-axis"]


def test_layers_that_share_a_weight_share_one_initializer(tmp_path: Path) -> None:
    body = "e = DequantizeLinear <axis = 1> (w, sw) a = MatMul(d, e) b = MatMul(d, e) y = Add(a, b)"
    report, deploy = convert_and_compare(source(body, {"w": INTEGERS, "sw": SCALES}, tmp_path), feeds(), units=0)
    assert len(report.converted) == 2 and len(int8_weights(deploy)) == 1


def test_blockwise_weight_is_refused_and_stays_right(tmp_path: Path) -> None:
    body = "e = DequantizeLinear <axis = 0, block_size = 2> (w, sw) y = MatMul(d, e)"
    constants = {"w": INTEGERS, "sw": RNG.uniform(0.005, 0.02, (3, 4)).astype(np.float32)}
    report, deploy = convert_and_compare(source(body, constants, tmp_path, opset=21), feeds(), units=0)
    assert report.refused[0].reason == "weight-blockwise"
    assert op_types(deploy.graph.node) == {"AscendQuant", "AscendAntiQuant", "MatMul"}


def test_float_weight_on_a_grid_is_recovered_or_left(tmp_path: Path) -> None:
    body = "y = MatMul(d, w)"
    constants = {"w": (INTEGERS * SCALES).astype(np.float32)}
    report, deploy = convert_and_compare(source(body, constants, tmp_path), feeds(), units=0)
    assert "recovered" in report.converted[0].detail
    restored = int8_weights(deploy)[0] * np.asarray(report.converted[0].scale_w, np.float32)
    # one rounding of s * q, and s itself is recovered to within 2^-24
    np.testing.assert_allclose(restored, constants["w"], rtol=2.0**-22, atol=0)
    left, _ = convert_and_compare(source(body, constants, tmp_path), feeds(), units=0, grid_weights=False)
    assert left.refused[0].reason == "weight-not-quantized"


@pytest.mark.parametrize("dead", [0.0, 1e-20, 1e30])
@pytest.mark.parametrize("stored", [False, True], ids=["float bias", "int32 bias"])
def test_dead_channel_keeps_its_bias_under_any_scale(dead: float, stored: bool, tmp_path: Path) -> None:
    scales = SCALES.copy()
    scales[2] = dead
    bias = np.array([100, -50, 0, 7], np.int32)
    step = (scales * np.float32(0.05)).astype(np.float32)
    constants = {"w": INTEGERS * np.array([1, 1, 0, 1], np.int8), "sw": scales}
    constants |= {"b": bias, "sb": step} if stored else {"b": np.array([0.3, -0.2, 0.56, 0.1], np.float32)}
    bias_node = "c = DequantizeLinear <axis = 0> (b, sb)" if stored else "c = Identity(b)"
    body = f"e = DequantizeLinear <axis = 1> (w, sw) {bias_node} y = Gemm(d, e, c)"
    # half a step of the largest scale of a living channel
    report, _ = convert_and_compare(source(body, constants, tmp_path), feeds(), units=0.05 * 0.02 / 2)
    assert len(report.converted) == 1


ODD = {
    "negative, dead": (-0.1, 0, 1, ""),
    "negative, alive": (-0.1, 5, 0, r"is -0\.1.* not all 0"),
    "not a number": (np.nan, 0, 0, "is nan"),
}


@pytest.mark.parametrize(("scale", "integer", "int8", "why"), ODD.values(), ids=ODD)
def test_an_odd_scale_costs_its_layer_at_most(scale: float, integer: int, int8: int, why: str, tmp_path: Path) -> None:
    """A dead channel allows any number as its scale, but NaN, which makes the source's own channel NaN."""
    weight, scales = INTEGERS.copy(), SCALES.copy()
    weight[:, 2], scales[2] = integer, scale
    path = source("e = DequantizeLinear <axis = 1> (w, sw) y = MatMul(d, e)", {"w": weight, "sw": scales}, tmp_path)
    if np.isfinite(scale):
        report, _ = convert_and_compare(path, feeds(), units=0)
    else:
        report = convert_qat_model(path, tmp_path / "out")
    assert len(report.converted) == int8
    assert not why or (report.refused[0].reason == "weight-scale" and re.search(why, report.refused[0].detail))
