"""What the quantizers behind a tensor let through."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.plan.next_quantizers import Passage, passage_of

SCALE = 0.5
ZERO: np.generic = np.int8(0)
OPEN = (-math.inf, math.inf)


def passage(*between: str, zero: np.generic = ZERO, consumers: int = 1) -> Passage | None:
    """Of an input that the operators lead to one or more quantizers."""
    nodes, tensor = [], "x"
    for i, kind in enumerate(between):
        inputs = [tensor, "x"] if kind in ("Add", "Mul") else [tensor]
        attributes = {"kernel_shape": [1, 1]} if kind == "MaxPool" else {}
        nodes.append(make_node(kind, inputs, [f"t{i}"], **attributes))
        tensor = f"t{i}"
    nodes += [make_node("QuantizeLinear", [tensor, "s", "z"], [f"q{i}"]) for i in range(consumers)]
    made = np.asarray(zero)
    graph = make_graph(
        nodes,
        "g",
        [make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [make_tensor_value_info(f"q{i}", TensorProto.UNDEFINED, None) for i in range(consumers)],
        [numpy_helper.from_array(np.float32(SCALE), "s"), numpy_helper.from_array(made, "z")],
    )
    model = ir.from_proto(make_model(graph, opset_imports=[make_opsetid("", 21)]))
    assert isinstance(model, ir.Model)
    return passage_of(model.graph.inputs[0], ConstantEvaluator(21))


@pytest.mark.parametrize(
    ("zero", "low", "high"), [(np.int8(0), -64.0, 63.5), (np.uint8(128), -64.0, 63.5), (np.uint8(0), 0.0, 127.5)]
)
def test_the_range_of_the_type_passes(zero: np.generic, low: float, high: float) -> None:
    assert passage(zero=zero) == passage("MaxPool", "Identity", zero=zero) == Passage(low, high, 127.5)


def test_a_relu_lets_nothing_below_zero_through() -> None:
    assert passage("Relu", consumers=2) == Passage(0.0, 63.5, 127.5)


@pytest.mark.parametrize("kind", ["Add", "Mul", "Sigmoid"])
def test_behind_other_operators_any_value_may_count_but_no_larger_difference(kind: str) -> None:
    assert passage("Relu", kind) == Passage(*OPEN, 127.5)


def test_sixteen_bits_let_more_through() -> None:
    assert passage(zero=np.int16(0)) == Passage(-16384.0, 16383.5, 32767.5)


def test_a_tensor_without_a_quantizer_has_none() -> None:
    assert passage("Relu", consumers=0) is None
