"""QuantizeLinear and DequantizeLinear of constants: all types and layouts of factors that ONNX has."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.small_floats import SMALL_FLOATS
from amct_onnx.errors import FactorError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import known_as

COMPUTED_TYPES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
"""What onnxruntime's QuantizeLinear gives as an array."""


def quantized_type(node: ir.Node, zero_point: Array | None) -> ir.DataType:
    """The type that a QuantizeLinear yields: said by its attribute, else by its zero point, else uint8."""
    stated = attribute(node, "output_dtype", 0)
    if stated or zero_point is None:
        return ir.DataType(stated or ir.DataType.UINT8)
    return ir.DataType.from_numpy(zero_point.dtype)


def quantize_constant(
    node: ir.Node, numbers: Array, scale: Array, zero_point: Array | None, kind: ir.DataType
) -> Array:
    """QuantizeLinear: round(numbers / scale) + zero_point, to the nearest even, saturated; of numbers' shape.

    The division is of float32. A float8 or float4 type holds the nearest of its own numbers.

    Raises:
        FactorError: Factors that fit neither the tensor nor its axis, or a type that no QuantizeLinear yields.
    """
    ratio = numbers.astype(np.float32) / _spread(node, scale, numbers.shape).astype(np.float32)
    small = SMALL_FLOATS.get(kind.name)
    if small is not None:
        saturates = bool(attribute(node, "saturate", 1))
        return dataclasses.replace(small, saturates=saturates).rounded(ratio).astype(kind.numpy())
    if not kind.is_integer():
        raise FactorError(f"Node '{known_as(node)}' quantizes to {kind.name}. Quantize to an integer or float8 type.")
    zero = 0 if zero_point is None else _spread(node, zero_point, numbers.shape).astype(np.int64)
    lowest = -(2 ** (kind.bitwidth - 1)) if kind.is_signed() else 0
    integers = np.rint(ratio) + zero
    return np.clip(integers, lowest, lowest + 2**kind.bitwidth - 1).astype(kind.numpy())


def dequantize_constant(
    node: ir.Node,
    integers: Array,
    scale: Array,
    zero_point: Array | None,
) -> Array:
    """DequantizeLinear: (integers - zero_point) * scale, in the type of scale, of integers' shape.

    Per-tensor, per-channel along ``axis`` and blockwise along ``axis`` (``block_size``), as in ONNX opset 21. The
    integers may be float8 or float4 numbers.

    Raises:
        FactorError: Factors that fit neither the tensor nor its axis.
    """
    if ir.DataType.from_numpy(integers.dtype).is_floating_point():
        values = integers.astype(np.float32)
    else:
        values = integers.astype(np.int64 if integers.dtype.itemsize > 2 else np.int32)
    if zero_point is not None:
        values = values - _spread(node, np.asarray(zero_point).astype(values.dtype), integers.shape)
    factors = _spread(node, scale, integers.shape).astype(np.float32)
    return np.asarray((values.astype(np.float32) * factors).astype(scale.dtype))


def _spread(node: ir.Node, factor: Array, shape: tuple[int, ...]) -> Array:
    """A factor of the tensor, of one axis or of blocks along an axis, broadcastable against the tensor.

    Raises:
        FactorError: It is none of these.
    """
    axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    if factor.size == 1:
        return factor.reshape([1] * len(shape))
    try:
        if block:
            spread = np.take(np.repeat(factor, block, axis=axis), range(shape[axis]), axis=axis)
        else:
            layout = [1] * len(shape)
            layout[axis] = -1
            spread = factor.reshape(layout)
        if np.broadcast_shapes(spread.shape, shape) == shape:
            return spread
    except (ValueError, IndexError):
        pass
    raise FactorError(
        f"Node '{known_as(node)}': scale of shape {list(factor.shape)} fits no axis {axis} of a tensor of shape "
        f"{list(shape)}. Export the model again."
    )
