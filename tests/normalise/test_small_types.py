"""float8 and integers of 4 and 2 bits in one corner of a model: their layer stays float, the others become int8."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amct_onnx import UnsupportedModelError, convert_qat_model
from support.corner_models import (
    E4M3,
    E5M2,
    FEEDS,
    INT4,
    INT8,
    INT16,
    UINT16,
    activation,
    model_with,
    quantized,
    weight,
)
from support.written_models import convert_and_compare

REFUSED = {
    "float8": (activation(E4M3), "quantizer-not-integer", "'f' is quantized to FLOAT8E4M3FN"),
    "float8 per channel": (activation(E4M3, "v", "axis = 1"), "activation-per-channel", "'f' is quantized per channel"),
    "float8 and Relu": (
        activation(E5M2, behind="e = Relu(f)"),
        "quantizer-not-integer",
        "'e' is quantized to FLOAT8E5M2",
    ),
    "float8, moved": (
        activation(E5M2, between="j = Reshape(i, shape)"),
        "quantizer-not-integer",
        "'f' is quantized to FLOAT8E5M2",
    ),
    "float8 as two Casts": (
        f"i = Cast <to = {E4M3}> (y) f = Cast <to = 1> (i) m = MatMul(f, wd)",
        "quantizer-not-integer",
        "'f' is quantized",
    ),
    "int16, moved": (activation(INT16, between="j = Reshape(i, shape)"), "activation-16-bit", "'f' is quantized to 16"),
    "per channel and Relu": (
        activation(INT4, "v", "axis = 1", behind="e = Relu(f)"),
        "activation-per-channel",
        "Relu '.*' of 'f', which is",
    ),
    "blocks": (
        activation(INT8, "b", "axis = 0, block_size = 1"),
        "activation-blockwise",
        "one scale per block of 1 elements",
    ),
    "blocks of uint16": (
        activation(UINT16, "k", "axis = 0, block_size = 2")
        .replace("y,", "y8,")
        .replace("i =", "y8 = Concat <axis = 0> (y, y, y, y) i =", 1),
        "activation-blockwise",
        "one scale per block of 2 elements",
    ),
    "weight of float8": (quantized(E4M3, "s"), "weight-type", "'u' is of type FLOAT8E4M3FN"),
    "stored weight of float8": (weight("u = DequantizeLinear(float8s, s)"), "weight-type", "of type FLOAT8E4M3FN"),
    "stored weight of float8, moved": (
        weight("i = Transpose(float8s) u = DequantizeLinear(i, s)"),
        "weight-type",
        "of type FLOAT8E4M3FN",
    ),
    "stored weight of float8 behind a Cast": (
        weight("u = Cast <to = 1> (float8s)"),
        "weight-type",
        "of type FLOAT8E4M3FN",
    ),
    "weight of int4 in blocks": (
        quantized(INT4, "k", "axis = 0, block_size = 2"),
        "weight-blockwise",
        "per block of 2",
    ),
}
CONVERTED = {
    "int4": activation(INT4),
    "int8, stated by the attribute and moved": activation(INT8, between="j = Reshape(i, shape)"),
    "weight of int4": quantized(INT4, "s4"),
    "weight of int4 per channel": quantized(INT4, "v", "axis = 1"),
    "stored weight of int4, moved": weight("i = Transpose(int4s) u = DequantizeLinear <axis = 1> (i, v)"),
    "stored weight of int4 behind a Cast": weight("u = Cast <to = 1> (int4s)"),
}


@pytest.mark.parametrize(("corner", "reason", "detail"), REFUSED.values(), ids=REFUSED)
def test_the_layer_is_refused_and_the_others_are_not(corner: str, reason: str, detail: str, tmp_path: Path) -> None:
    report, _ = convert_and_compare(model_with(corner, tmp_path), FEEDS, units=0)
    assert len(report.converted) == 2
    (refused,) = report.refused
    assert refused.reason == reason
    assert re.search(detail, refused.detail)


@pytest.mark.parametrize("corner", CONVERTED.values(), ids=CONVERTED)
def test_integers_of_4_bits_widen(corner: str, tmp_path: Path) -> None:
    report, _ = convert_and_compare(model_with(corner, tmp_path), FEEDS, units=0)
    assert len(report.converted) == 3


def test_a_cast_that_may_wrap_is_refused_by_name(tmp_path: Path) -> None:
    """ONNX does not say what becomes of floats that int4 does not hold."""
    corner = f"i = Cast <to = {INT4}> (y) m = Cast <to = 1> (i)"
    with pytest.raises(UnsupportedModelError, match=r"makes 'i': operator Cast .* type INT4 does not exist there"):
        convert_qat_model(model_with(corner, tmp_path), tmp_path / "out")


def test_a_cast_of_integers_that_it_holds_widens(tmp_path: Path) -> None:
    bounds = "lo = Constant <value_float = -8.0> () hi = Constant <value_float = 7.0> ()"
    rounded = "r = Round(y) c = Clip(r, lo, hi)"
    corner = f"{bounds} {rounded} i = Cast <to = {INT4}> (c) f = Cast <to = 1> (i) m = MatMul(f, wd)"
    report, _ = convert_and_compare(model_with(corner, tmp_path), FEEDS, units=0)
    assert len(report.converted) == 3
