"""Models broken as a graph: inputs, opsets, names, external data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from support.broken_deploy_models.registry import breaks
from support.deploy_models import deq_scale, make_external, node, set_initializer


@breaks("no-graph-input")
def _(model: onnx.ModelProto) -> None:
    del model.graph.input[:]
    set_initializer(model, "x", np.zeros((1, 32, 8, 8), np.float32))


@breaks("no-graph-output")
def _(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


@breaks("output-not-produced")
def _(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "z"


@breaks("input-not-produced")
def _(model: onnx.ModelProto) -> None:
    node(model, "sum").input[1] = "nowhere"


@breaks("opset-entries")
def _(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


@breaks("opset-missing")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "com.example"


@breaks("opset-unregistered", "opset-undocumented")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


@breaks("opset-undocumented")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10


@breaks("opset-unregistered")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 7


@breaks("local-functions")
def _(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Sigmoid", ["a"], ["b"])]
    function = helper.make_function("local", "Soft", ["a"], ["b"], body, [helper.make_opsetid("", 13)])
    model.functions.append(function)
    node(model, "sigmoid1").op_type, node(model, "sigmoid1").domain = "Soft", "local"


@breaks("duplicate-name")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").name = "sigmoid1"


@breaks("duplicate-name")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").name = "x"


@breaks("duplicate-name")
def _(model: onnx.ModelProto) -> None:
    names = sorted(t.name for t in model.graph.initializer)
    node(model, "sigmoid2").name = f"conv.b_Initializer_{names.index('conv.b')}"


@breaks("duplicate-name", "unnamed-node")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").name = "Sigmoid_0"
    node(model, "sigmoid1").name = ""


@breaks("cycle")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Add"
    node(model, "sigmoid1").input.append("deconv.dequant.out")


@breaks("cycle")
def _(model: onnx.ModelProto) -> None:
    """Through a subgraph that captures what lies behind its holder."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["inner"], "inner")],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    set_initializer(model, "condition", np.array(True))
    made = helper.make_node("If", ["condition"], ["s1"], "if", then_branch=inner, else_branch=inner)
    node(model, "sigmoid1").CopyFrom(made)


@breaks("external-missing", "external-parameter")
def _(model: onnx.ModelProto) -> None:
    make_external(model, "conv.w", "absent.bin")


@breaks("external-missing")
def _(model: onnx.ModelProto) -> None:
    Path("short.bin").write_bytes(b"12")
    make_external(model, "conv.w", "short.bin")


@breaks("external-absolute")
def _(model: onnx.ModelProto) -> None:
    make_external(model, "conv.w", str(Path("weights.bin").resolve()))


@breaks("external-parameter")
def _(model: onnx.ModelProto) -> None:
    Path("param.bin").write_bytes(deq_scale(32).tobytes())
    make_external(model, "conv.dequant.param", "param.bin")


@breaks("constant-type")
def _(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type, tensor.raw_data = "odd", TensorProto.UINT4, b"\x12"
    tensor.dims.append(2)


@breaks("dynamic-input", "unknown-channels")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"


@breaks("dynamic-input")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")
