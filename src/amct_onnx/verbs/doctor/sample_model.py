"""A small u8s8 model whose int8 sums saturate on a CPU whose kernels add pairs of products in 16 bits."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.common.arrays import Array

CHANNELS, SIZE, HIDDEN, CLASSES = 32, 12, 32, 10
IR_VERSION, OPSET = 8, 13
STEP = 1 / 255
WEIGHT_STEP = 0.01


def sample_model() -> onnx.ModelProto:
    """Conv, Relu, MatMul between Q/DQ pairs: uint8 activations, int8 weights that fill their range.

    Input ``x`` float32 [N, 32, 12, 12] in [0, 1], output ``y`` float32 [N, 10] on a uint8 grid.
    """
    graph = helper.make_graph(
        _nodes(),
        "sample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in _constants().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def _constants() -> dict[str, np.generic | Array]:
    generator = np.random.default_rng(2024)
    # weights of one sign over a whole channel, so that neighbouring products do not cancel
    signs = generator.choice([-1, 1], size=(HIDDEN, 1, 1, 1))
    conv = (signs * generator.integers(96, 128, (HIDDEN, CHANNELS, 3, 3))).astype(np.int8)
    dense = generator.integers(-127, 128, (HIDDEN * SIZE * SIZE, CLASSES)).astype(np.int8)
    # ranges from the mean sum: half of the activations' range, 110 on average
    conv_step = CHANNELS * 9 * 0.5 * 110 * WEIGHT_STEP * 1.5 / 255
    out_step = np.sqrt(HIDDEN * SIZE * SIZE) * conv_step * 85 * 73 * WEIGHT_STEP * 4 / 255
    return {
        "x_scale": np.float32(STEP),
        "u8_zero": np.uint8(0),
        "conv_w": conv,
        "conv_w_scale": np.float32(WEIGHT_STEP),
        "conv_w_zero": np.int8(0),
        "c_scale": np.float32(conv_step),
        "dense_w": dense,
        # factors of its own: onnxruntime 1.32 with session.x64quantprecision=1 refuses shared ones
        "dense_w_scale": np.float32(WEIGHT_STEP),
        "dense_w_zero": np.int8(0),
        "y_scale": np.float32(out_step),
        "y_zero": np.uint8(128),
        "shape": np.asarray([0, -1], np.int64),
    }


def _nodes() -> list[onnx.NodeProto]:
    return [
        *_pair("x", "x_scale", "u8_zero", "x_f"),
        _weight("conv_w"),
        helper.make_node("Conv", ["x_f", "conv_w_f"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        *_pair("r", "c_scale", "u8_zero", "r_f"),
        helper.make_node("Reshape", ["r_f", "shape"], ["flat"], "flatten"),
        # a pair behind the move, so that the MatMul reads quantized numbers whatever the optimiser does
        *_pair("flat", "c_scale", "u8_zero", "flat_f"),
        _weight("dense_w"),
        helper.make_node("MatMul", ["flat_f", "dense_w_f"], ["m"], "dense"),
        *_pair("m", "y_scale", "y_zero", "y"),
    ]


def _pair(source: str, scale: str, zero: str, result: str) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear."""
    quantized = f"{result}_q"
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [quantized], f"{result}_quantize"),
        helper.make_node("DequantizeLinear", [quantized, scale, zero], [result], f"{result}_dequantize"),
    ]


def _weight(name: str) -> onnx.NodeProto:
    return helper.make_node(
        "DequantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [f"{name}_f"], f"{name}_dequantize"
    )
