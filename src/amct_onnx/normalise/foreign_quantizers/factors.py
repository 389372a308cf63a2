"""Factors of a foreign node: scale, zero point, range and bit width, checked to be constant and usable."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.normalise.foreign_quantizers.grid import ROUNDING

MAX_BITS = 32


def tensor_of(node: ir.Node) -> ir.Value:
    """The tensor that a node quantizes: its first input.

    Raises:
        UnsupportedModelError: The node has none.
    """
    value = node.inputs[0] if node.inputs else None
    if value is None:
        raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}) has no input. Export the model again.")
    return value


def scale_of(node: ir.Node, index: int, constants: ConstantEvaluator) -> Array:
    """A constant input that must be positive, in float32.

    Raises:
        FactorError: It is missing, not constant, not finite or not positive.
    """
    name, array = _constant_input(node, index, constants)
    return usable(node, name, array.astype(np.float32), positive=True)


def factor_of(node: ir.Node, index: int, constants: ConstantEvaluator) -> Array:
    """A constant input, in float64.

    Raises:
        FactorError: It is missing, empty, not constant or not finite.
    """
    name, array = _constant_input(node, index, constants)
    return usable(node, name, array.astype(np.float64))


def _constant_input(node: ir.Node, index: int, constants: ConstantEvaluator) -> tuple[str, Array]:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        raise FactorError(
            f"Node '{node.name}' ({node.op_type}): its input {index}, a factor of the quantizer, is missing. Export "
            "the model again."
        )
    if not constants.is_constant(value):
        raise FactorError(
            f"Node '{node.name}' ({node.op_type}): its input '{value.name}' is not constant. "
            "Export the model with fixed (frozen) quantizers."
        )
    return str(value.name), np.asarray(constants.array(value))


def usable(node: ir.Node, name: str, array: Array, positive: bool = False) -> Array:
    """The numbers of a factor, when a quantizer can have them.

    Raises:
        FactorError: There are none, or one is not finite or, where it must be, not positive.
    """
    if not array.size or not np.all(np.isfinite(array)) or (positive and not np.all(array > 0)):
        raise FactorError(
            f"Node '{node.name}': '{name}' holds {array.reshape(-1)[:4].tolist()}; a scale must be positive "
            "and finite. Calibrate or train the quantizer again."
        )
    return array


def bits_of(node: ir.Node, index: int, constants: ConstantEvaluator) -> int:
    """The bit width that a constant input holds.

    Raises:
        FactorError: See ``factor_of``.
        UnsupportedModelError: It is not one integer from 1 to 32.
    """
    bits = np.unique(factor_of(node, index, constants))
    if bits.size != 1 or bits[0] != np.rint(bits[0]):
        raise _no_bits(node, str(bits[:4].tolist()))
    return _checked(node, int(bits[0]))


def bits_attribute(node: ir.Node, name: str, default: int) -> int:
    """The bit width that an attribute holds.

    Raises:
        UnsupportedModelError: It is not one integer from 1 to 32.
    """
    return _checked(node, checked_attribute(node, name, default))


def _checked(node: ir.Node, bits: int) -> int:
    if not 1 <= bits <= MAX_BITS:
        raise _no_bits(node, str(bits))
    return bits


def _no_bits(node: ir.Node, stated: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Node '{node.name}': bit width {stated}. Use one integer bit width from 1 to {MAX_BITS}."
    )


def rounding_of(node: ir.Node, default: str) -> str:
    """The rounding mode of a QONNX node, a key of ROUNDING.

    Raises:
        UnsupportedModelError: It is unknown.
    """
    mode = checked_attribute(node, "rounding_mode", default).upper()
    if mode not in ROUNDING:
        raise UnsupportedModelError(f"Node '{node.name}': rounding mode {mode} is unknown. Use {default}.")
    return mode


def check_range(node: ir.Node, low: Array, high: Array) -> None:
    """Refuse a range without a step.

    Raises:
        FactorError: Somewhere the range ends before it begins, or its ends have no common shape.
    """
    try:
        empty = not np.all(np.greater(high, low))
    except ValueError:
        raise FactorError(
            f"Node '{node.name}': a range from shape {list(low.shape)} to shape {list(high.shape)}. "
            "Export the model again."
        ) from None
    if empty:
        raise FactorError(f"Node '{node.name}': an empty range. Calibrate or train the quantizer again.")
