"""Models broken as a graph: inputs, opsets, names, external data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from support.broken_deploy_models.registry import Break, breaks
from support.deploy_models import deq_scale, initializer, make_external, node, set_initializer


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


@breaks("opset-undocumented")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10


@breaks("opset-twice", "opset-entries")
def _(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))


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


@breaks("external-missing")
def _(model: onnx.ModelProto) -> None:
    make_external(model, "conv.w", "absent.bin")


@breaks("external-missing")
def _(model: onnx.ModelProto) -> None:
    Path("short.bin").write_bytes(b"12")
    make_external(model, "conv.w", "short.bin")


@breaks("external-absolute")
def _(model: onnx.ModelProto) -> None:
    make_external(model, "conv.w", str(Path("weights.bin").resolve()))


@breaks("external-checksum")
def _(model: onnx.ModelProto) -> None:
    Path("param.bin").write_bytes(deq_scale(32).tobytes())
    make_external(model, "conv.dequant.param", "param.bin")
    initializer(model, "conv.dequant.param").external_data.add(key="checksum", value="00")


@breaks("external-in-branch")
def _(model: onnx.ModelProto) -> None:
    branch = _branch("then")
    Path("branch.bin").write_bytes(np.ones(1, np.float32).tobytes())
    branch.initializer.append(helper.make_tensor("then.k", TensorProto.FLOAT, [1], [0.0]))
    held = branch.initializer[0]
    held.ClearField("float_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="branch.bin")
    _insert_if(model, branch, _branch("else"))


def _branch(name: str, source: str = "conv.dequant.out") -> onnx.GraphProto:
    """A branch that copies an outer tensor."""
    return helper.make_graph(
        [helper.make_node("Identity", [source], [f"{name}.out"], f"{name}.copy")],
        name,
        [],
        [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, None)],
    )


def _insert_if(
    model: onnx.ModelProto, then_branch: onnx.GraphProto, else_branch: onnx.GraphProto, **more: object
) -> None:
    """Put an If in place of sigmoid1."""
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    made = helper.make_node("If", ["condition"], ["s1"], "if", then_branch=then_branch, else_branch=else_branch, **more)
    node(model, "sigmoid1").CopyFrom(made)


@breaks("if-attributes")
def _(model: onnx.ModelProto) -> None:
    _insert_if(model, _branch("then"), _branch("else"), is_constant=0)


@breaks("branch-output-captured")
def _(model: onnx.ModelProto) -> None:
    """A branch without a node, beside one that reads another tensor."""
    output = [helper.make_tensor_value_info("conv.dequant.out", TensorProto.FLOAT, None)]
    _insert_if(model, helper.make_graph([], "then", [], output), _branch("else", "x"))


@breaks("nested-capture")
def _(model: onnx.ModelProto) -> None:
    inner = helper.make_node("If", ["condition"], ["deep"], "inner", then_branch=_branch("a"), else_branch=_branch("b"))
    outer = helper.make_graph([inner], "then", [], [helper.make_tensor_value_info("deep", TensorProto.FLOAT, None)])
    _insert_if(model, outer, _branch("else", "x"))


def _constant(model: onnx.ModelProto, **attributes: object) -> None:
    """A Constant node whose content is added to the output of sigmoid1's reader."""
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "constant", **attributes))


for form in (
    {"value_int": 3},
    {"value_ints": [3, 4]},
    {"value_float": 0.5},
    {"value_floats": [0.5]},
    {"value_string": "a"},
    {"value_strings": ["a", "b"]},
    {
        "sparse_value": helper.make_sparse_tensor(
            helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [4]
        )
    },
):

    def _with_constant(model: onnx.ModelProto, form: dict[str, object] = form) -> None:
        _constant(model, **form)

    breaks("constant-attribute")(_with_constant)


@breaks("constant-without-data")
def _(model: onnx.ModelProto) -> None:
    initializer(model, "conv.b").ClearField("raw_data")


@breaks("constant-output")
def _(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Abs", ["matmul.w"], ["fixed"], "fixed"))
    model.graph.output.append(helper.make_tensor_value_info("fixed", TensorProto.INT8, [16, 32]))


@breaks("constant-output")
def _(model: onnx.ModelProto) -> None:
    """An initializer itself, in front of the output that takes its name."""
    model.graph.output.insert(0, helper.make_tensor_value_info("matmul.w", TensorProto.INT8, [16, 32]))


@breaks("constant-type")
def _(model: onnx.ModelProto) -> None:
    _odd_constant(model, TensorProto.UINT4)


@breaks("constant-type")
def _(model: onnx.ModelProto) -> None:
    _odd_constant(model, TensorProto.FLOAT8E4M3FN)


@breaks("constant-int4")
def _(model: onnx.ModelProto) -> None:
    _odd_constant(model, TensorProto.INT4)


def _odd_constant(model: onnx.ModelProto, kind: int) -> None:
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type, tensor.raw_data = "odd", kind, b"\x12"
    tensor.dims.append(1)


def _odd_input(kind: int) -> Break:
    return lambda model: model.graph.input.append(helper.make_tensor_value_info("extra", kind, [2]))


for kind in (TensorProto.UINT4, TensorProto.FLOAT8E5M2FNUZ):
    breaks("input-type")(_odd_input(kind))
breaks("input-int4")(_odd_input(TensorProto.INT4))


@breaks("input-type")
def _(model: onnx.ModelProto) -> None:
    model.graph.input.add().name = "extra"


@breaks("input-type")
def _(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_sequence_value_info("extra", TensorProto.FLOAT, None))


@breaks("dynamic-input", "unknown-channels")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"


@breaks("dynamic-input")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")
