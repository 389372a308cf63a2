"""Einsum as the product that it is, in all the ways to write its equation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.written_models import Array, convert_and_compare, write_model

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": RNG.integers(-127, 128, (8, 4)).astype(np.int8),
    "v": RNG.integers(-127, 128, (4, 8)).astype(np.int8),
    "sw": np.float32(0.0237),
}
PRODUCTS = {
    "result implied": ("bsd,dk", "d, wd"),
    "result implied, letters out of order": ("zsd,dk", "d, wd"),
    "ellipsis": ("...d,dk->...k", "d, wd"),
    "ellipsis, result implied": ("...d,dk", "d, wd"),
    "ellipsis for one axis": ("b...d,kd->b...k", "d, vd"),
    "ellipsis, weight first": ("kd,...d->...k", "vd, d"),
    "weight transposed": ("bsd,kd->bsk", "d, vd"),
}
OTHERS = {"no sum": ("bsd,dk->bsdk", "d, wd"), "sum of the activation alone": ("bsd,dk->bk", "d, wd")}


def source(equation: str, operands: str, folder: Path) -> Path:
    text = f"""g (float[n, 3, 8] x) => (float y) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w, sw) vd = DequantizeLinear(v, sw) y = Einsum <equation = "{equation}"> ({operands})
    }}"""
    return write_model(folder / "m.onnx", text, CONSTANTS)


FEEDS = {"x": np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)}


@pytest.mark.parametrize(("equation", "operands"), PRODUCTS.values(), ids=PRODUCTS)
def test_product_becomes_int8(equation: str, operands: str, tmp_path: Path) -> None:
    report, _ = convert_and_compare(source(equation, operands, tmp_path), FEEDS, units=0)
    assert len(report.converted) == len(report.layers) == 1


@pytest.mark.parametrize(("equation", "operands"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_product_is_a_line_in_the_ledger(equation: str, operands: str, tmp_path: Path) -> None:
    report, _ = convert_and_compare(source(equation, operands, tmp_path), FEEDS, units=0)
    assert [e.reason for e in report.refused] == ["einsum"]


@pytest.mark.parametrize(("sizes", "rows"), [((3, 1), (8, 4)), ((3, 8), (1, 4))])
def test_summed_axis_that_is_repeated_stays_an_einsum(
    sizes: tuple[int, int], rows: tuple[int, int], tmp_path: Path
) -> None:
    text = f"""g (float[2, {sizes[0]}, {sizes[1]}] x) => (float y) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        rd = DequantizeLinear(r, sw) y = Einsum <equation = "bsd,dk->bsk"> (d, rd)
    }}"""
    constants = {n: CONSTANTS[n] for n in ("s", "z", "sw")} | {"r": np.ones(rows, np.int8)}
    feeds = {"x": FEEDS["x"][:, :, : sizes[1]]}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds, units=0)
    assert [e.reason for e in report.refused] == ["einsum"]


@pytest.mark.parametrize("rows", [FEEDS["x"][0], FEEDS["x"]], ids=["matrix", "batch"])
@pytest.mark.parametrize("opset", [11, 13])
def test_weight_with_more_axes_than_the_activation(opset: int, rows: Array, tmp_path: Path) -> None:
    """The axes that the weight has more stand in front of the activation's, each of which stays one of its own."""
    text = f"""g (float[{"n, " if rows.ndim == 2 else "n, 3, "}8] x) => (float y) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) ud = DequantizeLinear(u, sw) y = MatMul(d, ud)
    }}"""
    constants = CONSTANTS | {"u": CONSTANTS["w"].reshape(1, 1, 1, 8, 4)}
    report, _ = convert_and_compare(
        write_model(tmp_path / "m.onnx", text, constants, opset=opset), {"x": rows}, units=0
    )
    assert len(report.converted) == len(report.layers) == 1
