"""Outputs that are graph inputs or initializers: what the input says is true, whatever the output claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import run
from support.written_models import write_model

CONSTANTS = {"s": np.float32(0.05), "z": np.int8(3), "w": np.arange(-16, 16, dtype=np.int8).reshape(8, 4)}
TEXT = """g (float[n, 8] x) => (float[n, 4] y, float[n, 8] x, float[2] k) <float[2] k = {1.0, 2.0}> {
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, s) y = MatMul(d, v)
}"""
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
CLAIMS = {
    "nothing": (None, []),
    "another type": ((INT64, ["n", 8]), ["'x' is declared as INT64 [n, 8] where it is an output, and is FLOAT [n, 8]"]),
    "another shape": ((FLOAT, [3, 3]), ["'x' is declared as FLOAT [3, 3] where it is an output, and is FLOAT [n, 8]"]),
    "another name of the size": ((FLOAT, ["m", 8]), []),
}


@pytest.mark.parametrize(("claim", "warnings"), CLAIMS.values(), ids=CLAIMS)
def test_input_as_output(claim: tuple[int, list[int | str]] | None, warnings: list[str], tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", TEXT, CONSTANTS)
    model = onnx.load(path)
    output = model.graph.output[1]
    output.ClearField("type")
    if claim is not None:
        output.CopyFrom(onnx.helper.make_tensor_value_info("x", *claim))
    model.graph.output[2].type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(model, path)
    report = convert_qat_model(path, tmp_path / "out")
    constant = "'k' is declared as FLOAT [7] where it is an output, and is FLOAT [2]"
    assert [w.removeprefix("Tensor ").split(". ")[0] for w in report.warnings] == [constant, *warnings]
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)}
    fake = run(report.fake_quant_model, feeds)
    assert np.array_equal(fake["x"], feeds["x"]) and np.array_equal(fake["k"], [1, 2]) and len(report.converted) == 1
