"""What the rules for fused operators are written with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor
from amct_onnx.graph.shapes import KEEP_SHAPE

AXES_INPUT_OPSET = 18
"""From which on ReduceMean takes its axes as an input."""


class Parts:
    """Inserts standard operators in front of the fused node that they stand for.

    Attributes:
        edit, constants, opset: of the model.
    """

    def __init__(self, edit: GraphEditor, constants: ConstantEvaluator, opset: int) -> None:
        self.edit, self.constants, self.opset = edit, constants, opset

    def op(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        label: str,
        attributes: Iterable[ir.Attr] = (),
    ) -> ir.Value:
        """One operator; without a label it takes over the node's name."""
        value = self.edit.node(op_type, inputs, node, label, attributes)
        kind = next((v.type for v in node.outputs if v.type is not None), None)
        value.type = kind
        return value

    def binary(self, node: ir.Node, op_type: str, value: ir.Value, number: float, label: str) -> ir.Value:
        """An operator with a constant as its second input."""
        return self.op(node, op_type, [value, self.number(node, label or "factor", number)], label)

    def number(self, node: ir.Node, label: str, number: float) -> ir.Value:
        """A scalar of the node's float type."""
        half = ir.DataType.FLOAT16 in (v.dtype for v in (*node.inputs, *node.outputs) if v is not None)
        content = np.asarray(number, np.float16 if half else np.float32)
        return self.edit.constant(f"{node.name}/{label}/constant", content)

    def integers(self, node: ir.Node, label: str, numbers: Sequence[int] | int) -> ir.Value:
        """An int64 constant."""
        return self.edit.constant(f"{node.name}/{label}/constant", np.asarray(numbers, np.int64))

    def mean(self, node: ir.Node, value: ir.Value, label: str) -> ir.Value:
        """The mean along the last axis, which stays with size 1."""
        if self.opset >= AXES_INPUT_OPSET:
            return self.op(node, "ReduceMean", [value, self.integers(node, label, [-1])], label)
        return self.op(node, "ReduceMean", [value], label, [ir.AttrInt64s("axes", [-1])])

    def shape(self, value: ir.Value) -> tuple[int | ir.SymbolicDim, ...] | None:
        """The shape of a tensor, also behind operators that keep that of their first input."""
        current: ir.Value | None = value
        while current is not None:
            if current.shape is not None:
                return tuple(current.shape)
            producer = current.producer()
            if producer is None or producer.op_type not in (*KEEP_SHAPE, "Relu") or not producer.inputs:
                break
            current = producer.inputs[0]
        return self.constants.array(value).shape if self.constants.is_constant(value) else None

    def rank(self, value: ir.Value) -> int | None:
        """Number of axes, where it is known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)


def given(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be omitted."""
    return node.inputs[index] if len(node.inputs) > index else None


def required(node: ir.Node, index: int) -> ir.Value:
    """An input.

    Raises:
        UnsupportedModelError: The node lacks it.
    """
    value = given(node, index)
    if value is None:
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}) lacks its input {index}. Export the model again."
        )
    return value
