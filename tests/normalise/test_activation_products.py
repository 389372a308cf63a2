"""Gemm and Einsum of two quantized activations as the MatMul that they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.written_models import Array, convert_and_compare, operators, write_model

CONSTANTS: dict[str, Array] = {
    "s": np.float32(2.0**-5),
    "z": np.int8(0),
    "o": np.int8(3),
    "u": np.uint8(128),
    "c": np.arange(5, dtype=np.float32),
}
EINSUMS = {
    "attention scores": ("bhid,bhjd->bhij", (2, 3, 4, 6), (2, 3, 5, 6)),
    "attention values": ("bhij,bhjd->bihd", (2, 3, 4, 6), (2, 3, 6, 5)),
    "matrices": ("mk,kn->nm", (4, 6), (6, 5)),
    "implied result": ("ij,jk", (4, 6), (6, 5)),
    "batch that is repeated": ("bij,bjk->bik", (1, 4, 5), (3, 5, 6)),
    "ellipsis": ("...ik,...jk->...ij", (2, 3, 4, 6), (2, 3, 5, 6)),
}
OTHERS = {
    "summed axis that is repeated": ("bij,bkj->bik", (2, 4, 1), (2, 6, 5)),
    "two sums": ("bhij,bhij->bh", (2, 3, 4, 6), (2, 3, 4, 6)),
    "outer product": ("bi,bj->bij", (2, 4), (2, 5)),
    "a row that is summed": ("bij,bjk->bk", (2, 4, 6), (2, 6, 5)),
}


def feeds(*shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in zip("ab", shapes, strict=True)}


def source(node: str, shapes: tuple[tuple[int, ...], ...], folder: Path, zero: str = "z") -> Path:
    first, second = (", ".join(map(str, shape)) for shape in shapes)
    text = f"""g (float[{first}] a, float[{second}] b) => (float y) {{
        p = QuantizeLinear(a, s, {zero}) e = DequantizeLinear(p, s, {zero})
        q = QuantizeLinear(b, s, u) d = DequantizeLinear(q, s, u) {node}
    }}"""
    used = {n: v for n, v in CONSTANTS.items() if f" {n})" in text or f" {n}," in text}
    return write_model(folder / "m.onnx", text, used)


@pytest.mark.parametrize(("equation", "first", "second"), EINSUMS.values(), ids=EINSUMS)
def test_einsum_becomes_int8(equation: str, first: tuple[int, ...], second: tuple[int, ...], tmp_path: Path) -> None:
    path = source(f'y = Einsum <equation = "{equation}"> (e, d)', (first, second), tmp_path)
    report, _ = convert_and_compare(path, feeds(first, second), units=0)
    assert len(report.converted) == len(report.layers) == 1


@pytest.mark.parametrize(("equation", "first", "second"), OTHERS.values(), ids=OTHERS)
def test_another_einsum_is_a_line_in_the_ledger(
    equation: str, first: tuple[int, ...], second: tuple[int, ...], tmp_path: Path
) -> None:
    path = source(f'y = Einsum <equation = "{equation}"> (e, d)', (first, second), tmp_path)
    report, _ = convert_and_compare(path, feeds(first, second), units=0)
    assert [e.reason for e in report.refused] == ["einsum"]


@pytest.mark.parametrize(("first", "second", "int8"), [("n", "n", 1), ("n", "m", 0), ("n", "5", 0), ("5", "5", 1)])
def test_summed_axes_of_einsum_are_known_to_be_equal(first: str, second: str, int8: int, tmp_path: Path) -> None:
    text = f"""g (float[2, 4, {first}] a, float[2, 6, {second}] b) => (float y) {{
        p = QuantizeLinear(a, s, z) e = DequantizeLinear(p, s, z)
        q = QuantizeLinear(b, s, u) d = DequantizeLinear(q, s, u) y = Einsum <equation = "bij,bkj->bik"> (e, d)
    }}"""
    path = write_model(tmp_path / "m.onnx", text, {n: CONSTANTS[n] for n in "szu"})
    report, _ = convert_and_compare(path, feeds((2, 4, 5), (2, 6, 5)), units=0)
    assert len(report.converted) == int8
    assert int8 or (first in report.refused[0].detail and second in report.refused[0].detail)


VECTORS = {
    "vector by matrix": ((5,), (5, 6), 1),
    "matrix by vector": ((4, 5), (5,), 1),
    "matrices by vector": ((2, 4, 5), (5,), 1),
    "vector by matrices": ((5,), (2, 3, 5, 6), 1),
    "vectors": ((5,), (5,), 0),
    "sum of nothing": ((2, 0), (0, 6), 0),
}


@pytest.mark.parametrize(("first", "second", "int8"), VECTORS.values(), ids=VECTORS)
def test_product_of_vectors_keeps_the_shape(
    first: tuple[int, ...], second: tuple[int, ...], int8: int, tmp_path: Path
) -> None:
    path = source("y = MatMul(e, d)", (first, second), tmp_path)
    report, _ = convert_and_compare(path, feeds(first, second), units=0)
    assert [e.verdict for e in report.layers] == (["converted"] if int8 else ["refused"])


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("addend", ["", ", c"])
def test_gemm_becomes_int8(transposed: tuple[int, int], addend: str, tmp_path: Path) -> None:
    shapes = ((6, 4) if transposed[0] else (4, 6)), ((5, 6) if transposed[1] else (6, 5))
    node = f"y = Gemm <transA = {transposed[0]}, transB = {transposed[1]}> (e, d{addend})"
    report, model = convert_and_compare(source(node, shapes, tmp_path), feeds(*shapes), units=0)
    assert len(report.converted) == len(report.layers) == 1
    assert "Gemm" not in operators(model) and ("Add" in operators(model)) == bool(addend)


@pytest.mark.parametrize(
    ("attributes", "zero", "reason"),
    [
        ("<alpha = 2.0> ", "z", "activation-by-activation"),
        ("<beta = 0.5> ", "z", "activation-by-activation"),
        ("", "o", "activation-offset"),
    ],
)
def test_gemm_that_needs_more_stays_as_it_is(attributes: str, zero: str, reason: str, tmp_path: Path) -> None:
    path = source(f"y = Gemm {attributes}(e, d, c)", ((4, 6), (6, 5)), tmp_path, zero)
    report, model = convert_and_compare(path, feeds((4, 6), (6, 5)), units=0)
    (entry,) = report.refused
    assert (entry.reason, entry.op_type) == (reason, "Gemm")
    assert "Gemm" in {n.op_type for n in onnx.load(report.deploy_model).graph.node}
