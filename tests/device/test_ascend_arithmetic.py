"""The lowered operators against the pure functions bit for bit, and the pure functions against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper

from amct_onnx.device import ascend_arithmetic as arithmetic
from amct_onnx.device.profiles import PROFILES
from support.device_models import F16, F32, I8, I32, antiquant, deploy_session, dequant, model, packed, quant
from support.example_counts import examples

DEVICES = sorted(PROFILES)
OFFSETS = st.integers(-128, 127)
# scales of the whole float32 range, most of them where trained models have them
SCALES = st.one_of(
    st.floats(2**-10, 2**10, width=32),
    st.floats(2**-30, 2**30, width=32),
    st.sampled_from([1.0, 0.25, 2**-14, 2**-15, 65504.0, 65536.0, 1.5e-45, 3.4e38]),
)
BITS = arrays(np.uint32, st.integers(1, 40))
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 2**-25, 6e-8, 65504, 65520, -65520, 3.4e38, -3.4e38, 2**24 + 1],
    np.float32,
)
HARD = settings(max_examples=examples(30), derandomize=True, deadline=None, database=None)


def inputs_for(bits: np.ndarray, scale: float) -> np.ndarray:
    """Any float32 there is, special values, and ties and saturation at this scale."""
    with np.errstate(all="ignore"):
        grid = (np.arange(-300, 300, dtype=np.float32) / np.float32(2)) / np.float32(scale)
    near = np.concatenate([grid, np.nextafter(grid, np.float32(0)), np.nextafter(grid, np.float32(np.inf))])
    return np.concatenate([bits.view(np.float32), SPECIAL, near]).astype(np.float32)


def same_bits(ours: np.ndarray, expected: np.ndarray) -> None:
    """Equal, the sign of zero included; a NaN equals any NaN."""
    assert ours.dtype == expected.dtype and ours.shape == expected.shape
    wrong = (ours.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(ours) & np.isnan(expected))
    assert not wrong.any(), (ours[wrong], expected[wrong])


@pytest.mark.parametrize("device", DEVICES)
@HARD
@given(bits=BITS, scale=SCALES, offset=OFFSETS, sqrt_mode=st.booleans())
@example(bits=np.zeros(1, np.uint32), scale=0.25, offset=37, sqrt_mode=False)
@example(bits=np.zeros(1, np.uint32), scale=0.25, offset=-128, sqrt_mode=False)
def test_quant(device: str, bits: np.ndarray, scale: float, offset: int, sqrt_mode: bool) -> None:
    x = inputs_for(bits, scale)
    node = quant("x", "y", scale, offset, sqrt_mode=int(sqrt_mode))
    (q,) = deploy_session(model([node], {"x": (F32, [None])}, {"y": I8}), device=device).run(None, {"x": x})
    expected = PROFILES[device].quantize(x, scale, offset, sqrt_mode)
    assert np.array_equal(q, np.nan_to_num(expected).astype(np.int8))
    assert np.array_equal(np.isnan(expected), np.isnan(x) | np.isnan(expected))


@pytest.mark.parametrize("device", DEVICES)
@HARD
@given(acc=arrays(np.int32, st.integers(1, 60)), scale=SCALES, sqrt_mode=st.booleans(), relu=st.booleans())
@example(acc=np.array([2**24 + 1, 2**31 - 1, -(2**31), 0, 1], np.int32), scale=1e-5, sqrt_mode=False, relu=False)
@example(acc=np.array([2**31 - 1, -(2**31)], np.int32), scale=1.0, sqrt_mode=False, relu=False)
@example(acc=np.array([-1, 0, 1], np.int32), scale=2**-30, sqrt_mode=True, relu=True)
def test_dequant(device: str, acc: np.ndarray, scale: float, sqrt_mode: bool, relu: bool) -> None:
    node = dequant("x", "y", sqrt_mode=int(sqrt_mode), relu_flag=int(relu))
    content = model([node], {"x": (I32, [None])}, {"y": F32}, {"deq": packed(scale)})
    (y,) = deploy_session(content, device=device).run(None, {"x": acc})
    expected = PROFILES[device].dequantize(acc, np.float32(scale), sqrt_mode, relu)
    assert y.tobytes() == expected.tobytes()


@pytest.mark.parametrize("device", DEVICES)
@HARD
@given(scale=SCALES, offset=OFFSETS, other=OFFSETS, sqrt_mode=st.booleans())
def test_antiquant(device: str, scale: float, offset: int, other: int, sqrt_mode: bool) -> None:
    q = np.arange(-128, 128).astype(np.int8)
    node = antiquant("x", "y", scale, offset, sqrt_mode=int(sqrt_mode))
    content = model([node], {"x": (I8, [None])}, {"y": F32})
    (y,) = deploy_session(content, device=device).run(None, {"x": q})
    same_bits(y, PROFILES[device].antiquantize(q, scale, offset, sqrt_mode))
    # behind an AscendQuant whose offset may be another one
    nodes = [quant("x", "q", 1.0, other), antiquant("q", "y", scale, offset, sqrt_mode=int(sqrt_mode))]
    x = np.linspace(-300, 300, 1201, dtype=np.float32)
    (y,) = deploy_session(model(nodes, {"x": (F32, [None])}, {"y": F32}), device=device).run(None, {"x": x})
    q = PROFILES[device].quantize(x, 1.0, other).astype(np.int8)
    same_bits(y, PROFILES[device].antiquantize(q, scale, offset, sqrt_mode))


@pytest.mark.parametrize("device", DEVICES)
@HARD
@given(bits=arrays(np.uint16, st.integers(1, 40)), scale=SCALES, offset=OFFSETS)
def test_quant_of_float16(device: str, bits: np.ndarray, scale: float, offset: int) -> None:
    """Any float16 there is, between float16 operators."""
    x = np.concatenate([bits.view(np.float16), arithmetic.half(inputs_for(np.zeros(0, np.uint32), scale))], dtype="f2")
    nodes = [quant("x", "q", scale, offset), antiquant("q", "y", 0.37, offset, dtype=1)]
    (y,) = deploy_session(model(nodes, {"x": (F16, [None])}, {"y": F16}), device=device).run(None, {"x": x})
    q = PROFILES[device].quantize(x, scale, offset)
    known = ~np.isnan(q)
    expected = PROFILES[device].antiquantize(q[known].astype(np.int8), 0.37, offset).astype(np.float16)
    assert y.dtype == np.float16 and y[known].tobytes() == expected.tobytes() and np.isnan(y[~known]).all()


@pytest.mark.parametrize("device", DEVICES)
@HARD
@given(
    acc=arrays(np.int32, st.tuples(st.integers(1, 8), st.just(3)), elements=st.integers(-127, 127)),
    scales=st.lists(SCALES, min_size=3, max_size=3),
    shift=st.sampled_from([0, 5]),
)
def test_dequant_by_channel(device: str, acc: np.ndarray, scales: list[float], shift: int) -> None:
    """One small scale may change how all are applied; a shift N changes nothing; the result may be float16."""
    layer = helper.make_node("MatMul", ["q", "w"], ["m"], "layer")
    nodes = [layer, dequant("m", "y"), dequant("m", "z", dtype=1)]
    constants = {"w": np.diag([1, -1, 127]).astype(np.int8), "deq": packed(scales, shift=shift)}
    content = model(nodes, {"q": (I8, [None, 3])}, {"y": F32, "z": F16}, constants)
    session = deploy_session(content, device=device)
    assert any("shift N" in w for w in session.warnings) == (shift > 0)
    y, z = session.run(None, {"q": acc.astype(np.int8)})
    expected = PROFILES[device].dequantize(acc * np.array([1, -1, 127], np.int32), np.array(scales, np.float32))
    assert y.tobytes() == expected.tobytes()
    with np.errstate(over="ignore"):
        assert z.dtype == np.float16 and z.tobytes() == expected.astype(np.float16).tobytes()


def rounded_half(values: np.ndarray) -> np.ndarray:
    """One rounding from float64, which holds products and sums of two float16 exactly."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float64)


@HARD
@given(bits=BITS, scale=st.floats(2**-14, 65504, width=32), offset=OFFSETS)
def test_float16_chain_rounds_once_a_step(bits: np.ndarray, scale: float, offset: int) -> None:
    x = inputs_for(bits, scale)
    with np.errstate(invalid="ignore", over="ignore"):
        value = rounded_half(rounded_half(x) * rounded_half(np.array(scale)))
        value = np.clip(np.rint(rounded_half(value + offset)), -128, 127)
    assert np.array_equal(arithmetic.quantize_float16(x, scale, offset), value, equal_nan=True)


@HARD
@given(bits=arrays(np.uint32, 20))
def test_s19_keeps_ten_mantissa_bits(bits: np.ndarray) -> None:
    scale = bits.view(np.float32)
    scale = np.abs(scale[np.isfinite(scale) & (np.abs(scale) >= 2**-126)])
    kept = arithmetic.s19_scale(scale)
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    assert np.array_equal(kept, np.ldexp(np.floor(mantissa * 2**11) / 2**11, exponent))


def test_rounding_order_differs_at_a_tie_with_an_odd_offset() -> None:
    tie = np.array([0.5, 1.5], np.float32)
    assert arithmetic.quantize_float32(tie, 1.0, 1).tolist() == [1, 3]
    assert arithmetic.quantize_float32_offset_first(tie, 1.0, 1).tolist() == [2, 2]
    assert arithmetic.quantize_float16(tie, 1.0, 1).tolist() == [2, 2]


def test_a_device_clamps_and_rounds_to_float16() -> None:
    acc, scale = np.array([2**30, -(2**30), 4097], np.int32), np.array(1 + 2**-12, np.float32)
    assert arithmetic.dequantize_fixpipe(acc, scale).tolist() == [65504, -65504, 4096]
    assert arithmetic.dequantize_vector(acc, scale).tolist() == [65504, -65504, 4096]
    assert arithmetic.dequantize_float32(acc[2:], scale).tolist() == [4098]
    # 1.00024 is cut to 1 on the fixed pipe and kept on 310P
    many = np.array([2047], np.int32)
    wide = np.float32(1 + 2**-10 - 2**-20)
    assert arithmetic.dequantize_fixpipe(many, wide).tolist() == [2047]
    assert arithmetic.dequantize_vector(many, wide).tolist() == [2048]


def test_small_scales_become_roots_on_the_310() -> None:
    factor, sqrt_mode = arithmetic.float16_scale(np.array([1.0, 2**-16], np.float32))
    assert sqrt_mode and factor.tolist() == [1, 2**-8]
    assert arithmetic.float16_scale(np.array([2**-14], np.float32)) == (np.float32(2**-14), False)


def test_fields_of_the_packed_scale() -> None:
    scale, shift, offset = arithmetic.unpack_deq_scale(packed([0.5, 3.0], shift=9, offset_w=-3))
    assert (scale.tolist(), shift.tolist(), offset.tolist()) == ([0.5, 3.0], [9, 9], [-3, -3])
