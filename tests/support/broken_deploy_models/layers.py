"""Models whose int8 layers are wrong: weights, biases, what stands between quantizer and dequantizer."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import TensorProto, helper

from support.broken_deploy_models.registry import breaks
from support.deploy_models import (
    deq_scale,
    dequant,
    initializer,
    insert_behind,
    node,
    quant,
    set_attribute,
    set_initializer,
)


@breaks("weight-variable")
def _(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(initializer(model, "conv.w"))
    model.graph.input.append(helper.make_tensor_value_info("conv.w", TensorProto.INT8, [32, 32, 3, 3]))


@breaks("two-activations")
def _(model: onnx.ModelProto) -> None:
    _of_two_activations(model, 2.0)


def _of_two_activations(model: onnx.ModelProto, offset: float) -> None:
    model.graph.initializer.remove(initializer(model, "matmul.w"))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [16, 32]))
    model.graph.node.insert(0, quant("other.quant", "z", offset))
    node(model, "matmul").input[1] = "other.quant.out"


@breaks("two-activations-one-float")
def _(model: onnx.ModelProto) -> None:
    _of_two_activations(model, 0.0)
    node(model, "matmul").input[1] = "z"


@breaks("two-activations-no-gain")
def _(model: onnx.ModelProto) -> None:
    _of_two_activations(model, 0.0)


@breaks("weight-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 32, 3, 3), np.float32))


@breaks("weight-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 32, 3, 3), np.uint8))


@breaks("activation-not-quantized")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv").input[0] = "x"


@breaks("matmul-weight-rank")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.w", np.ones((1, 16, 32), np.int8))


@breaks("weight-moved")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.w", np.ones((32, 16), np.int8))
    insert_behind(model, "matmul.w", "Transpose", perm=[1, 0])


@breaks("bias-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.b", np.ones(32, np.float32))


@breaks("bias-variable")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.b", "Abs")


@breaks("bias-shape", "chain")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.b", np.ones((1, 32), np.int32))


@breaks("bias-shape")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "gemm.b", np.ones((1,), np.int32))


@breaks("channel-scales")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "gemm.dequant.param", deq_scale(16))


@breaks("accumulator")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.w", np.full((140_000, 2), -128, np.int8))
    set_initializer(model, "matmul.b", np.zeros(2, np.int32))


@breaks("accumulator")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.b", np.full(32, -(2**31), np.int64).astype(np.int32))


@breaks("chain-offset")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.quant.out", "Transpose", perm=[0, 1, 3, 2])


@breaks("chain-offset")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.out", "Transpose", perm=[0, 1, 3, 2])


@breaks("chain")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "deconv.out", "Neg")


@breaks("pad-value")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    insert_behind(model, "conv.quant.out", "Pad", ["pads"])


@breaks("not-dequantized")
def _(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("conv.out", TensorProto.INT32, [1, 32, 8, 8]))


@breaks("not-dequantized")
def _(model: onnx.ModelProto) -> None:
    """A subgraph that kept the name of the int32 sum."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["conv.out"], ["inner"], "inner")],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    set_initializer(model, "condition", np.array(True))
    made = helper.make_node("If", ["condition"], ["s1"], "if", then_branch=inner, else_branch=copy.deepcopy(inner))
    made.attribute[1].g.node[0].name = "inner2"
    made.attribute[1].g.node[0].output[0] = made.attribute[1].g.output[0].name = "inner2"
    node(model, "sigmoid1").CopyFrom(made)


@breaks("not-dequantized", "dequant-without-layer")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.dequant").input[0] = "conv.quant.out"


@breaks("dequant-without-layer")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "lone.param", deq_scale(1))
    model.graph.node.append(dequant("lone", "x"))


@breaks("int8-reader")
def _(model: onnx.ModelProto) -> None:
    node(model, "sum").input[1] = "skip.quant.out"


@breaks("int8-output")
def _(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("skip.quant.out", TensorProto.INT8, [1, 32]))


def _as_1d(model: onnx.ModelProto, name: str) -> None:
    set_initializer(model, f"{name}.w", np.ones((32, 32, 3), np.int8))
    set_attribute(model, name, kernel_shape=[3], strides=[1], dilations=[1], pads=[1, 1])


@breaks("conv-1d-offset")
def _(model: onnx.ModelProto) -> None:
    _as_1d(model, "conv")


@breaks("conv-1d")
def _(model: onnx.ModelProto) -> None:
    _as_1d(model, "deconv")


@breaks("small-channels", "small-channels-unproven")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 16, 3, 3), np.int8))


@breaks("requant-fusion")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Relu"


@breaks("layer-undocumented")
def _(model: onnx.ModelProto) -> None:
    """Nothing to break: the good model holds such layers."""


@breaks("add-undocumented")
def _(model: onnx.ModelProto) -> None:
    model.graph.node.insert(
        -1, helper.make_node("AscendAntiQuant", ["skip.quant.out"], ["more"], "more", scale=0.125, offset=-5.0, dtype=0)
    )
    node(model, "sum").input[0] = "more"
