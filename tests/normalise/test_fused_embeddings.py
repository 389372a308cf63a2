"""Embeddings as ONNX Runtime fuses them, against its kernels; operators over tables of integers that stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_onnx import NoQuantizerError, convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import run

RNG = np.random.default_rng(0)
F32 = np.float32
CONSTANTS: dict[str, np.ndarray] = {
    **{"s": F32(0.05), "z": np.int8(0), "w": RNG.integers(-127, 128, (8, 4)).astype(np.int8), "sw": F32(0.02)},
    **{"words": RNG.normal(size=(10, 8)).astype(F32), "places": RNG.normal(size=(6, 8)).astype(F32)},
    **{"kinds": RNG.normal(size=(2, 8)).astype(F32), "g": RNG.normal(size=8).astype(F32), "b": np.ones(8, F32)},
    **{"qw": RNG.integers(0, 256, (10, 8)).astype(np.uint8), "qp": RNG.integers(0, 256, (6, 8)).astype(np.uint8)},
    **{"qk": RNG.integers(0, 256, (2, 8)).astype(np.uint8), "qg": RNG.integers(90, 200, 8).astype(np.uint8)},
    **{"qb": RNG.integers(90, 200, 8).astype(np.uint8), "t": F32(0.01), "u": np.uint8(128)},
    **{"nb": RNG.integers(0, 256, (8, 1, 8)).astype(np.uint8), "ns": RNG.uniform(0.01, 0.1, 8).astype(F32)},
    **{"gt": RNG.integers(-8, 8, (10, 16)).astype(ir.DataType.INT4.numpy()), "gs": np.full((10, 1), 0.1, F32)},
}
LAYER = "q = QuantizeLinear(e, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, sw) y = MatMul(d, v)"
TABLES = {
    "floats": "e, m = com.microsoft.EmbedLayerNormalization <epsilon = 0.001> (i, j, words, places, kinds, g, b)",
    "no segments": "e, m = com.microsoft.EmbedLayerNormalization <epsilon = 0.001> (i, , words, places, , g, b)",
    "integers": "e, m = com.microsoft.QEmbedLayerNormalization <epsilon = 0.001> "
    "(i, j, qw, qp, qk, qg, qb, , t, t, t, t, t, u, u, u, u, u)",
}


def converted(nodes: str, folder: Path, inputs: str = "int32[1, 4] i, int32[1, 4] j") -> ConversionReport:
    head = '<ir_version: 10, opset_import: ["" : 17, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{head} g ({inputs}) => (float[a, b, c] y) {{ {nodes} }}")
    read = {name for node in model.graph.node for name in node.input}
    for name, array in CONSTANTS.items():
        if name in read:
            model.graph.initializer.append(ir.serde.serialize_tensor(ir.tensor(np.asarray(array), name=name)))
    onnx.save(model, folder / "source.onnx")
    return convert_qat_model(folder / "source.onnx", folder / "m")


@pytest.mark.parametrize("kind", TABLES)
def test_a_layer_behind_an_embedding_is_int8(kind: str, tmp_path: Path) -> None:
    report = converted(f"{TABLES[kind]} {LAYER}", tmp_path)
    assert len(report.converted) == len(report.layers) == 1
    feeds = {"i": np.array([[1, 9, 0, 4]], np.int32), "j": np.array([[0, 1, 1, 0]], np.int32)}
    wanted = run(str(tmp_path / "source.onnx"), feeds, qdq_source=True)["y"]
    # the normalised sums differ by float32 rounding, which moves no integer of these
    np.testing.assert_allclose(run(report.fake_quant_model, feeds)["y"], wanted, rtol=0, atol=1e-5)


STAY = {
    "MatMulNBits": (
        "e = com.microsoft.MatMulNBits <K = 8, N = 8, bits = 4, block_size = 16> (x, nb, ns)",
        "float[1, 2, 8] x",
    ),
    "GatherBlockQuantized": (
        "h = com.microsoft.GatherBlockQuantized <gather_axis = 0, quantize_axis = 1, block_size = 16> (gt, k, gs) "
        "e, f = Split <axis = -1> (h)",
        "int64[1, 2] k",
    ),
    "SomeLookup": ("e = com.microsoft.SomeLookup(x, qw)", "float[1, 2, 8] x"),
}
DOES = {
    "MatMulNBits": "by weights of few bits",
    "GatherBlockQuantized": "rows of a table",
    "SomeLookup": "integers 'qw'",
}


@pytest.mark.parametrize("op_type", STAY)
def test_an_operator_over_a_table_of_integers_is_a_row(op_type: str, tmp_path: Path) -> None:
    nodes, inputs = STAY[op_type]
    report = converted(f"{nodes} {LAYER}", tmp_path, inputs)
    (row,) = report.refused
    assert (row.op_type, row.reason, len(report.converted)) == (op_type, "foreign-operator", 1)
    assert DOES[op_type] in row.detail


def test_a_model_of_weights_alone_is_told_as_that(tmp_path: Path) -> None:
    nodes, inputs = STAY["MatMulNBits"]
    with pytest.raises(
        NoQuantizerError, match=r"1 x com.microsoft::MatMulNBits .* by weights of few bits.* No int8 layer"
    ):
        converted(nodes.replace("e =", "y ="), tmp_path, inputs)
