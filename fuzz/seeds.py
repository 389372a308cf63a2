"""The corpus from which mutation starts: small models of real exporters, reference cases, and one of each feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

DATA = Path(__file__).parents[1] / "tests" / "data"
MAX_SEED_BYTES = 40_000
"""Bytes; a conversion of such a model takes some ten milliseconds."""
HEADER = '<ir_version: 8, opset_import: ["" : 13, "local" : 1, "qonnx.custom_op.general" : 1, "com.microsoft" : 1]>\n'
CONSTANTS = {
    "s": np.float32(0.1),
    "z": np.int8(0),
    "zu": np.uint8(128),
    "w": np.arange(-8, 8, dtype=np.int8).reshape(4, 4),
    "sw": np.float32([0.1, 0.2, 0.3, 0.4]),
    "b": np.ones(4, np.float32),
    "shape": np.int64([4, 4]),
    "c": np.bool_(True),
    "bits": np.float32(8),
    "zf": np.float32(0),
}
WRITTEN = {
    "function": """g (float[n,4] x) => (float[n,4] y) { y = local.outer(x, s, z, w) }
        <domain: "local", opset_import: ["" : 13, "local" : 1]>
        inner (a, s, z) => (d) { q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) }
        <domain: "local", opset_import: ["" : 13, "local" : 1]>
        outer (a, s, z, w) => (y) { d = local.inner(a, s, z) v = DequantizeLinear(w, s, z) y = MatMul(d, v) }""",
    "if": """g (float[n,4] x) => (float[n,4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        y = If(c) <then_branch = t () => (float[n,4] p) { v = DequantizeLinear(w, s, z) p = MatMul(d, v) },
                   else_branch = e () => (float[n,4] r) { r = Relu(d) }> }""",
    "computed": """g (float[n,4] x) => (float[n,4] y) { one = ConstantOfShape <value = float {0.5}> (shape)
        k = Mul(one, sw) t = Transpose(k) e = Expand(t, shape) p = Abs(e) wq = QuantizeLinear <axis = 0> (p, sw)
        wd = DequantizeLinear <axis = 0> (wq, sw) q = QuantizeLinear(x, s, zu) d = DequantizeLinear(q, s, zu)
        y = Gemm(d, wd, b) }""",
    "qoperator": """g (float[n,4] x) => (float[n,4] y) { q = QuantizeLinear(x, s, zu)
        m = QLinearMatMul(q, s, zu, w, s, z, s, zu) y = DequantizeLinear(m, s, zu) }""",
    "dynamic": """g (float[n,4] x) => (int32[n,4] y) { q, t, u = DynamicQuantizeLinear(x)
        y = MatMulInteger(q, w, u, z) }""",
    "qonnx": """g (float[n,4] x) => (float[n,4] y) {
        f = qonnx.custom_op.general.Quant <signed = 1, narrow = 0, rounding_mode = "ROUND"> (x, s, zf, bits)
        wd = DequantizeLinear <axis = 1> (w, sw) h = MatMul(f, wd) k = Add(h, b) y = Relu(k) }""",
    "microsoft": """g (float[n,4] x) => (float[n,4] y) { q = com.microsoft.QuantizeLinear(x, s, zu)
        d = com.microsoft.DequantizeLinear(q, s, zu) wd = DequantizeLinear(w, s) y = MatMul(d, wd) }""",
    "batch_norm": """g (float[1,4,5,5] x) => (float[1,4,3,3] y) { q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z) k = Reshape(w, kshape) wd = DequantizeLinear(k, s)
        h = Conv(d, wd) y = BatchNormalization(h, sw, b, b, sw) }""",
}
EXTERNAL_FILE = "w.data"
EXTERNAL_CONTENT = bytes(range(256)) * 16
"""Files beside every model."""


def corpus() -> dict[str, bytes]:
    """Name -> serialised model with quantizers."""
    paths = [*DATA.rglob("qat.onnx"), *DATA.glob("models/*/model.onnx")]
    found = {str(p.relative_to(DATA)): p.read_bytes() for p in sorted(paths) if p.stat().st_size <= MAX_SEED_BYTES}
    return (
        found
        | {f"written/{name}": _written(text) for name, text in WRITTEN.items()}
        | {"written/external": _external()}
    )


def deploy_corpus() -> dict[str, bytes]:
    """Deploy models, of the vendor's engine."""
    return {str(p.relative_to(DATA)): p.read_bytes() for p in sorted(DATA.rglob("*_deploy_model.onnx"))}


def _written(text: str) -> bytes:
    model = onnx.parser.parse_model(HEADER + text)
    constants = CONSTANTS | {"kshape": np.int64([4, 1, 2, 2])} | ({"w": _depth_weight()} if "kshape" in text else {})
    read = {name for node in model.graph.node for name in node.input} | {"d", "w", "s", "z"}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in read)
    return bytes(model.SerializeToString())


def _depth_weight() -> np.ndarray:
    return np.arange(64, dtype=np.int8).reshape(4, 16)


def _external() -> bytes:
    model = onnx.ModelProto.FromString(_written(WRITTEN["qonnx"]))
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", EXTERNAL_FILE), ("offset", "64"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())
