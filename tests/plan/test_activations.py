"""Reasons why the activation of a layer is not quantized, each for what stands in front of the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.older_libraries import needs_node_names
from support.written_models import convert_and_compare, write_model

CONSTANTS = {"s": np.float32(0.05), "z": np.int8(3), "w": np.arange(-16, 16, dtype=np.int8).reshape(8, 4)}


def test_quantizers_within_an_if_are_not_called_missing(tmp_path: Path) -> None:
    text = """g (float[1, 8] x, float[1, 8] u, bool first) => (float y) {
        e = DequantizeLinear(w, s)
        [choice] c = If (first) <
            then_branch = one () => (float[1, 8] a) { p = QuantizeLinear(x, s, z) a = DequantizeLinear(p, s, z) },
            else_branch = two () => (float[1, 8] b) { q = QuantizeLinear(u, s, z) b = DequantizeLinear(q, s, z) }
        >
        [layer] y = MatMul(c, e)
    }"""
    needs_node_names()
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    row = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    feeds = {"x": row, "u": -row, "first": np.array(True)}
    report, _ = convert_and_compare(path, feeds, units=0)
    assert [(e.name, e.reason) for e in report.refused] == [("layer", "activation-not-quantized")]
    assert "made by If 'choice'" in report.refused[0].detail and "'choice'" in report.refused[0].remedy


def test_inputs_made_for_a_fused_operator_have_the_name_of_its_part(tmp_path: Path) -> None:
    text = """g (float[2, 5, 8] x) => (float[2, 5, 8] y) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s)
        [heads] y = com.microsoft.Attention <num_heads = 2> (d, e, b)
    }"""
    constants = {**CONSTANTS, "w": np.eye(8, 24, dtype=np.int8), "b": np.zeros(24, np.float32)}
    needs_node_names()
    path = write_model(tmp_path / "m.onnx", text, constants, imports='"com.microsoft" : 1')
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert [e.detail.split("'")[1] for e in report.refused] == ["heads (query)", "heads (softmax)"]
