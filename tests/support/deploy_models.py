"""A small deploy model in which every kind of int8 layer is right, and tools to break it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCALE = 2.0**-10
"""A deq_scale that is a normal float16."""


def deq_scale(count: int, scale: float = SCALE) -> np.ndarray:
    """count packed scales."""
    return np.full(count, np.float32(scale)).view(np.uint32).astype(np.uint64)


def quant(name: str, source: str, offset: float = 0.0) -> onnx.NodeProto:
    """AscendQuant; its result is called <name>.out."""
    return helper.make_node("AscendQuant", [source], [f"{name}.out"], name, scale=8.0, offset=offset, dst_type="INT8")


def dequant(name: str, source: str) -> onnx.NodeProto:
    """AscendDequant with the initializer <name>.param; its result is called <name>.out."""
    return helper.make_node("AscendDequant", [source, f"{name}.param"], [f"{name}.out"], name, dtype=0)


def good_model() -> onnx.ModelProto:
    """Conv -> ConvTranspose -> Gemm -> MatMul + Add, and an AscendQuant + AscendAntiQuant, all as ATC wants them."""
    rng = np.random.default_rng(0)
    geometry = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}
    nodes = [
        quant("conv.quant", "x", 3.0),
        helper.make_node("Conv", ["conv.quant.out", "conv.w", "conv.b"], ["conv.out"], "conv", **geometry),
        dequant("conv.dequant", "conv.out"),
        helper.make_node("Sigmoid", ["conv.dequant.out"], ["s1"], "sigmoid1"),
        quant("deconv.quant", "s1"),
        helper.make_node("ConvTranspose", ["deconv.quant.out", "deconv.w"], ["deconv.out"], "deconv", **geometry),
        dequant("deconv.dequant", "deconv.out"),
        helper.make_node("GlobalAveragePool", ["deconv.dequant.out"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        quant("gemm.quant", "flat"),
        helper.make_node("Gemm", ["gemm.quant.out", "gemm.w", "gemm.b"], ["gemm.out"], "gemm", transB=0),
        dequant("gemm.dequant", "gemm.out"),
        helper.make_node("Sigmoid", ["gemm.dequant.out"], ["s2"], "sigmoid2"),
        quant("matmul.quant", "s2"),
        helper.make_node("MatMul", ["matmul.quant.out", "matmul.w"], ["matmul.out"], "matmul"),
        helper.make_node("Add", ["matmul.out", "matmul.b"], ["matmul.sum"], "matmul.add"),
        dequant("matmul.dequant", "matmul.sum"),
        quant("skip.quant", "flat", -5.0),
        helper.make_node(
            "AscendAntiQuant", ["skip.quant.out"], ["skip.out"], "skip.anti_quant", scale=0.125, offset=-5.0, dtype=0
        ),
        helper.make_node("Add", ["matmul.dequant.out", "skip.out"], ["y"], "sum"),
    ]
    constants = {
        "conv.w": rng.integers(-128, 128, (32, 32, 3, 3)).astype(np.int8),
        "conv.b": rng.integers(-1000, 1000, 32).astype(np.int32),
        "conv.dequant.param": deq_scale(32),
        "deconv.w": rng.integers(-128, 128, (32, 32, 3, 3)).astype(np.int8),
        "deconv.dequant.param": deq_scale(1),
        "gemm.w": rng.integers(-128, 128, (32, 16)).astype(np.int8),
        "gemm.b": rng.integers(-1000, 1000, 16).astype(np.int32),
        "gemm.dequant.param": deq_scale(1),
        "matmul.w": rng.integers(-128, 128, (16, 32)).astype(np.int8),
        "matmul.b": rng.integers(-1000, 1000, 32).astype(np.int32),
        "matmul.dequant.param": deq_scale(1),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of this name."""
    (found,) = [n for n in model.graph.node if n.name == name]
    return found


def set_attribute(model: onnx.ModelProto, name: str, **values: Any) -> None:
    """Replace attributes of a node; None removes."""
    target = node(model, name)
    kept = [a for a in target.attribute if a.name not in values]
    kept += [helper.make_attribute(k, v) for k, v in values.items() if v is not None]
    del target.attribute[:]
    target.attribute.extend(kept)


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """The initializer of this name."""
    (found,) = [t for t in model.graph.initializer if t.name == name]
    return found


def set_initializer(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Replace or add an initializer."""
    kept = [t for t in model.graph.initializer if t.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(values, name)])


def insert_behind(model: onnx.ModelProto, tensor: str, op_type: str, inputs: Iterable[str] = (), **values: Any) -> None:
    """Put a node between a tensor and all its readers."""
    new = f"{tensor}.{op_type}"
    for reader in model.graph.node:
        for index, name in enumerate(reader.input):
            if name == tensor:
                reader.input[index] = new
    made = helper.make_node(op_type, [tensor, *inputs], [new], f"inserted.{op_type}", **values)
    producers = [i for i, n in enumerate(model.graph.node) if tensor in n.output]
    model.graph.node.insert(producers[0] + 1 if producers else 0, made)


def make_external(model: onnx.ModelProto, name: str, location: str) -> None:
    """Let an initializer say that its data lies in a file."""
    tensor = initializer(model, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
