"""Integers that no AscendQuant gives: at a graph output, for other readers, between unequal factors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx import UnsupportedModelError, convert_qat_model
from support.corner_models import CONSTANTS, E4M3, FEEDS, FIRST, LAST, model_with
from support.written_models import convert_and_compare, write_model

FACTORS = {
    **CONSTANTS,
    **{"s2": np.float32(0.1), "z3": np.int8(3), "u0": np.linspace(0, 200, 8).astype(np.uint8)},
}
LEAVES = {
    "per channel": ("o = QuantizeLinear <axis = 1> (y, v, u0)", "uint8[n, 8] o"),
    "blocks": ("o = QuantizeLinear <axis = 0, block_size = 1, output_dtype = 3> (y, b)", "int8[2, 8] o"),
    "uint16": ("o = QuantizeLinear <output_dtype = 4> (y, s)", "uint16[n, 8] o"),
    "moved, per channel": (
        "i = QuantizeLinear <axis = 1> (y, v, u0) o = Transpose <perm = [1, 0]> (i)",
        "uint8[8, n] o",
    ),
    "cast, per channel": ("i = QuantizeLinear <axis = 1> (y, v, u0) o = Cast <to = 1> (i)", "float[n, 8] o"),
    "measured": ("i = QuantizeLinear <axis = 1> (y, v, u0) o = Shape(i)", "int64[2] o"),
    "a pair beside it": (
        "i = QuantizeLinear <axis = 1> (y, v, u0) f = DequantizeLinear <axis = 1> (i, v, u0) o = Identity(i) "
        "r = Relu(f)",
        "uint8[n, 8] o, float[n, 8] r",
    ),
}


@pytest.mark.parametrize(("nodes", "outputs"), LEAVES.values(), ids=LEAVES)
def test_integers_are_those_of_the_source(nodes: str, outputs: str, tmp_path: Path) -> None:
    text = f"g (float[2, 8] x) => ({outputs}) {{ {FIRST} {nodes} }}"
    source = write_model(tmp_path / "m.onnx", text, FACTORS, opset=21)
    report, _ = convert_and_compare(source, FEEDS, units=0)
    assert len(report.converted) == len(report.layers) == 1


UNEQUAL = {
    "scale": ("i = QuantizeLinear(y, s, z) f = DequantizeLinear(i, s2, z)", 3),
    "zero point": ("i = QuantizeLinear(y, s, z) f = DequantizeLinear(i, s, z3)", 3),
    "both, clipped": ("i = QuantizeLinear(y, s, z) c = Clip(i, z, z3) f = DequantizeLinear(c, s2, z3)", 3),
    "both, moved": ("i = QuantizeLinear(y, s, z) c = Reshape(i, shape) f = DequantizeLinear(c, s2, z3)", 3),
    "granularity": ("i = QuantizeLinear <axis = 1, output_dtype = 3> (y, v) f = DequantizeLinear(i, s)", 3),
    "axis": (
        "i = QuantizeLinear <axis = 1, output_dtype = 3> (y, v) h = Transpose <perm = [1, 0]> (i) "
        "d8 = DequantizeLinear <axis = 0> (h, v) f = Transpose <perm = [1, 0]> (d8)",
        2,
    ),
}


@pytest.mark.parametrize("kind", UNEQUAL)
def test_a_pair_of_unequal_factors_uses_both(kind: str, tmp_path: Path) -> None:
    """Quantized with the first, dequantized with the second; a layer of 8 bits and one scale behind it is int8."""
    nodes, int8 = UNEQUAL[kind]
    text = f"g (float[2, 8] x) => (float[n, k] o) {{ {FIRST} {nodes} m = MatMul(f, wd) {LAST} }}"
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, FACTORS, opset=21), FEEDS, units=0)
    assert (len(report.converted), len(report.layers)) == (int8, 3)
    (warning,) = report.warnings
    assert "quantize with the first and dequantize with the second" in warning or kind == "axis"


@pytest.mark.parametrize(("shape", "axis"), [("float", 1), ("float[2, 8]", 2), ("float[2, 7]", 1)])
def test_factors_that_fit_no_axis_are_refused_by_name(shape: str, axis: int, tmp_path: Path) -> None:
    ends = f"(float[2, 8] x, {shape} p) => (uint8[n, 8] o, float[n, 8] y)"
    text = f"g {ends} {{ {FIRST} o = QuantizeLinear <axis = {axis}> (p, v, u0) }}"
    source = write_model(tmp_path / "m.onnx", text, FACTORS, opset=21)
    with pytest.raises(UnsupportedModelError, match="quantizes per channel .* 8 factors do not fit .* 'p'"):
        convert_qat_model(source, tmp_path / "out")


def test_float8_between_two_scales(tmp_path: Path) -> None:
    corner = f"i = QuantizeLinear <output_dtype = {E4M3}> (y, s) f = Cast <to = 1> (i) m = MatMul(f, wd)"
    report, _ = convert_and_compare(model_with(corner, tmp_path), FEEDS, units=0)
    assert len(report.converted) == 2 and not report.warnings
