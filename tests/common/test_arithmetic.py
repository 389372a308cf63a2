"""arithmetic.py against exact rational arithmetic.

``float32_of`` rounds a rational number to float32 with integers alone (round half to even, gradual underflow), so that
nothing of numpy's floating point takes part in the expected values.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amct_onnx.common import arithmetic
from amct_onnx.common.arithmetic import QuantizationScratch as Scratch
from support.example_counts import examples

SETTINGS = settings(max_examples=examples(150), derandomize=True, deadline=None, database=None)
LARGEST = (2 - Fraction(1, 2**23)) * 2**127

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
subnormals = st.floats(min_value=-(2.0**-126), max_value=2.0**-126, width=32)
scales = st.one_of(
    st.floats(min_value=2.0**-60, max_value=2.0**60, width=32),
    st.floats(min_value=2.0**-149, max_value=2.0**-120, width=32),
    st.sampled_from([2.0**-k for k in range(-4, 20)]),
).filter(lambda s: s > 0)


def half_even(number: Fraction) -> int:
    """Nearest integer, a tie to the even one."""
    below = math.floor(number)
    rest = number - below
    if rest == Fraction(1, 2):
        return below + below % 2
    return below + (rest > Fraction(1, 2))


def float32_of(number: Fraction) -> Fraction | float:
    """The float32 next to a rational; infinity beyond the largest."""
    if number == 0:
        return Fraction(0)
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** (max(exponent, -126) - 23)
    rounded = half_even(size / step) * step
    if rounded > LARGEST:
        return math.copysign(math.inf, number)
    return rounded if number > 0 else -rounded


def exact(number: float | np.floating) -> Fraction:
    return Fraction(float(number))


def test_the_reference_rounding_itself() -> None:
    assert [half_even(Fraction(n, 2)) for n in (-5, -3, -1, 1, 3, 5)] == [-2, -2, 0, 0, 2, 2]
    assert float32_of(Fraction(1, 3)) == Fraction(11184811, 2**25)
    assert float32_of(Fraction(1, 2**150)) == 0
    assert float32_of(Fraction(3, 2**151)) == Fraction(1, 2**149)
    assert float32_of(Fraction(2) ** 128) == math.inf
    assert float32_of(LARGEST) == LARGEST


@SETTINGS
@given(scales)
def test_reciprocal_is_the_rounded_quotient(scale: float) -> None:
    found = arithmetic.reciprocal(np.float32(scale))
    assert found.dtype == np.float32
    expected = float32_of(1 / exact(scale))
    assert (math.isinf(expected) and math.isinf(found)) or exact(found) == expected


@SETTINGS
@given(st.one_of(floats, subnormals), scales, st.integers(-256, 0), st.integers(0, 255))
def test_quantize_is_division_in_float32_then_half_even(value: float, scale: float, low: int, high: int) -> None:
    with np.errstate(over="ignore"):
        found = arithmetic.quantize_weight(
            np.asarray([value], np.float32), np.float32(scale), low, high, Scratch(np.int16)
        )
    assert found.dtype == np.int16
    ratio = float32_of(exact(value) / exact(scale))
    rounded = half_even(Fraction(ratio)) if math.isfinite(ratio) else math.inf * ratio
    assert found.item() == max(low, min(high, rounded))


@SETTINGS
@given(st.integers(-300, 300), st.integers(-30, 30))
def test_quantize_ties_go_to_the_even_integer(doubled: int, exponent: int) -> None:
    """(n / 2) * 2^e over 2^e is an exact tie for odd n."""
    value = np.asarray([math.ldexp(doubled, exponent - 1)], np.float32)
    found = arithmetic.quantize_weight(value, np.float32(2.0**exponent), -256, 255, Scratch(np.int16))
    assert found.item() == half_even(Fraction(doubled, 2))


@SETTINGS
@given(st.integers(-128, 127), st.integers(-128, 127), scales.filter(lambda s: 2.0**-60 <= s <= 2.0**60))
def test_values_on_the_grid_keep_their_integer(integer: int, zero: int, scale: float) -> None:
    """By division and by the reciprocal of AscendQuant: two roundings of 2^-24 each stay far below half a step."""
    value = np.float32(integer - zero) * np.float32(scale)
    found = arithmetic.quantize_weight(np.asarray([value]), np.float32(scale), -256, 255, Scratch(np.int16))
    assert found.item() == integer - zero
    assert np.rint(value * arithmetic.reciprocal(np.float32(scale))) + zero == integer


@SETTINGS
@given(
    hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-50, 50, width=32)),
    st.integers(0, 2),
    st.lists(st.floats(min_value=2.0**-10, max_value=2, width=32), min_size=4, max_size=4),
)
def test_quantize_per_channel_uses_each_channels_own_factors(array: np.ndarray, axis: int, values: list[float]) -> None:
    count = array.shape[axis]
    scale, zero = np.asarray(values[:count], np.float32), np.arange(count) - 1
    layout = [1, 1, 1]
    layout[axis] = count
    low, high = (limit - zero.reshape(layout) for limit in (-128, 127))
    found = arithmetic.quantize_weight(array, scale.reshape(layout), low, high, Scratch(np.int16))
    assert found.shape == array.shape
    for index in np.ndindex(array.shape):
        channel = index[axis]
        ratio = float32_of(exact(array[index]) / exact(scale[channel]))
        saturated = max(-128, min(127, half_even(Fraction(ratio)) + int(zero[channel])))
        assert found[index] == saturated - zero[channel]


@SETTINGS
@given(hnp.arrays(np.float32, (3, 2), elements=floats))
def test_quantize_leaves_its_argument_alone(array: np.ndarray) -> None:
    before = array.copy()
    with np.errstate(over="ignore"):
        arithmetic.quantize_weight(array, np.float32(0.5), -128, 127, Scratch(np.int8))
    assert array.tobytes() == before.tobytes()


@SETTINGS
@given(scales, st.lists(scales, min_size=1, max_size=5))
def test_deq_scale_is_the_rounded_product(scale_d: float, scale_w: list[float]) -> None:
    with np.errstate(over="ignore", under="ignore"):
        found = arithmetic.dequantize_scale(np.float32(scale_d), np.asarray(scale_w, np.float32))
    assert found.dtype == np.float32 and found.shape == (len(scale_w),)
    for value, weight in zip(found, scale_w, strict=True):
        expected = float32_of(exact(scale_d) * exact(weight))
        assert (math.isinf(expected) and math.isinf(value)) or exact(value) == expected


@SETTINGS
@given(
    st.lists(floats, min_size=1, max_size=5),
    st.lists(st.floats(min_value=2.0**-40, max_value=2.0**20, width=32), min_size=5, max_size=5),
    st.booleans(),
)
def test_bias_is_division_in_float32_then_half_even(bias: list[float], scale: list[float], one: bool) -> None:
    values = np.asarray(bias, np.float32)
    deq_scale = np.asarray(scale[: 1 if one else len(bias)], np.float32)
    with np.errstate(over="ignore"):
        found = arithmetic.bias_integers(values, deq_scale)
    assert found.dtype == np.float64
    for index, value in enumerate(values):
        ratio = float32_of(exact(value) / exact(deq_scale[0 if one else index]))
        assert found[index] == (ratio if math.isinf(ratio) else half_even(Fraction(ratio)))


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (2.0**31, 2**31),
        (2.0**31 - 128, 2**31 - 128),
        (-(2.0**31), -(2**31)),
        (-(2.0**31) - 256, -(2**31) - 256),
        (2.0**100, 2**100),
        (0.5, 0),
        (1.5, 2),
        (-0.5, 0),
        (-2.5, -2),
        (2.0**-149, 0),
    ],
)
def test_bias_beyond_int32_stays_visible(bias: float, expected: int) -> None:
    found = arithmetic.bias_integers(np.asarray([bias], np.float32), np.asarray([1], np.float32)).item()
    assert int(found) == found == expected
    inside = arithmetic.INT32_MIN <= expected <= arithmetic.INT32_MAX
    assert (arithmetic.INT32_MIN <= found <= arithmetic.INT32_MAX) == inside


@SETTINGS
@given(st.lists(floats, min_size=1, max_size=6))
def test_pack_deq_scale_holds_the_float_bits_below_and_zero_above(values: list[float]) -> None:
    packed = arithmetic.pack_deq_scale(np.asarray(values, np.float32))
    assert packed.dtype == np.uint64 and packed.shape == (len(values),)
    for word, value in zip(packed.tolist(), values, strict=True):
        assert word == int.from_bytes(struct.pack("<f", value), "little") < 2**32


@pytest.mark.parametrize("layout", [slice(None, None, 2), slice(None, None, -1)])
def test_pack_deq_scale_of_a_view(layout: slice) -> None:
    values = np.asarray([1, 2, 0.5, 3], np.float32)
    assert (
        arithmetic.pack_deq_scale(values[layout]).tolist() == arithmetic.pack_deq_scale(values[layout].copy()).tolist()
    )


@SETTINGS
@given(st.integers(-(2**31), 2**31 - 1), st.floats(min_value=2.0**-20, max_value=2.0**4, width=32))
def test_the_common_scale_of_a_per_channel_product_adds_no_rounding(accumulator: int, deq_scale: float) -> None:
    """float32(acc) * 2^-14 * (deq / 2^-14) has the bits of float32(acc) * deq."""
    common = np.float32(arithmetic.COMMON_DEQUANT_SCALE)
    wide = np.float32(accumulator)
    ratio = np.float32(deq_scale) / common
    assert exact(ratio) == exact(np.float32(deq_scale)) / exact(common)
    assert (wide * common * ratio).tobytes() == (wide * np.float32(deq_scale)).tobytes()
    # float16 on the device: the smallest result is normal, overflow begins beyond 2^29
    assert np.float16(common) == np.finfo(np.float16).tiny
    if abs(accumulator) <= 2**29:
        assert np.isfinite(np.float16(wide * common))
