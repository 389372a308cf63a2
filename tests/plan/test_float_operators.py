"""What reads quantized numbers as floats is a row under the name that the user's file has for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx import cli, convert_qat_model
from support.written_models import convert_and_compare, write_model

CONSTANTS = {"s": np.float32(0.05), "z": np.int8(3), "two": np.array([2])} | {
    "scales": np.linspace(0.01, 0.08, 8, dtype=np.float32),
    "zeros": np.arange(8, dtype=np.int8),
}
READERS = {
    "fused operator": ("float y", "y = com.microsoft.Gelu(d)", ("Gelu", "d")),
    "quantizer whose integers leave": (
        "int8[n, 8] y",
        "y = QuantizeLinear <axis = 1> (d, scales, zeros)",
        ("QuantizeLinear", "d"),
    ),
    "reader of integers": ("int64 y", "y = ArgMax <axis = 1> (q)", ("ArgMax", "q")),
    "reader of integers themselves": ("int8 y", "y = Neg(q)", ("Neg", "q")),
    "integer operator": (
        "float y",
        "i = com.microsoft.QLinearSigmoid(q, s, z, s, z) y = DequantizeLinear(i, s, z)",
        ("QLinearSigmoid", "q"),
    ),
}


@pytest.mark.parametrize(("output", "nodes", "row"), READERS.values(), ids=READERS)
def test_one_row_under_the_name_of_the_source(output: str, nodes: str, row: tuple[str, str], tmp_path: Path) -> None:
    text = f"g (float[n, 8] x) => ({output}) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) {nodes} }}"
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS, imports='"com.microsoft" : 1')
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)}
    # float32 against onnxruntime's fused kernels; a quantized result is one step of 0.05 apart at most
    report, _ = convert_and_compare(path, feeds, units=0.05 if "Sigmoid" in nodes else 1e-6)
    assert [(f.op_type, f.tensor) for f in report.float_operators] == [row]


def test_only_operators_behind_a_pair_that_stays_are_rows(tmp_path: Path) -> None:
    """Div is absorbed, RandomUniformLike reads a shape, and Add what no quantizer rounds."""
    text = """g (float[n, 4] x) => (float y, float l) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s) c = MatMul(d, e)
        p = QuantizeLinear(c, s, z) r = DequantizeLinear(p, s, z) k = Div(r, six)
        t = QuantizeLinear(k, sixth, z) u = DequantizeLinear(t, sixth, z) y = MatMul(u, e)
        m = RandomUniformLike(r) b = Add(c, m) i = QuantizeLinear(b, s, z) j = DequantizeLinear(i, s, z) l = Sigmoid(j)
    }"""
    scale = np.float32(0.05)
    constants = {"s": scale, "z": np.int8(3), "w": np.eye(4, dtype=np.int8)}
    constants |= {"six": np.float32(6), "sixth": np.float32(scale / np.float32(6))}
    path = write_model(tmp_path / "m.onnx", text, constants)
    kept = convert_qat_model(path, tmp_path / "kept" / "m")
    assert [(f.op_type, f.tensor) for f in kept.float_operators] == [("Sigmoid", "j")]
    assert not convert_qat_model(path, tmp_path / "gone" / "m", residual_quantizers="drop").float_operators


def test_quantizers_without_a_layer_are_not_passed_over(tmp_path: Path) -> None:
    text = "g (uint8[n, 8] x) => (float y) { d = DequantizeLinear(x, s, z) y = Add(d, d) }"
    path = write_model(tmp_path / "m.onnx", text, {**CONSTANTS, "z": np.uint8(3)})
    assert cli.main(["convert", "--model", str(path), "--save_path", str(tmp_path / "out"), "--strict"]) == 1
    report, _ = convert_and_compare(path, {"x": np.arange(8, dtype=np.uint8).reshape(1, 8)}, units=0)
    assert report.summary().startswith("No layer is int8")
    assert {r.tensor for r in report.residuals} == {"d"}


def test_rows_and_warnings_name_only_tensors_of_the_users_file(tmp_path: Path) -> None:
    """Two integer operators read one tensor: the pair that dequantizes it for both is of no user's node."""
    text = """g (float[n, 4] x) => (float[n, 4] y) <uint8[n, 7] m> {
        q = QuantizeLinear(x, s, z) m = QLinearMatMul(q, s, z, w, s, zw, s, z)
        a = com.microsoft.QLinearAdd(q, s, z, m, s, z, s, z) y = DequantizeLinear(a, s, z)
    }"""
    constants = {"s": np.float32(0.05), "z": np.uint8(3), "zw": np.int8(0), "w": np.eye(4, dtype=np.int8)}
    path = write_model(tmp_path / "m.onnx", text, constants, imports='"com.microsoft" : 1')
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert {o.tensor for o in report.float_operators} <= {"q", "m"} and report.float_operators
    assert {w.split("'")[1] for w in report.warnings} == {"m"}
