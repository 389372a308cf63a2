"""Two small Q/DQ models: one written here, one of a real exporter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.golden_models import MODELS

TIDY = MODELS / "torchfx_digitsnet_i8sym_op13" / "model.onnx"


def qdq_model(
    folder: Path, *, zero_q: int = 0, zero_dq: int = 0, scale: float | list[float] = 0.1, transpose: bool = False
) -> Path:
    """x -> Q -> DQ -> Gemm with an int8 weight; float input of shape [n, 3] (or [3, n])."""
    rng = np.random.default_rng(0)
    scales = np.asarray(scale, np.float32)
    constants = {
        "s": scales,
        "zq": np.full(scales.shape, zero_q, np.int8),
        "zdq": np.full(scales.shape, zero_dq, np.int8),
        "w": rng.integers(-128, 128, (3, 5)).astype(np.int8),
        "sw": rng.uniform(0.01, 0.1, 5).astype(np.float32),
        "b": rng.normal(size=(1, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zq"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "zdq"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"], axis=1, name="weight"),
        helper.make_node("Gemm", ["d", "wd", "b"], ["y"], alpha=0.5, beta=2.0, transA=int(transpose), name="gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, "n"] if transpose else ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    path = folder / "source.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
