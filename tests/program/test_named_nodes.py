"""The ledger and the errors name nodes of the user's file; a part of one stands behind it in brackets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx
from support.older_libraries import needs_opset

pytestmark = pytest.mark.usefixtures("one_process")

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, np.ndarray] = {
    **{"s": np.float32(0.05), "z": np.int8(0), "sw": np.float32(0.02), "bad": np.float32(-1)},
    "w": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "k": RNG.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
    "g": np.ones(8, np.float32),
    "shape": np.array([2, 4, 8, 1]),
}
PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw) p = MatMul(d, wd)"
EXPANDED = {
    "attention of ONNX Runtime": ("a = com.microsoft.MultiHeadAttention <num_heads = 2> (p, d, d)", 17, {"n_a"}),
    "attention of ONNX": ("a = Attention <q_num_heads = 2, kv_num_heads = 2> (p, d, d)", 23, {"n_a"}),
    "normalisation": ("a = RMSNormalization(d, g)", 23, set()),
    "activation": ("a = Mish(d)", 22, set()),
}


def source(nodes: str, opset: int, folder: Path) -> Path:
    needs_opset(opset)
    head = f'<ir_version: {8 if opset < 19 else 10}, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{head} g (float[2, 4, 8] x) => (float[2, 4, n] a) {{ {PAIR} {nodes} }}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in CONSTANTS.items())
    for node in model.graph.node:
        node.name = f"n_{node.output[0]}"
    path = folder / "source.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", EXPANDED)
def test_rows_name_the_users_nodes(kind: str, tmp_path: Path) -> None:
    nodes, opset, parted = EXPANDED[kind]
    path = source(nodes, opset, tmp_path)
    report = amct_onnx.convert_qat_model(path, tmp_path / "m")
    known = {n.name for n in onnx.load(path).graph.node}
    rows = [*(e.name for e in report.layers), *(f.name for f in report.float_operators)]
    assert {re.sub(r" \(.+\)$", "", name) for name in rows} <= known
    assert {re.sub(r" \(.+\)$", "", name) for name in rows if name not in known} == parted
    np.savez(tmp_path / "data.npz", x=RNG.normal(size=(2, 4, 8)).astype(np.float32))
    compared = amct_onnx.compare(path, tmp_path / "m", tmp_path / "data.npz")
    assert [r.name for r in compared.layers] == [e.name for e in report.layers]


def test_an_error_names_the_users_node(tmp_path: Path) -> None:
    layer = "h = Reshape(q, shape) c = QLinearConv(h, bad, z, k, sw, z, s, z)"
    nodes = f"{layer} f = DequantizeLinear(c, s, z) a = Identity(f)"
    path = source(nodes, 17, tmp_path)
    with pytest.raises(amct_onnx.FactorError, match=r"Node 'n_c \(x/dequantize\)': scale tensor 'bad' holds"):
        amct_onnx.convert_qat_model(path, tmp_path / "m")
