"""A weight's constant behind its DequantizeLinear: its factors, and its integers read part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import QuantizationScratch, quantize_weight
from amct_onnx.common.arrays import Array, Float32
from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.files.file_tensor import row_blocks
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import known_as
from amct_onnx.graph.layers import along, part_of
from amct_onnx.graph.quantizer_nodes import QUANTIZE, integer_type, is_op
from amct_onnx.graph.refused import Refusal
from amct_onnx.plan.asymmetric_weights import Blocks
from amct_onnx.plan.quantizers import RANGES, RawFactors, clip_bounds, clipped, raw_factors


@dataclass(frozen=True)
class StoredWeight:
    """A weight's constant behind its DequantizeLinear, before anything of it is read.

    Attributes:
        source: the constant; of integers, or of floats in front of ``quantizer``.
        quantizer: the QuantizeLinear over it; None for integers.
        scale, zero: flat; zero is what the range's own shift leaves. A scale of a dead channel may be 0 or negative.
        axis: counted from the front; None when per-tensor.
        low, high: smallest and largest integer after the shift.
        shift: what is subtracted from stored integers.
        narrowed: whether Clips or a type other than int8 stand between what is stored and what is meant.
    """

    source: ir.Value
    quantizer: ir.Node | None
    scale: Float32
    zero: Array
    axis: int | None
    shape: tuple[int, ...]
    low: int
    high: int
    shift: int
    narrowed: bool


def stored_weight(dq: ir.Node, value: ir.Value, constants: ConstantEvaluator) -> StoredWeight:
    """What a weight's DequantizeLinear reads.

    Raises:
        Refusal: Its factors are of another kind, or differ from those of its QuantizeLinear.
        FactorError: See ``raw_factors``; or the axis does not exist.
    """
    scale, zero, axis, kind = _eight_bit_factors(dq, value, constants)
    if not np.isfinite(scale).all():
        raise Refusal(
            "weight-scale",
            f"a scale of its weight '{value.name}' is {scale[~np.isfinite(scale)][0]}",
            "Calibrate or train the quantizer again.",
        )
    low, high, shift, _ = RANGES[kind]
    source, quantizer, clips = _quantized_source(dq, constants)
    if quantizer is not None and not _equal_factors(
        raw_factors(quantizer, constants, any_scale=True), (scale, zero, axis)
    ):
        raise Refusal(
            "weight-factors-differ",
            f"QuantizeLinear '{known_as(quantizer)}' and DequantizeLinear '{known_as(dq)}' of its weight differ",
            "Export the model again with equal factors.",
        )
    tensor = constants.tensor(source)
    shape = tuple(tensor.shape.numpy()) if tensor is not None else constants.array(source).shape
    if axis is not None:
        axis = _axis_from_front(axis, scale.size, shape, f"Node '{known_as(dq)}'", f"the weight '{source.name}'")
    low, high = clipped(low, high, clips, shift)
    narrowed = kind != ir.DataType.INT8 or bool(clips)
    return StoredWeight(source, quantizer, scale, zero - shift, axis, shape, low, high, shift, narrowed)


def integers_of(
    stored: StoredWeight, scale: Float32, dead: Array, constants: ConstantEvaluator
) -> Callable[[], Blocks]:
    """Yields integers minus their zero point, as int16 where they may not fit int8.

    Args:
        stored: the weight.
        scale: without zeros.
        dead: where the weight's own scale is 0, which makes 0 of every element.
        constants: evaluator of the graph.
    """
    source, shape, shift, low, high = stored.source, stored.shape, stored.shift, stored.low, stored.high
    asymmetric = bool(stored.zero.any())
    wide_scale, wide_zero = along(scale, shape, stored.axis), along(stored.zero, shape, stored.axis)
    alive = along(~dead, shape, stored.axis) if dead.any() else None
    as_stored = stored.quantizer is None and not stored.narrowed and not asymmetric and alive is None

    def numbers() -> Blocks:
        tensor, scratch = constants.tensor(source), QuantizationScratch(np.int16 if asymmetric else np.int8)
        for index, array in row_blocks(tensor if tensor is not None else ir.tensor(constants.array(source))):
            offset = part_of(wide_zero, index) if asymmetric else 0
            if as_stored:
                yield index, array
                continue
            if stored.quantizer is None:
                integers = np.clip(array.astype(np.int16) - shift, low, high) - offset
                yield index, integers if alive is None else integers * part_of(alive, index)
                continue
            try:
                floats = array if alive is None else array * part_of(alive, index)
                yield index, quantize_weight(floats, part_of(wide_scale, index), low - offset, high - offset, scratch)
            except ValueError as error:
                raise UnsupportedModelError(
                    f"Tensor '{source.name}': {error}. Train or export the model again."
                ) from error

    return numbers


def _eight_bit_factors(
    dq: ir.Node, value: ir.Value, constants: ConstantEvaluator
) -> tuple[Float32, Array, int | None, ir.DataType]:
    """Scale, zero point, axis and type of a weight's DequantizeLinear.

    Raises:
        Refusal: Scales of blocks, or integers of another size.
    """
    block = attribute(dq, "block_size", 0)
    if block > 0:
        raise Refusal(
            "weight-blockwise",
            f"its weight '{value.name}' has one scale per block of {block} elements",
            "Quantize the weight per tensor or per output channel.",
        )
    factors = raw_factors(dq, constants, any_scale=True)
    kind = integer_type(dq, constants)
    if kind not in RANGES or RANGES[kind][3] != 8:
        raise Refusal(
            "weight-type", f"its weight '{value.name}' is of type {kind.name}", "Quantize the weight to 8 bits."
        )
    return (*factors, kind)


def _equal_factors(one: RawFactors, other: RawFactors) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1]) and one[2] == other[2]


def _axis_from_front(axis: int, scales: int, shape: tuple[int, ...], node: str, weight: str) -> int:
    """The axis counted from the front.

    Raises:
        FactorError: The weight has no such axis, or one of another length than there are scales.
    """
    tensor = f"{weight} of shape {list(shape)}"
    if not -len(shape) <= axis < len(shape):
        raise FactorError(f"{node}: axis {axis} does not exist in {tensor}. Export the model again.")
    axis %= len(shape)
    if scales != shape[axis] and not _fits_groups(scales, shape, axis):
        raise FactorError(f"{node}: {scales} scales do not fit axis {axis} of {tensor}. Export the model again.")
    return axis


def _fits_groups(size: int, shape: tuple[int, ...], axis: int) -> bool:
    """Whether there is one factor per output channel of a grouped ConvTranspose, whose axis 1 counts one group."""
    return axis > 0 and shape[axis] > 0 and size % shape[axis] == 0 and shape[0] % (size // shape[axis]) == 0


def _quantized_source(
    dq: ir.Node, constants: ConstantEvaluator
) -> tuple[ir.Value, ir.Node | None, list[tuple[float, float]]]:
    """The constant behind a DQ, the QuantizeLinear over it (None for integers) and the bounds of Clips between."""
    assert dq.inputs[0] is not None
    source = dq.inputs[0]
    clips: list[tuple[float, float]] = []
    while True:
        producer = source.producer()
        if producer is None or not is_op(producer, "Identity", "Cast", "Clip", QUANTIZE) or producer.inputs[0] is None:
            return source, None, clips
        if producer.op_type == QUANTIZE:
            return producer.inputs[0], producer, clips
        if producer.op_type == "Clip":
            clips.append(clip_bounds(producer, constants))
        source = producer.inputs[0]
