"""Resolve the quantizer behind a tensor: factors by value, through Identity, Cast and Clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Float32
from amct_onnx.common.small_floats import SMALL_FLOATS, SmallFloat
from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import known_as
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, integer_type, is_op
from amct_onnx.plan.factors import Blocks, Quantizer

RANGES = {
    ir.DataType.INT8: (-128, 127, 0, 8),
    ir.DataType.UINT8: (-128, 127, 128, 8),
    ir.DataType.INT2: (-2, 1, 0, 8),
    ir.DataType.UINT2: (-2, 1, 2, 8),
    ir.DataType.INT4: (-8, 7, 0, 8),
    ir.DataType.UINT4: (-8, 7, 8, 8),
    ir.DataType.INT16: (-32768, 32767, 0, 16),
    ir.DataType.UINT16: (-32768, 32767, 32768, 16),
}
"""Type -> smallest, largest integer after the shift, the shift, bits of the AscendQuant that would hold it."""


RawFactors = tuple[Float32, Array, int | None]
"""Scale, zero point and axis, see ``raw_factors``."""


def raw_factors(node: ir.Node, constants: ConstantEvaluator, *, any_scale: bool = False) -> RawFactors:
    """Scale (float32, flat), zero point (flat, same length) and axis (None when per-tensor) of a Q or DQ node.

    The scales of blocks come in row-major order, with the axis of the blocks: see ``blocks_of``.

    Args:
        node: QuantizeLinear or DequantizeLinear.
        constants: evaluator of the graph.
        any_scale: whether a scale may be any number: the caller looks at it.

    Raises:
        FactorError: Factors that are not constant, not positive and finite, or of unequal length.
    """
    scale_value, zero_value = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    # a pair's nodes mostly share their factors, and are asked for them by several parts of the plan
    known = constants.factors.get((scale_value, zero_value))
    if known is not None:
        return (*known, None)
    if scale_value is None or not constants.is_constant(scale_value):
        raise FactorError(
            f"Node '{known_as(node)}': its scale is not constant. Export the model with fixed (frozen) quantizers."
        )
    scale_array = np.asarray(constants.array(scale_value))
    scale = scale_array.astype(np.float32).reshape(-1)
    usable = np.isfinite(scale) & (scale > 0)
    if scale.size == 0 or not (any_scale or usable.all()):
        bad = scale[~usable][:1]
        raise FactorError(
            f"Node '{known_as(node)}': scale tensor '{scale_value.name}' holds {bad.tolist() or 'nothing'}; a scale "
            "must be positive and finite. Calibrate or train the quantizer again."
        )
    zero: Array
    if zero_value is None:
        zero = np.zeros(scale.shape, np.int64)
    else:
        if not constants.is_constant(zero_value):
            raise FactorError(
                f"Node '{known_as(node)}': its zero point is not constant. Export the model with fixed quantizers."
            )
        zero = np.asarray(constants.array(zero_value)).astype(np.int64).reshape(-1)
        if zero.size not in (1, scale.size):
            raise FactorError(
                f"Node '{known_as(node)}': {zero.size} zero points for {scale.size} scales. "
                "Export the model again with as many of both."
            )
        if zero.size != scale.size:
            zero = np.broadcast_to(zero, scale.shape).copy()
    if scale.size == 1:
        if usable.all():
            constants.factors[scale_value, zero_value] = scale, zero
        return scale, zero, None
    if scale_array.ndim > 1 and max(scale_array.shape) != scale.size and not attribute(node, "block_size", 0):
        raise FactorError(
            f"Node '{known_as(node)}': scales of shape {list(scale_array.shape)} need the attribute block_size. Use "
            "per-tensor or per-channel scales, or say the size of the blocks."
        )
    return scale, zero, attribute(node, "axis", 1)


def blocks_of(node: ir.Node, constants: ConstantEvaluator) -> Blocks | None:
    """The layout of a Q or DQ node's scales when there is one per block, else None."""
    size, scale = attribute(node, "block_size", 0), node.inputs[1]
    if size < 1 or scale is None:
        return None
    shape = tuple(constants.array(scale).shape)
    return Blocks(shape, size) if np.prod(shape) > 1 else None


def _check_length(node: ir.Node, source: ir.Value, scale: Float32, axis: int | None) -> None:
    """Raise FactorError where the tensor's declared shape has no axis of as many elements as there are scales."""
    shape = source.shape
    if axis is None or shape is None or attribute(node, "block_size", 0):
        return  # of blocks, the emitter looks: it needs the length of the axis
    length = shape[axis] if -len(shape) <= axis < len(shape) else None
    if length is None or (isinstance(length, int) and length != scale.size):
        raise FactorError(
            f"Node '{known_as(node)}': {scale.size} scales do not fit axis {axis} of tensor '{source.name}' of shape "
            f"{[d if isinstance(d, int) else str(d) for d in shape]}. Export the model again."
        )


def clip_bounds(node: ir.Node, constants: ConstantEvaluator) -> tuple[float, float]:
    """The constant bounds of a Clip."""
    bounds = [-np.inf, np.inf]
    for i in (1, 2):
        value = node.inputs[i] if len(node.inputs) > i else None
        if value is not None:
            bounds[i - 1] = float(np.asarray(constants.array(value)).reshape(-1)[0])
    for i, name in enumerate(("min", "max")):
        if name in node.attributes:
            bounds[i] = float(node.attributes[name].as_float())
    return bounds[0], bounds[1]


def clipped(low: int, high: int, clips: Iterable[tuple[float, float]], shift: int) -> tuple[int, int]:
    """What is left of a range of integers behind Clips.

    Args:
        low: smallest integer.
        high: largest integer.
        clips: see ``clip_bounds``; of integers that exceed those of the range by ``shift``.
        shift: 128 for uint8 in an int8 range.
    """
    for lower, upper in clips:
        low = max(low, int(np.ceil(max(lower, -1e9))) - shift)
        high = min(high, int(np.floor(min(upper, 1e9))) - shift)
    return low, high


def quantizer_of(dq: ir.Node, constants: ConstantEvaluator) -> tuple[ir.Value, Quantizer] | None:
    """The float tensor behind a DequantizeLinear and the factors of the pair; None when no QuantizeLinear is behind it.

    Raises:
        FactorError: The Q and the DQ of the pair have different factors.
        UnsupportedModelError: A type without a known range.
    """
    try:
        scale, zero, axis = raw_factors(dq, constants)
    except FactorError:
        if constants.is_constant(dq.outputs[0]):
            return None  # its numbers are computed as they are
        raise
    clips = []
    value = dq.inputs[0]
    node = value.producer() if value is not None else None
    while is_op(node, *BETWEEN) and node is not None and node.inputs[0] is not None:
        if node.op_type == "Clip":
            clips.append(clip_bounds(node, constants))
        node = node.inputs[0].producer()
    if not is_op(node, QUANTIZE) or node is None or node.inputs[0] is None:
        return None
    q_scale, q_zero, q_axis = raw_factors(node, constants)
    blocks = blocks_of(dq, constants)
    same = np.array_equal(scale, q_scale) and np.array_equal(zero, q_zero)
    if not (same and axis == q_axis and blocks == blocks_of(node, constants)):
        raise FactorError(
            f"QuantizeLinear '{known_as(node)}' has scale {q_scale[:4].tolist()} and zero point {q_zero[:4].tolist()}, "
            f"its DequantizeLinear '{known_as(dq)}' has {scale[:4].tolist()} and {zero[:4].tolist()}. Export the model "
            "again with equal factors for a pair."
        )
    _check_length(node, node.inputs[0], scale, axis)
    if axis is not None and np.all(scale == scale[0]) and np.all(zero == zero[0]):
        # equal factors on any axis are those of the whole tensor
        scale, zero, axis, blocks = scale[:1], zero[:1], None, None
    small = _small_float(node, zero, constants)
    low, high, shift, bits = _range(node, constants) if small is None else (-small.largest, small.largest, 0, 8)
    low, high = clipped(low, high, clips, shift)
    source = node.inputs[0]
    zero_point = tuple(int(z) - shift for z in zero)
    return source, Quantizer(
        *(tuple(scale.tolist()), zero_point, low, high, axis, bits, shift),
        *(float_type_of(source), blocks, small),
    )


def constant_grid(node: ir.Node | None, constants: ConstantEvaluator) -> Quantizer | None:
    """The grid on which a DequantizeLinear of constant integers lies: of 8 bits and one scale, else None."""
    if node is None or not is_op(node, DEQUANTIZE) or not constants.is_constant(node.outputs[0]):
        return None
    kind = integer_type(node, constants)
    if kind not in RANGES or RANGES[kind][3] != 8 or blocks_of(node, constants) is not None:
        return None
    try:
        scale, zero, axis = raw_factors(node, constants)
    except FactorError:
        return None
    low, high, shift, bits = RANGES[kind]
    factors = tuple(scale.tolist()), tuple(int(z) - shift for z in zero)
    return None if axis is not None else Quantizer(*factors, low, high, None, bits, shift)


def _range(node: ir.Node, constants: ConstantEvaluator) -> tuple[int, int, int, int]:
    """See RANGES.

    Raises:
        UnsupportedModelError: The type has no entry.
    """
    kind = integer_type(node, constants)
    if kind not in RANGES:
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' quantizes to {kind.name}, which is not an integer type of 2, 4, 8 or 16 bits, "
            "and not a type of float8 or float4. Use int8 or uint8."
        )
    return RANGES[kind]


def _small_float(node: ir.Node, zero: Array, constants: ConstantEvaluator) -> SmallFloat | None:
    """The type of float8 or float4 to which a QuantizeLinear rounds; None for integers.

    Raises:
        FactorError: It has a zero point, which such types have not.
    """
    small = SMALL_FLOATS.get(integer_type(node, constants).name)
    if small is not None and np.any(zero):
        raise FactorError(
            f"Node '{known_as(node)}' quantizes to {small.name} with a zero point that is not 0. Use the zero point 0."
        )
    return None if small is None else dataclasses.replace(small, saturates=bool(attribute(node, "saturate", 1)))
