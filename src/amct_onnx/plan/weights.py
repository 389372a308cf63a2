"""Resolve a layer's weight to int8: Q/DQ pair, integers behind a DQ, or floats that lie on a grid already."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import QuantizationScratch, quantize_weight
from amct_onnx.common.arrays import Array, Float32, Int8, Int64
from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.files.file_tensor import row_blocks
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.layers import Layout, along, part_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op
from amct_onnx.graph.refused import Refusal
from amct_onnx.plan.asymmetric_weights import MOVED, SHIFTED, Blocks, ends_of, shift_into_int8, shifted
from amct_onnx.plan.factors import Weight
from amct_onnx.plan.grid_weights import recover_grid
from amct_onnx.plan.quantizers import RANGES, RawFactors, clip_bounds, clipped, raw_factors
from amct_onnx.plan.settings import PlanSettings

MAX_UINT8 = 255
"""Largest magnitude of an 8-bit integer minus its zero point."""
REARRANGING = ("Transpose", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice")
"""Operators that may stand between a weight's DequantizeLinear and its layer."""


@dataclass(frozen=True)
class ResolvedWeight(Weight):
    """A weight in the layout in which the layer reads it: weight = (integers + shift) * scale.

    Attributes:
        axis: the axis that scale and shift belong to; None when per-tensor.
        detail: text for the ledger about the weight; empty in the usual case.
        shift: int64, shape of scale; None for a symmetric weight. The layer then needs the sum of its input's integers.
    """

    axis: int | None = None
    detail: str = ""
    shift: Int64 | None = None


NO_SCALE = np.float32(2.0**-7)
"""Stands for the scale 0 of a tensor whose elements are all 0; in it a bias is counted."""
DEAD_RATIO = 2.0**-16
"""A scale so far below the largest one is looked into: its channel may be dead."""


def resolve_weight(
    value: ir.Value | None, layout: Layout, constants: ConstantEvaluator, settings: PlanSettings
) -> ResolvedWeight:
    """Follow a weight input up to its constant.

    Args:
        value: second input of the layer.
        layout: layout of the weight as the layer reads it.
        constants: evaluator of the graph.
        settings: what to do with float weights on a grid, and with asymmetric ones.

    Raises:
        Refusal: The weight is not constant, not quantized, or no symmetric int8 holds it.
        FactorError: Scales that are not positive and finite.
    """
    if value is None or not constants.is_constant(value):
        raise Refusal(
            "weight-not-constant",
            f"its second input '{value.name if value else ''}' is not a constant",
            "Use a constant weight, or keep it float.",
        )
    chain: list[ir.Node] = []
    node = value.producer()
    while is_op(node, *REARRANGING) and node is not None and node.inputs[0] is not None:
        chain.append(node)
        node = node.inputs[0].producer()
    if node is None or not is_op(node, DEQUANTIZE) or node.inputs[0] is None:
        return _on_a_grid(value, layout, constants, settings)
    return _rearranged(_behind_dequantize(node, value, constants, settings), chain, constants)


def _behind_dequantize(
    dq: ir.Node, value: ir.Value, constants: ConstantEvaluator, settings: PlanSettings
) -> ResolvedWeight:
    scale, zero, axis, kind = _eight_bit_factors(dq, value, constants)
    low, high, shift, _ = RANGES[kind]
    source, quantizer, clips = _quantized_source(dq, constants)
    if quantizer is not None and not _equal_factors(
        raw_factors(quantizer, constants, zero_scales=True), (scale, zero, axis)
    ):
        raise Refusal(
            "weight-factors-differ",
            f"QuantizeLinear '{quantizer.name}' and DequantizeLinear '{dq.name}' of its weight differ",
            "Export the model again with equal factors.",
        )
    tensor = constants.tensor(source)
    shape = tuple(tensor.shape.numpy()) if tensor is not None else constants.array(source).shape
    if axis is not None:
        axis = _axis_from_front(axis, scale.size, shape, f"Node '{dq.name}'", f"the weight '{source.name}'")
    low, high = clipped(low, high, clips, shift)
    zero = zero - shift
    asymmetric = bool(np.any(zero))
    dead = scale == 0
    scale = np.where(dead, NO_SCALE, scale)
    wide_scale, wide_zero = along(scale, shape, axis), along(zero, shape, axis)
    alive = along(~dead, shape, axis) if np.any(dead) else None

    as_stored = quantizer is None and kind == ir.DataType.INT8 and not clips and not asymmetric and alive is None

    def numbers() -> Blocks:
        """Integers minus their zero point, as int16 where they may not fit int8."""
        scratch = QuantizationScratch(np.int16 if asymmetric else np.int8)
        for index, array in row_blocks(tensor if tensor is not None else ir.tensor(constants.array(source))):
            offset = part_of(wide_zero, index) if asymmetric else 0
            if as_stored:
                yield index, array
                continue
            if quantizer is None:
                integers = np.clip(array.astype(np.int16) - shift, low, high) - offset
                yield index, integers if alive is None else integers * part_of(alive, index)
                continue
            try:
                # a scale of 0 makes 0 of every element
                floats = array if alive is None else array * part_of(alive, index)
                yield index, quantize_weight(floats, part_of(wide_scale, index), low - offset, high - offset, scratch)
            except ValueError as error:
                raise UnsupportedModelError(
                    f"Tensor '{source.name}': {error}. Train or export the model again."
                ) from error

    beyond, detail = None, ""
    if asymmetric:
        beyond = shift_into_int8(ends_of(numbers(), shape, axis, scale.size), value, settings)
        detail = MOVED if beyond is None else SHIFTED
    blocks = shifted(numbers, beyond, shape, axis)
    if axis is not None and beyond is None and (np.any(dead) or scale.min() < DEAD_RATIO * scale.max()):
        scale = scales_of_the_living(np.where(dead, np.float32(0), scale), axis, numbers())
    key = (source.name, scale.tobytes(), zero.tobytes(), axis, low, high)
    return _weight_of(blocks, shape, scale, source, key, axis=axis, detail=detail, shift=beyond)


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
    factors = raw_factors(dq, constants, zero_scales=True)
    kind = integer_type(dq, constants)
    if kind not in RANGES or RANGES[kind][3] != 8:
        raise Refusal(
            "weight-type", f"its weight '{value.name}' is of type {kind.name}", "Quantize the weight to 8 bits."
        )
    return (*factors, kind)


def scales_of_the_living(scale: Float32, axis: int, blocks: Blocks) -> Float32:
    """The scales, those of channels whose integers are all 0 not below the smallest scale of the others.

    Such a channel has the same values under any scale. A tiny one would push its bias out of int32.

    Args:
        scale: float32 [channels]; 0 for a channel that has none.
        axis: of the channels in the weight.
        blocks: of the integers.
    """
    alive = np.zeros(scale.size, bool)
    for index, array in blocks:
        others = tuple(a for a in range(array.ndim) if a != axis)
        part = index[axis] if axis < len(index) else slice(None)
        alive[part] |= np.any(array, axis=others)
    floor = scale[alive].min() if np.any(alive) else NO_SCALE
    return np.where(alive, scale, np.maximum(scale, floor)).astype(np.float32)


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


def _assembled(blocks: Iterator[Int8], shape: tuple[int, ...]) -> Int8:
    result = np.empty(shape, np.int8)
    flat, done = result.reshape(-1), 0
    for part in blocks:
        flat[done : done + part.size] = part.reshape(-1)
        done += part.size
    return result


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


def _rearranged(weight: ResolvedWeight, chain: list[ir.Node], constants: ConstantEvaluator) -> ResolvedWeight:
    """The weight behind Transposes, Casts and reshapes; ``chain`` runs from the layer back to the DQ."""
    for node in reversed(chain):
        if node.op_type == "Transpose":
            weight = _transposed(weight, node)
        elif node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            weight = _reshaped(weight, node, constants)
        elif node.op_type == "Slice":
            weight = _sliced(weight, node, constants)
    return weight


def _transposed(weight: ResolvedWeight, node: ir.Node) -> ResolvedWeight:
    rank = len(weight.shape)
    perm = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise UnsupportedModelError(
            f"Node '{node.name}' (Transpose): perm {list(perm)} is not an order of the {rank} axes of the weight "
            f"'{weight.name}'. Export the model again."
        )
    return dataclasses.replace(
        weight,
        integers=lambda: np.ascontiguousarray(weight.integers().transpose(perm)),
        shape=tuple(weight.shape[p] for p in perm),
        axis=None if weight.axis is None else perm.index(weight.axis),
        key=(*weight.key, perm),
        blocks=None,
    )


def _sliced(weight: ResolvedWeight, node: ir.Node, constants: ConstantEvaluator) -> ResolvedWeight:
    starts, ends, *more = ([int(n) for n in np.asarray(constants.array(v)).reshape(-1)] for v in node.inputs[1:] if v)
    axes = more[0] if more else list(range(len(starts)))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    parts = [slice(None)] * len(weight.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1 or weight.shift is not None:
            raise Refusal(
                "weight-not-constant",
                f"Slice '{node.name}' of its weight '{weight.name}' runs backwards, or cuts an asymmetric weight",
                "Store the part that the layer uses as a weight of its own.",
            )
        parts[axis] = slice(start, end, step)
    index = tuple(parts)
    scale = weight.scale if weight.axis is None else weight.scale[parts[weight.axis]]
    return dataclasses.replace(
        weight,
        integers=lambda: np.ascontiguousarray(weight.integers()[index]),
        shape=tuple(len(range(*p.indices(n))) for p, n in zip(parts, weight.shape, strict=True)),
        scale=scale,
        key=(*weight.key, str(index)),
        blocks=None,
    )


def _reshaped(weight: ResolvedWeight, node: ir.Node, constants: ConstantEvaluator) -> ResolvedWeight:
    shape = tuple(constants.array(node.outputs[0]).shape)
    if math.prod(shape) != math.prod(weight.shape):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}) makes {list(shape)} of the weight '{weight.name}' of shape "
            f"{list(weight.shape)}. Export the model again."
        )
    axis = weight.axis
    if axis is not None:
        # the channels keep their own axis when the number of elements before and behind them stays the same
        before, length = int(np.prod(weight.shape[:axis])), weight.shape[axis]
        fits = [a for a in range(len(shape)) if shape[a] == length and int(np.prod(shape[:a])) == before]
        if not fits:
            raise Refusal(
                "weight-axis",
                f"{node.op_type} '{node.name}' mixes the channels that the scales of '{weight.name}' belong to",
                "Quantize the weight per tensor, or in the layout of the layer.",
            )
        axis = fits[0]
    return dataclasses.replace(
        weight,
        integers=lambda: weight.integers().reshape(shape),
        shape=shape,
        axis=axis,
        key=(*weight.key, "reshape", shape),
    )


def _on_a_grid(value: ir.Value, layout: Layout, constants: ConstantEvaluator, settings: PlanSettings) -> ResolvedWeight:
    remedy = "Train the layer with a weight quantizer."
    if not settings.grid_weights:
        raise Refusal(
            "weight-not-quantized", f"its weight '{value.name}' has no QuantizeLinear/DequantizeLinear", remedy
        )
    array = constants.array(value)
    channel_axis = layout.channel_axis(array.ndim) if array.ndim > 1 else None
    recovered_grid = recover_grid(array, channel_axis) or recover_grid(array, channel_axis, MAX_UINT8)
    if recovered_grid is None:
        raise Refusal(
            "weight-not-quantized",
            f"its weight '{value.name}' has no QuantizeLinear/DequantizeLinear and does not lie on an int8 grid",
            remedy,
        )
    scale, axis = recovered_grid
    shape = tuple(array.shape)
    wide_scale = along(scale, shape, axis)

    def numbers() -> Blocks:
        tensor, scratch = constants.tensor(value), QuantizationScratch(np.int16)
        for index, floats in row_blocks(tensor if tensor is not None else ir.tensor(constants.array(value))):
            yield index, quantize_weight(floats, part_of(wide_scale, index), -MAX_UINT8, MAX_UINT8, scratch)

    shift = shift_into_int8(ends_of(numbers(), shape, axis, scale.size), value, settings)
    blocks = shifted(numbers, shift, shape, axis)
    detail = "float weight without Q/DQ that lies on an int8 grid: integers and scale recovered from its values"
    if shift is not None:
        detail += f"; {SHIFTED}"
    key = (value.name, scale.tobytes())
    return _weight_of(blocks, shape, scale, value, key, axis=axis, detail=detail, shift=shift)


def _weight_of(
    blocks: Callable[[], Iterator[Int8]],
    shape: tuple[int, ...],
    scale: Float32,
    source: ir.Value,
    key: tuple[object, ...],
    *,
    axis: int | None,
    detail: str,
    shift: Int64 | None,
) -> ResolvedWeight:
    """The weight whose integers come in blocks."""
    return ResolvedWeight(
        integers=lambda: _assembled(blocks(), shape),
        shape=shape,
        scale=scale,
        name=source.name or "weight",
        key=key,
        blocks=blocks,
        axis=axis,
        detail=detail,
        shift=shift,
    )
