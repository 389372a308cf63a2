"""Mul and Div by one constant number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator

MUL, DIV = "Mul", "Div"


class Factor(NamedTuple):
    """What a node multiplies or divides, and by what.

    Attributes:
        value: the tensor; the result has its shape.
        op_type: MUL or DIV.
        number: above 0 and finite.
    """

    value: ir.Value
    op_type: str
    number: float


def factor_of(node: ir.Node, constants: ConstantEvaluator) -> Factor | None:
    """None for a node that is not such a Mul or Div: ``number / x``, by several numbers, or to another shape."""
    if node.op_type not in (MUL, DIV) or node.domain != "" or len(node.inputs) != 2:
        return None
    value, other = node.inputs
    if node.op_type == MUL and constants.is_constant(value):
        value, other = other, value
    if value is None or other is None or constants.is_constant(value) or not constants.is_constant(other):
        return None
    tensor = np.asarray(constants.array(other))
    if tensor.size == 0 or not keeps_shape(tensor.shape, value) or np.any(tensor != tensor.flat[0]):
        return None
    number = float(tensor.flat[0])
    return Factor(value, node.op_type, number) if 0 < number < np.inf else None


def keeps_shape(shape: tuple[int, ...], value: ir.Value) -> bool:
    """Whether a constant of this shape leaves that of a tensor as it is, when one is multiplied by the other."""
    if not shape:
        return True
    if value.shape is None or len(shape) > len(value.shape):
        return False
    own = list(value.shape)[len(value.shape) - len(shape) :]
    return all(length in (1, axis) for length, axis in zip(shape, own, strict=True))
