"""The body of a Loop against what the conversion writes: its inputs have their meaning by their order."""

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


def looped() -> onnx.ModelProto:
    """Two carried tensors, which one trip halves and negates."""
    nodes = [
        helper.make_node("Identity", ["go"], ["on"], "again"),
        helper.make_node("Mul", ["a", "half"], ["smaller"], "mul"),
        helper.make_node("Neg", ["b"], ["negated"], "neg"),
    ]
    carried = [helper.make_tensor_value_info(n, F, [4]) for n in ("a", "b")]
    entries = [
        helper.make_tensor_value_info("number", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        *carried,
    ]
    made = [helper.make_tensor_value_info("on", TensorProto.BOOL, [])]
    made += [helper.make_tensor_value_info(n, F, [4]) for n in ("smaller", "negated")]
    half = numpy_helper.from_array(np.float32(0.5), "half")
    body = helper.make_graph(nodes, "body", entries, made, [half])
    loop = helper.make_node("Loop", ["trips", "", "x", "x"], ["y", "z"], "loop", body=body)
    graph = helper.make_graph(
        [loop],
        "g",
        [helper.make_tensor_value_info("x", F, [4])],
        [helper.make_tensor_value_info(n, F, [4]) for n in ("y", "z")],
        [numpy_helper.from_array(np.int64(1), "trips")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def inputs_exchanged(body: onnx.GraphProto) -> None:
    body.input[2].name, body.input[3].name = "b", "a"


def outputs_exchanged(body: onnx.GraphProto) -> None:
    body.output[1].name, body.output[2].name = "negated", "smaller"


def input_type(body: onnx.GraphProto) -> None:
    body.input[2].type.tensor_type.elem_type = TensorProto.INT8


def one_input_more(body: onnx.GraphProto) -> None:
    body.input.append(helper.make_tensor_value_info("c", F, [4]))


def input_renamed(body: onnx.GraphProto) -> None:
    body.input[2].name = body.node[1].input[0] = "first"


def found_in(change: Callable[[onnx.GraphProto], None]) -> list[Change]:
    model = looped()
    change(model.graph.node[0].attribute[0].g)
    written = ir.from_proto(looped())
    return changes(written, ir.from_proto(model), written, "deploy")


@pytest.mark.parametrize(
    ("change", "cause", "text"),
    [
        (inputs_exchanged, "wiring-changed", "Inputs 'a' and 'b' of the body of Loop 'loop' have exchanged their"),
        (outputs_exchanged, "wiring-changed", "The body of 'loop' gives what Neg 'neg' gives as 'negated'; the source"),
        (input_type, "type-changed", "The input 'a' of the body of 'loop' is declared as INT8; the conversion writes"),
        (one_input_more, "wiring-changed", "The body of 'loop' has 5 inputs; the conversion writes 4."),
    ],
)
def test_change_of_the_interface_is_named(change: Callable[[onnx.GraphProto], None], cause: str, text: str) -> None:
    found = found_in(change)
    assert {(c.cause, c.node) for c in found} == {(cause, "loop")}
    assert found[0].text.startswith(text)


def test_another_name_of_an_input_is_no_change() -> None:
    assert not found_in(input_renamed)


def test_another_place_of_a_renamed_input_is_one() -> None:
    def exchanged(body: onnx.GraphProto) -> None:
        input_renamed(body)
        body.input[2].name, body.input[3].name = "b", "first"

    assert {(c.cause, c.node) for c in found_in(exchanged)} == {("wiring-changed", "mul"), ("wiring-changed", "neg")}
