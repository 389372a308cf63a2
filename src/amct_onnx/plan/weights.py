"""Resolve a layer's weight to int8: Q/DQ pair, integers behind a DQ, or floats that lie on a grid already."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arithmetic import QuantizationScratch, quantize_weight
from amct_onnx.common.arrays import Float32, Int8, Int64
from amct_onnx.common.counted import counted
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.files.file_tensor import row_blocks
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import known_as, users_tensor
from amct_onnx.graph.layers import Layout, along, part_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, is_op
from amct_onnx.graph.refused import Refusal
from amct_onnx.plan.asymmetric_weights import MOVED, SHIFTED, Blocks, ends_of, shift_into_int8, shifted
from amct_onnx.plan.factors import Weight
from amct_onnx.plan.grid_weights import recover_grid
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.plan.stored_weights import integers_of, stored_weight

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
    return _rearranged(_behind_dequantize(node, users_tensor(value), constants, settings), chain, constants)


def _behind_dequantize(
    dq: ir.Node, known: ir.Value, constants: ConstantEvaluator, settings: PlanSettings
) -> ResolvedWeight:
    """The weight of a DequantizeLinear; ``known`` is the tensor of the user's file that messages name."""
    stored = stored_weight(dq, known, constants)
    axis, shape, dead = stored.axis, stored.shape, stored.scale == 0
    scale = np.where(dead, NO_SCALE, np.abs(stored.scale))
    numbers = integers_of(stored, scale, dead, constants)
    negative = stored.scale < 0
    if np.any(negative & alive_channels(axis, scale.size, numbers()) if np.any(negative) else negative):
        raise Refusal(
            "weight-scale",
            f"a scale of its weight '{known.name}' is {stored.scale[negative][0]}, and its channel is not all 0",
            "Calibrate or train the quantizer again, with positive scales.",
        )
    dead = dead | negative
    beyond, detail = None, ""
    if np.any(stored.zero):
        beyond = shift_into_int8(ends_of(numbers(), shape, axis, scale.size), known, settings)
        detail = MOVED if beyond is None else SHIFTED
    blocks = shifted(numbers, beyond, shape, axis)
    if axis is not None and beyond is None and (np.any(dead) or scale.min() < DEAD_RATIO * scale.max()):
        scale = scales_of_the_living(np.where(dead, np.float32(0), scale), axis, numbers())
    key = (stored.source.name, scale.tobytes(), stored.zero.tobytes(), axis, stored.low, stored.high)
    return _weight_of(blocks, shape, scale, stored.source, key, axis=axis, detail=detail, shift=beyond)


def scales_of_the_living(scale: Float32, axis: int, blocks: Blocks) -> Float32:
    """The scales, those of channels whose integers are all 0 between the smallest and the largest of the others.

    Such a channel has the same values under any scale. A tiny one would push its bias out of int32, a huge one would
    round it to 0.

    Args:
        scale: float32 [channels]; 0 for a channel that has none.
        axis: of the channels in the weight.
        blocks: of the integers.
    """
    alive = alive_channels(axis, scale.size, blocks)
    floor, most = (scale[alive].min(), scale[alive].max()) if np.any(alive) else (NO_SCALE, np.float32(np.inf))
    return np.where(alive, scale, np.clip(scale, floor, most)).astype(np.float32)


def alive_channels(axis: int | None, count: int, blocks: Blocks) -> npt.NDArray[np.bool_]:
    """Which channels hold an integer other than 0; of a weight without an axis, whether any element does.

    Args:
        axis: of the channels in the weight; None without.
        count: number of scales.
        blocks: of the integers.
    """
    alive = np.zeros(count, bool)
    for index, array in blocks:
        if axis is None:
            alive |= bool(np.any(array))
            continue
        others = tuple(a for a in range(array.ndim) if a != axis)
        part = index[axis] if axis < len(index) else slice(None)
        alive[part] |= np.any(array, axis=others)
    return alive


def _assembled(blocks: Iterator[Int8], shape: tuple[int, ...]) -> Int8:
    result = np.empty(shape, np.int8)
    flat, done = result.reshape(-1), 0
    for part in blocks:
        flat[done : done + part.size] = part.reshape(-1)
        done += part.size
    return result


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
            f"Node '{known_as(node)}' (Transpose): perm {list(perm)} is not an order of the "
            f"{counted(rank, 'axis', 'axes')} of the weight '{weight.name}'. Export the model again."
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
                f"Slice '{known_as(node)}' of its weight '{weight.name}' runs backwards, or cuts an asymmetric weight",
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
            f"Node '{known_as(node)}' ({node.op_type}) makes {list(shape)} of the weight '{weight.name}' of shape "
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
                f"{node.op_type} '{known_as(node)}' mixes the channels that the scales of '{weight.name}' belong to",
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
    known, remedy = users_tensor(value), "Train the layer with a weight quantizer."
    if not settings.grid_weights:
        raise Refusal(
            "weight-not-quantized", f"its weight '{known.name}' has no QuantizeLinear/DequantizeLinear", remedy
        )
    array = constants.array(value)
    channel_axis = layout.channel_axis(array.ndim) if array.ndim > 1 else None
    recovered_grid = recover_grid(array, channel_axis) or recover_grid(array, channel_axis, MAX_UINT8)
    if recovered_grid is None:
        raise Refusal(
            "weight-not-quantized",
            f"its weight '{known.name}' has no QuantizeLinear/DequantizeLinear and does not lie on an int8 grid",
            remedy,
        )
    scale, axis = recovered_grid
    shape = tuple(array.shape)
    wide_scale = along(scale, shape, axis)

    def numbers() -> Blocks:
        tensor, scratch = constants.tensor(value), QuantizationScratch(np.int16)
        for index, floats in row_blocks(tensor if tensor is not None else ir.tensor(constants.array(value))):
            yield index, quantize_weight(floats, part_of(wide_scale, index), -MAX_UINT8, MAX_UINT8, scratch)

    shift = shift_into_int8(ends_of(numbers(), shape, axis, scale.size), known, settings)
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
