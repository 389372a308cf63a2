"""Resolve the quantizer behind a tensor: factors by value, through Identity, Cast and Clip."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Float32
from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.quantizer_nodes import BETWEEN, QUANTIZE, integer_type, is_op
from amct_onnx.plan.factors import Quantizer

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


def raw_factors(node: ir.Node, constants: ConstantEvaluator, *, zero_scales: bool = False) -> RawFactors:
    """Scale (float32, flat), zero point (flat, same length) and axis (None when per-tensor) of a Q or DQ node.

    Args:
        node: QuantizeLinear or DequantizeLinear.
        constants: evaluator of the graph.
        zero_scales: whether a scale may be 0, which makes every element 0 (a dead channel of a weight).

    Raises:
        FactorError: Factors that are not constant, not positive and finite, or of unequal length.
    """
    scale_value = node.inputs[1]
    if scale_value is None or not constants.is_constant(scale_value):
        raise FactorError(
            f"Node '{node.name}': its scale is not constant. Export the model with fixed (frozen) quantizers."
        )
    scale_array = np.asarray(constants.array(scale_value))
    scale = scale_array.astype(np.float32).reshape(-1)
    usable = np.isfinite(scale) & ((scale >= 0) if zero_scales else (scale > 0))
    if scale.size == 0 or not np.all(usable):
        bad = scale[~usable][:1]
        raise FactorError(
            f"Node '{node.name}': scale tensor '{scale_value.name}' holds {bad.tolist() or 'nothing'}; a scale must be "
            "positive and finite. Calibrate or train the quantizer again."
        )
    zero_value = node.inputs[2] if len(node.inputs) > 2 else None
    zero: Array = np.zeros(scale.shape, np.int64)
    if zero_value is not None:
        if not constants.is_constant(zero_value):
            raise FactorError(
                f"Node '{node.name}': its zero point is not constant. Export the model with fixed quantizers."
            )
        zero = np.asarray(constants.array(zero_value)).astype(np.int64).reshape(-1)
        if zero.size not in (1, scale.size):
            raise FactorError(
                f"Node '{node.name}': {zero.size} zero points for {scale.size} scales. "
                "Export the model again with as many of both."
            )
        zero = np.broadcast_to(zero, scale.shape).copy()
    if scale.size == 1:
        return scale, zero, None
    if (
        scale_array.ndim > 1
        and max(scale_array.shape) != scale.size
        or "block_size" in node.attributes
        and (node.attributes["block_size"].as_int() > 0)
    ):
        raise FactorError(
            f"Node '{node.name}': blockwise scales are not supported. Use per-tensor or per-channel scales."
        )
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    return scale, zero, axis


def _check_length(node: ir.Node, source: ir.Value, scale: Float32, axis: int | None) -> None:
    """Raise FactorError where the tensor's declared shape has no axis of as many elements as there are scales."""
    shape = source.shape
    if axis is None or shape is None:
        return
    length = shape[axis] if -len(shape) <= axis < len(shape) else None
    if length is None or (isinstance(length, int) and length != scale.size):
        raise FactorError(
            f"Node '{node.name}': {scale.size} scales do not fit axis {axis} of tensor '{source.name}' of shape "
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
        UnsupportedModelError: An integer type without a known range.
    """
    scale, zero, axis = raw_factors(dq, constants)
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
    if not (np.array_equal(scale, q_scale) and np.array_equal(zero, q_zero) and axis == q_axis):
        raise FactorError(
            f"QuantizeLinear '{node.name}' has scale {q_scale[:4].tolist()} and zero point {q_zero[:4].tolist()}, its "
            f"DequantizeLinear '{dq.name}' has {scale[:4].tolist()} and {zero[:4].tolist()}. Export the model "
            "again with equal factors for a pair."
        )
    _check_length(node, node.inputs[0], scale, axis)
    if axis is not None and np.all(scale == scale[0]) and np.all(zero == zero[0]):
        scale, zero, axis = scale[:1], zero[:1], None  # equal factors on any axis are those of the whole tensor
    kind = integer_type(node, constants)
    if kind not in RANGES:
        raise UnsupportedModelError(
            f"Node '{node.name}' quantizes to {kind.name}, which is not an integer type of 2, 4, 8 or 16 bits. "
            "Use int8 or uint8."
        )
    low, high, shift, bits = RANGES[kind]
    low, high = clipped(low, high, clips, shift)
    source = node.inputs[0]
    zero_point = tuple(int(z) - shift for z in zero)
    return source, Quantizer(tuple(scale.tolist()), zero_point, low, high, axis, bits, shift, float_type_of(source))
