"""Models of three layers whose middle one has a quantizer of any type: float8, int4, blocks, ..."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from support.written_models import Array, write_model

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "sw": np.float32(0.0237),
    "s4": np.float32(0.137),
    "v": np.linspace(0.01, 0.1, 8).astype(np.float32),
    "b": np.linspace(0.01, 0.1, 16).reshape(2, 8).astype(np.float32),
    "k": np.linspace(0.01, 0.1, 32).reshape(4, 8).astype(np.float32),
    "shape": np.array([2, 8], np.int64),
    "floats": RNG.normal(size=(8, 8)).astype(np.float32),
    "int4s": RNG.integers(-8, 8, (8, 8)).astype(ir.DataType.INT4.numpy()),
    "float8s": RNG.normal(size=(8, 8)).astype(ir.DataType.FLOAT8E4M3FN.numpy()),
}
FIRST = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw) y = MatMul(d, wd)"
LAST = "t = QuantizeLinear(m, s, z) l = DequantizeLinear(t, s, z) o = MatMul(l, wd)"
E4M3, E5M2, INT4, INT8, INT16, UINT16 = 17, 19, 22, 3, 5, 4


def activation(kind: int, scale: str = "s", layout: str = "", between: str = "", behind: str = "") -> str:
    """A layer whose activation has a pair of this type, with nodes from i to j and from f to e."""
    stated = f"<output_dtype = {kind}{layout and ', ' + layout}>"
    integers = f"i = QuantizeLinear {stated} (y, {scale}) {between}"
    floats = f"f = DequantizeLinear {layout and '<' + layout + '>'} ({'j' if between else 'i'}, {scale}) {behind}"
    return f"{integers} {floats} m = MatMul({'e' if behind else 'f'}, wd)"


def weight(nodes: str) -> str:
    """A layer whose weight u these nodes make."""
    return f"p = QuantizeLinear(y, s, z) e = DequantizeLinear(p, s, z) {nodes} m = MatMul(e, u)"


def quantized(kind: int, scale: str, layout: str = "") -> str:
    """The weight "floats" behind a Q/DQ pair."""
    stated = f"<output_dtype = {kind}{layout and ', ' + layout}>"
    pair = f"i = QuantizeLinear {stated} (floats, {scale})"
    return weight(f"{pair} u = DequantizeLinear {layout and '<' + layout + '>'} (i, {scale})")


FEEDS = {"x": np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32) * 3}


def model_with(corner: str, folder: Path) -> Path:
    """An int8 layer, the corner from y to m, another int8 layer."""
    text = f"g (float[2, 8] x) => (float[n, k] o) {{ {FIRST} {corner} {LAST} }}"
    return write_model(folder / "m.onnx", text, CONSTANTS, opset=21)
