"""16-bit quantizers of an opset that has none run in ONNX Runtime, with the numbers of ONNX's formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from amct_onnx import AMCT_SO
from amct_onnx.graph.wide_quantizers import name_wide_quantizers
from support.written_models import write_model

TEXT = "g (float[8] x) => (float[8] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"


@pytest.mark.parametrize("zero", [np.int16(-7), np.uint16(900)], ids=["int16", "uint16"])
def test_numbers(zero: np.generic, tmp_path: Path) -> None:
    scale = np.float32(2.0**-9)  # a power of two: all products are exact
    path = write_model(tmp_path / "m.onnx", TEXT, {"s": scale, "z": zero})
    model = ir.from_proto(onnx.load(path))
    name_wide_quantizers(model)
    assert {n.domain for n in model.graph} == {"com.microsoft"}
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), AMCT_SO)
    x = np.array([0, 1.5, -1.5, 0.25 * scale, 0.5 * scale, 1e6, -1e6, 3.0], np.float32)
    limits = np.iinfo(zero.dtype)
    integers = np.clip(np.rint(x / scale) + float(zero), limits.min, limits.max)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], ((integers - float(zero)) * scale).astype(np.float32))


def test_opset_that_has_them_stays(tmp_path: Path) -> None:
    model = ir.from_proto(onnx.load(write_model(tmp_path / "m.onnx", TEXT, {"s": np.float32(1), "z": np.int16(0)})))
    model.opset_imports[""] = 21
    name_wide_quantizers(model)
    assert {n.domain for n in model.graph} == {""}
