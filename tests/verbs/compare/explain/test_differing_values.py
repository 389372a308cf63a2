"""Whatever differs between two models is told by its kind, in two texts that differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.verbs.compare.explain.change import Change
from amct_onnx.verbs.compare.explain.changes import changes

F = TensorProto.FLOAT


def network() -> onnx.ModelProto:
    """A node Constant, a float that needs nine digits, a long list, two outputs of one node, an If."""
    nodes = [
        helper.make_node(
            "Constant", [], ["pads"], "pads", value=numpy_helper.from_array(np.array([0, 1, 0, 1]), "held")
        ),
        helper.make_node("Pad", ["x", "pads"], ["padded"], "pad"),
        helper.make_node("LeakyRelu", ["padded"], ["leaky"], "leaky", alpha=0.1234567),
        helper.make_node("Split", ["leaky", "sizes"], ["one", "two"], "split", axis=1),
        helper.make_node("Add", ["one", "two"], ["sum"], "add"),
        helper.make_node("Constant", [], ["long"], "long", value_floats=[float(i) for i in range(12)]),
        helper.make_node("If", ["yes"], ["y"], "if", then_branch=body("Abs"), else_branch=body("Neg")),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F, [1, 4]), helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", F, [1, 3])],
        [numpy_helper.from_array(np.array([3, 3]), "sizes")],
        value_info=[helper.make_tensor_value_info("leaky", F, [1, 6])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def body(op_type: str) -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node(op_type, ["sum"], ["made"], op_type)],
        op_type,
        [],
        [helper.make_tensor_value_info("made", F, [1, 3])],
    )


def attribute(model: onnx.ModelProto, node: int, name: str) -> onnx.AttributeProto:
    return next(a for a in model.graph.node[node].attribute if a.name == name)


def constant(model: onnx.ModelProto) -> None:
    attribute(model, 0, "value").t.CopyFrom(numpy_helper.from_array(np.array([0, 2, 0, 1]), "held"))


def constant_type(model: onnx.ModelProto) -> None:
    attribute(model, 0, "value").t.CopyFrom(numpy_helper.from_array(np.array([0, 1, 0, 1], np.int32), "held"))


def digits(model: onnx.ModelProto) -> None:
    attribute(model, 2, "alpha").f = 0.1234569


def long_list(model: onnx.ModelProto) -> None:
    attribute(model, 5, "value_floats").floats[11] = np.nan


def other_output(model: onnx.ModelProto) -> None:
    model.graph.node[4].input[0] = "two"


def one_output_more(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("leaky", F, [1, 6]))


def false_type(model: onnx.ModelProto) -> None:
    model.graph.value_info[0].type.tensor_type.elem_type = TensorProto.INT8


def false_shape(model: onnx.ModelProto) -> None:
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 7


def input_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def in_a_body(model: onnx.ModelProto) -> None:
    attribute(model, 6, "else_branch").g.node[0].op_type = "Exp"


def newer_format(model: onnx.ModelProto) -> None:
    model.ir_version += 1


def older_format(model: onnx.ModelProto) -> None:
    model.ir_version = 3


def last_bit(model: onnx.ModelProto) -> None:
    held = attribute(model, 2, "alpha")
    held.f = float(np.nextafter(np.float32(held.f), np.float32(1)))


def outputs_exchanged(model: onnx.ModelProto) -> None:
    model.graph.node[3].output[:] = ["two", "one"]
    for name, size in (("one", 2), ("two", 4)):
        model.graph.value_info.append(helper.make_tensor_value_info(name, F, [1, size]))


def branches_exchanged(model: onnx.ModelProto) -> None:
    one, other = attribute(model, 6, "then_branch"), attribute(model, 6, "else_branch")
    one.name, other.name = other.name, one.name


def output_size(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def output_axis(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1


def output_type_in_a_body(model: onnx.ModelProto) -> None:
    attribute(model, 6, "else_branch").g.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[2].domain = "com.example"


def found_in(change: Callable[[onnx.ModelProto], None]) -> list[Change]:
    """The changes, of which the first is the one that was made."""
    model = network()
    change(model)
    written = ir.from_proto(network())
    return changes(written, ir.from_proto(model), written, "deploy")


@pytest.mark.parametrize(
    ("change", "cause", "node", "text"),
    [
        (
            constant,
            "constant-changed",
            "pads",
            "The value of Constant 'pads': 1 element is not what the conversion writes, 2 instead of 1 at [1].",
        ),
        (constant_type, "type-changed", "pads", "the type is int32; the conversion writes int64."),
        (digits, "attribute-changed", "leaky", "has alpha 0.123456903; the conversion writes 0.123456702."),
        (long_list, "constant-changed", "long", "1 element is not what the conversion writes, nan instead of 11 at"),
        (
            other_output,
            "wiring-changed",
            "add",
            "is what Split 'split' gives as output 1; the conversion gives it what Split 'split' gives as output 0.",
        ),
        (one_output_more, "declaration-changed", "leaky", "The deploy model has the output 'leaky', the source has"),
        (false_type, "type-changed", "leaky", "Tensor 'leaky', which LeakyRelu 'leaky' gives, is declared as INT8;"),
        (false_shape, "declaration-changed", "leaky", "is declared with shape [1,7]; the conversion writes [1,6]."),
        (input_type, "type-changed", "pad", "Input 'x' is DOUBLE; the conversion writes FLOAT."),
        (in_a_body, "node-replaced", "Neg", "'Neg' is Neg in the source and Exp in the deploy model."),
        (newer_format, "declaration-changed", "", "declares IR version 9; the conversion writes 8."),
        (older_format, "declaration-changed", "", "declares IR version 3; the conversion writes 8."),
        (last_bit, "attribute-changed", "leaky", "has alpha 0.123456709; the conversion writes 0.123456702."),
        (output_size, "declaration-changed", "if", "Output 'y' is declared with shape [1,4]; the conversion writes"),
        (output_axis, "declaration-changed", "if", "Output 'y' is declared with shape [1,3,1]; the conversion writes"),
        (output_type_in_a_body, "type-changed", "if", "The output 'made' of the else_branch of 'if' is declared as"),
        (other_domain, "node-replaced", "leaky", "is LeakyRelu of ai.onnx in the source and LeakyRelu of com.example"),
    ],
)
def test_change_is_told_by_its_kind(
    change: Callable[[onnx.ModelProto], None], cause: str, node: str, text: str
) -> None:
    found = found_in(change)
    assert [(c.cause, c.node) for c in found] == [(cause, node)]
    assert text in found[0].text


def test_outputs_that_were_exchanged_are_wiring() -> None:
    def both_declared(exchange: Callable[[onnx.ModelProto], None]) -> list[Change]:
        model, was = network(), network()
        for name, size in (("one", 2), ("two", 4)):
            was.graph.value_info.append(helper.make_tensor_value_info(name, F, [1, size]))
        exchange(model)
        written = ir.from_proto(was)
        return changes(written, ir.from_proto(model), written, "deploy")

    first = both_declared(outputs_exchanged)[0]
    assert (first.cause, first.node) == ("wiring-changed", "split")
    assert first.text == "Outputs 'one' and 'two' of Split 'split' have exchanged their places."


def test_branches_that_were_exchanged_are_wiring() -> None:
    found = found_in(branches_exchanged)
    assert {(c.cause, c.node) for c in found} == {("wiring-changed", "if")}
    assert "The then_branch of 'if' gives what Neg 'Neg' gives as 'made'; the source what Abs" in found[1].text


def test_the_order_of_attributes_is_no_change() -> None:
    def reordered(model: onnx.ModelProto) -> None:
        held = list(model.graph.node[6].attribute)
        del model.graph.node[6].attribute[:]
        model.graph.node[6].attribute.extend(reversed(held))

    assert not found_in(reordered)


def test_a_batch_that_was_fixed_is_no_change() -> None:
    """A free size of an input is the user's to fix; those of the other tensors follow. Another size is a change."""

    def batch(size: int | str) -> ir.Model:
        model = network()
        for declared in (model.graph.input[0], model.graph.value_info[0], model.graph.output[0]):
            dim = declared.type.tensor_type.shape.dim[0]
            dim.Clear()
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size
        return ir.from_proto(model)

    assert not changes(batch("n"), batch(8), batch("n"), "deploy")
    (change,) = changes(batch(1), batch(8), batch(1), "deploy")
    assert "Input 'x' is declared with shape [8,4]; the conversion writes [1,4]." in change.text
