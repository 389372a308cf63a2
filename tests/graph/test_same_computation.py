"""Two nodes have one key only where they have one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from amct_onnx.common.arrays import Array
from amct_onnx.graph import constants
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.same_computation import MAX_BYTES, computation

ONE = np.asarray([1, 2], np.int64)


def key(op_type: str, *inputs: Array | None, **attributes: Any) -> Any:
    values = [None if i is None else ir.Value(name=f"i{n}") for n, i in enumerate(inputs)]
    return computation(ir.node(op_type, values, attributes), inputs)


def test_nodes_that_do_the_same() -> None:
    assert key("Gather", ONE, np.asarray(0), axis=0) == key("Gather", ONE.copy(), np.asarray(0), axis=0) is not None


@pytest.mark.parametrize(
    "other",
    [
        key("Sub", ONE, ONE, axis=0),
        key("Add", ONE, ONE, axis=1),
        key("Add", ONE, ONE, axis=0.0),
        key("Add", ONE, ONE),
        key("Add", ONE, ONE + 1, axis=0),
        key("Add", ONE, ONE.astype(np.uint64), axis=0),
        key("Add", ONE, ONE[None], axis=0),
        key("Add", ONE, None, ONE, axis=0),
        key("Add", ONE, ONE, axis=0, value=ir.tensor([0])),
    ],
)
def test_nodes_that_do_not(other: Any) -> None:
    assert other is not None and other != key("Add", ONE, ONE, axis=0)


def test_what_a_tensor_of_an_attribute_decides() -> None:
    zeros, ones = (key("ConstantOfShape", ONE, value=ir.tensor(np.asarray([n], np.float32))) for n in (0, 1))
    negative = key("ConstantOfShape", ONE, value=ir.tensor(np.asarray([-0.0], np.float32)))
    assert len({zeros, ones, negative}) == 3


def test_what_is_not_kept() -> None:
    """Bytes of an array of strings are addresses."""
    assert key("Neg", np.zeros(MAX_BYTES + 1, np.int8)) is None
    assert key("Cast", np.asarray(["1"], object), to=7) is None


def test_equal_nodes_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ir.Node] = []
    original = constants._one_node
    monkeypatch.setattr(constants, "_one_node", lambda node, *more: made.append(node) or original(node, *more))
    stored = ir.Value(name="c", const_value=ir.tensor(ONE))
    ir.Graph([], [], nodes=[], initializers=[stored])
    outputs = [ir.Value(name=n) for n in "xyz"]
    kinds = ("Add", "Add", "Mul")
    nodes = [ir.node(k, [stored, stored], outputs=[o]) for k, o in zip(kinds, outputs, strict=True)]
    evaluator = ConstantEvaluator(17)
    assert [evaluator.array(n.outputs[0]).tolist() for n in nodes] == [[2, 4], [2, 4], [1, 4]]
    # each is made twice: to infer the size of its result, and to run it
    assert made == [nodes[0], nodes[0], nodes[2], nodes[2]]
