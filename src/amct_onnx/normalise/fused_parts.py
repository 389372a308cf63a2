"""What the rules for fused operators are written with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, known_as
from amct_onnx.graph.shapes import KEEP_SHAPE

AXES_INPUT_OPSET = 18
"""From which on ReduceMean takes its axes as an input."""
UNSQUEEZE_INPUT_OPSET = 13
"""From which on Unsqueeze does."""


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
        kind: ir.DataType | None = None,
    ) -> ir.Value:
        """One operator; without a label it takes over the node's name, without a kind the type of its result."""
        value = self.edit.node(op_type, inputs, node, label, attributes)
        value.type = next((v.type for v in node.outputs if v.type is not None), None)
        if kind is not None:
            value.type = ir.TensorType(kind)
        return value

    def binary(self, node: ir.Node, op_type: str, value: ir.Value, number: float, label: str) -> ir.Value:
        """An operator with a constant as its second input."""
        return self.op(node, op_type, [value, self.number(node, label or "factor", number)], label)

    def number(self, node: ir.Node, label: str, number: float) -> ir.Value:
        """A scalar of the node's float type."""
        return self.like(node, label, np.asarray(number, np.float32))

    def like(self, node: ir.Node, label: str, numbers: Array) -> ir.Value:
        """A constant of the node's float type; what exceeds float16 becomes its largest number."""
        half = ir.DataType.FLOAT16 in (v.dtype for v in (*node.inputs, *node.outputs) if v is not None)
        if half:
            largest = float(np.finfo(np.float16).max)
            numbers = np.clip(numbers, -largest, largest)
        return self.edit.constant(f"{node.name}/{label}/constant", numbers.astype(np.float16 if half else np.float32))

    def unsqueezed(self, node: ir.Node, value: ir.Value, axes: Sequence[int], label: str) -> ir.Value:
        """The value with axes of size 1 inserted."""
        inputs, attributes = [value], [ir.AttrInt64s("axes", axes)]
        if self.opset >= UNSQUEEZE_INPUT_OPSET:
            inputs, attributes = [value, self.integers(node, label, axes)], []
        return self.op(node, "Unsqueeze", inputs, label, attributes, value.dtype)

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
            f"Node '{known_as(node)}' ({node.op_type}) lacks its input {index}. Export the model again."
        )
    return value


def plus(parts: Parts, node: ir.Node, value: ir.Value, more: ir.Value | None) -> ir.Value:
    """The sum, where there is something to add."""
    return value if more is None else parts.op(node, "Add", [value, more], "add")
