"""Per-channel quantizers of opset 12, written out, against ONNX Runtime's own of opset 13, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from amct_onnx.common.onnxruntime_session import open_session, session_options
from amct_onnx.graph.channel_quantizers import write_out_channel_quantizers
from support.qdq_builder import QdqBuilder

KINDS = {np.int8: TensorProto.INT8, np.uint8: TensorProto.UINT8}


@pytest.mark.parametrize("axis", [0, 1, -2])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_both_give_the_same_numbers(kind: type, axis: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(scale=8, size=(3, 4, 5)).astype(np.float32)
    channels = x.shape[axis]
    scales = rng.uniform(0.01, 0.2, channels).astype(np.float32)
    scales[0] = 0.25  # ties
    x[..., :2] = np.rint(x[..., :2] * 8) / 8
    zeros = rng.integers(*((-20, 20) if kind == np.int8 else (100, 140)), channels).astype(kind)
    b = QdqBuilder()
    factors = [b.constant(scales, "s"), b.constant(zeros, "z")]
    q = b.node("QuantizeLinear", [b.input("x", x.shape), *factors], "quantize", "q", axis=axis)
    b.output(q, KINDS[kind])
    b.output(b.node("DequantizeLinear", [q, *factors], "dequantize", "y", axis=axis))
    proto = b.model()
    expected = open_session(proto.SerializeToString(), session_options()).run(None, {"x": x})
    model = ir.from_proto(proto)
    model.graph[0].outputs[0].shape = ir.Shape(x.shape)
    model.opset_imports[""] = 12
    write_out_channel_quantizers(model)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in model.graph}
    assert {"quantize", "dequantize"} <= {n.name for n in model.graph}
    found = open_session(ir.to_proto(model).SerializeToString(), session_options()).run(None, {"x": x})
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)
