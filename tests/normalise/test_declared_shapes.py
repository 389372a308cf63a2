"""Declared shapes that the graph contradicts, where it leaves sizes open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.written_models import convert_and_compare, write_model

RNG = np.random.default_rng(0)
CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "sw": np.float32(0.0237),
    "shape": np.array([-1, 8, 8], np.int64),
}
TEXT = """g (float[n, 1, 8, 8] x) => (float[a, b, c] y) {
    r = Reshape(x, shape) q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw)
    y = MatMul(d, wd)
}"""


@pytest.mark.parametrize("claim", [[8, 1], [2, 7, 8], [2, 8, 8, 1], []])
def test_false_shape_in_front_of_an_open_size(claim: list[int], tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", TEXT, CONSTANTS)
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, claim))
    onnx.save(model, path)
    feeds = {"x": RNG.normal(size=(3, 1, 8, 8)).astype(np.float32)}
    report, _ = convert_and_compare(path, feeds, units=0)
    assert len(report.converted) == 1
    assert any(w.startswith("Tensor 'r' is declared with shape") for w in report.warnings)
