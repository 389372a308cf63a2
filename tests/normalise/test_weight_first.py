"""A weight on the left becomes one on the right, between Transposes: the integers of the sum are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx import DeploySession
from amct_onnx.device.profiles import PROFILES
from amct_onnx.verbs.convert.report import ConversionReport
from support.written_models import Array, convert_and_compare, operators, write_model

RNG = np.random.default_rng(0)
WEIGHT = RNG.integers(-127, 128, (6, 5)).astype(np.int8)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.05),
    "z": np.int8(7),
    "w": WEIGHT,
    "v": np.ascontiguousarray(WEIGHT.T),
    "f": (WEIGHT * np.float32(0.02)).astype(np.float32),
    "b": RNG.integers(-127, 128, (2, 6, 5)).astype(np.int8),
    "o": np.int8(0),
    "h": np.int16(0),
    "t": np.float32(0.02),
    "rows": np.linspace(0.01, 0.03, 6, dtype=np.float32),
    "columns": np.linspace(0.01, 0.03, 5, dtype=np.float32),
    "c": RNG.normal(size=4).astype(np.float32),
}
"""Scales, zero points and weights: w is [M, K], v its transpose."""
W = "e = DequantizeLinear(w, t) "
V = "e = DequantizeLinear(v, t) "
LEFT = {
    "matrix": (W + "y = MatMul(e, d)", [5, 4]),
    "batch": (W + "y = MatMul(e, d)", [2, 3, 5, 4]),
    "float weight with a quantizer": (
        "p = QuantizeLinear(f, t, o) e = DequantizeLinear(p, t, o) y = MatMul(e, d)",
        [2, 5, 4],
    ),
    "scale per row": ("e = DequantizeLinear<axis=0>(w, rows) y = MatMul(e, d)", [5, 4]),
    "Gemm": (W + "y = Gemm(e, d, c)", [5, 4]),
    "Gemm, both transposed": (V + "y = Gemm<transA=1, transB=1>(e, d)", [4, 5]),
}
OTHERS = {
    "scale per column": ("e = DequantizeLinear<axis=1>(w, columns) y = MatMul(e, d)", [5, 4], "weight-not-constant"),
    "vector": (W + "y = MatMul(e, d)", [5], "weight-not-constant"),
    "Gemm with a factor": (W + "y = Gemm<alpha=0.5>(e, d)", [5, 4], "weight-not-constant"),
    "several matrices": ("e = DequantizeLinear(b, t) y = MatMul(e, d)", [2, 5, 4], "matmul-weight-rank"),
    "activation of 16 bits": (
        "p = QuantizeLinear(x, s, h) g = DequantizeLinear(p, s, h) " + W + "y = MatMul(e, g)",
        [5, 4],
        "weight-not-constant",
    ),
    "activation without a quantizer": (W + "y = MatMul(e, x)", [5, 4], "weight-not-constant"),
}


def source(body: str, shape: list[int], folder: Path) -> Path:
    sizes = ", ".join(map(str, shape))
    text = f"g (float[{sizes}] x) => (float y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) {body} }}"
    used = {n: v for n, v in CONSTANTS.items() if any(f"{mark}{n}{end}" in text for mark in "( " for end in ",)")}
    return write_model(folder / "m.onnx", text, used, opset=21, ir_version=10)


def results(report: ConversionReport, x: Array) -> list[Array]:
    found = []
    for device in PROFILES:
        with DeploySession(report.deploy_model, device=device) as session:
            found.append(np.asarray(session.run(None, {"x": x})[0]))
    return found


@pytest.mark.parametrize(("body", "shape"), LEFT.values(), ids=LEFT)
def test_weight_on_the_left_becomes_int8(body: str, shape: list[int], tmp_path: Path) -> None:
    x = RNG.normal(size=shape).astype(np.float32) * 4
    report, deploy = convert_and_compare(source(body, shape, tmp_path), {"x": x}, units=0)
    assert len(report.converted) == len(report.layers) == 1
    assert "AscendAntiQuant" not in operators(deploy)


def test_sum_is_that_of_the_weight_on_the_right(tmp_path: Path) -> None:
    x = RNG.normal(size=(2, 5, 4)).astype(np.float32) * 4
    left, _ = convert_and_compare(source(LEFT["matrix"][0], [2, 5, 4], tmp_path), {"x": x}, units=0)
    found = results(left, x)
    x = x.transpose(0, 2, 1).copy()
    right, _ = convert_and_compare(source(V + "y = MatMul(d, e)", [2, 4, 5], tmp_path), {"x": x}, units=0)
    for mine, theirs in zip(found, results(right, x), strict=True):
        np.testing.assert_array_equal(mine, theirs.transpose(0, 2, 1))


@pytest.mark.parametrize(("body", "shape", "reason"), OTHERS.values(), ids=OTHERS)
def test_another_product_keeps_its_form(body: str, shape: list[int], reason: str, tmp_path: Path) -> None:
    x = RNG.normal(size=shape).astype(np.float32) * 4
    report, deploy = convert_and_compare(source(body, shape, tmp_path), {"x": x}, units=0)
    assert [e.reason for e in report.refused] == [reason]
    assert "Transpose" not in operators(deploy)
