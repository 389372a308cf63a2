"""Resolve a layer's weight to int8: Q/DQ pair, integers behind a DQ, or floats that lie on a grid already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.arithmetic import INT8_MAX, INT8_MIN, quantize_weight
from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.file_tensor import row_blocks
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.plan.grid_weights import recover_grid
from amct_onnx.plan.quantizers import DEQUANTIZE, QUANTIZE, RANGES, clip_bounds, integer_type, is_op, raw_factors
from amct_onnx.plan.refusal import Refusal

REARRANGING = ("Transpose", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""What may stand between a weight's DequantizeLinear and its layer."""


@dataclass(frozen=True)
class ResolvedWeight:
    """Symmetric integers in the layout in which the layer reads them.

    Attributes:
        integers: computes int8 integers.
        shape: of the integers.
        scale: float32 [1] or [n].
        axis: the axis that scale belongs to; None when per-tensor.
        name: of the initializer.
        key: equal for two weights with the same integers.
        detail: what the ledger says about the weight; empty for the ordinary case.
        blocks: the integers in consecutive parts, see Weight; None behind a Transpose.
    """

    integers: Callable[[], npt.NDArray[np.int8]]
    shape: tuple[int, ...]
    scale: npt.NDArray[np.float32]
    axis: int | None
    name: str
    key: tuple[object, ...]
    detail: str = ""
    blocks: Callable[[], Iterator[npt.NDArray[np.int8]]] | None = None


def resolve_weight(
    value: ir.Value | None, channel_axis: int, constants: ConstantEvaluator, *, grid_weights: bool
) -> ResolvedWeight:
    """Follow a weight input up to its constant.

    Args:
        value: second input of the layer.
        channel_axis: axis of the output channels in the layer's own layout.
        constants: evaluator of the graph.
        grid_weights: whether float weights without Q/DQ that lie on an int8 grid are taken.

    Raises:
        Refusal: The weight is not constant, not quantized, or no symmetric int8 holds it.
        FactorError: Scales that are not positive and finite.
    """
    if value is None or not constants.is_constant(value):
        raise Refusal(
            "weight-not-constant",
            f"its second input '{value.name if value else ''}' is not a constant",
            "Only layers with a constant weight become int8.",
        )
    chain: list[ir.Node] = []
    node = value.producer()
    while is_op(node, *REARRANGING) and node is not None and node.inputs[0] is not None:
        chain.append(node)
        node = node.inputs[0].producer()
    if node is None or not is_op(node, DEQUANTIZE) or node.inputs[0] is None:
        return _on_a_grid(value, channel_axis, constants, grid_weights)
    return _rearranged(_behind_dequantize(node, value, constants), chain, constants)


def _behind_dequantize(dq: ir.Node, value: ir.Value, constants: ConstantEvaluator) -> ResolvedWeight:
    if "block_size" in dq.attributes and dq.attributes["block_size"].as_int() > 0:
        raise Refusal(
            "weight-blockwise",
            f"its weight '{value.name}' has one scale per block of {dq.attributes['block_size'].as_int()} elements",
            "Quantize the weight per tensor or per output channel.",
        )
    scale, zero, axis = raw_factors(dq, constants)
    kind = integer_type(dq, constants)
    if kind not in RANGES or RANGES[kind][3] != 8:
        raise Refusal(
            "weight-type", f"its weight '{value.name}' is of type {kind.name}", "Quantize the weight to 8 bits."
        )
    low, high, shift, _ = RANGES[kind]
    source, quantizer, clips = _quantized_source(dq, constants)
    if quantizer is not None:
        q_scale, q_zero, q_axis = raw_factors(quantizer, constants)
        if not (np.array_equal(q_scale, scale) and np.array_equal(q_zero, zero) and q_axis == axis):
            raise Refusal(
                "weight-factors-differ",
                f"QuantizeLinear '{quantizer.name}' and DequantizeLinear '{dq.name}' of its weight differ",
                "Export the model again with equal factors.",
            )
    tensor = constants.tensor(source)
    shape = tuple(tensor.shape.numpy()) if tensor is not None else constants.array(source).shape
    if axis is not None:
        if not -len(shape) <= axis < len(shape):
            raise FactorError(
                f"Node '{dq.name}': axis {axis} does not exist in the weight '{source.name}' of shape {list(shape)}. "
                "Export the model again."
            )
        axis %= len(shape)
        if scale.size % shape[axis] or (scale.size != shape[axis] and shape[0] % (scale.size // shape[axis])):
            raise FactorError(
                f"Node '{dq.name}': {scale.size} scales do not fit axis {axis} of the weight '{source.name}' of shape "
                f"{list(shape)}. Export the model again."
            )
    low, high = _clipped_range(low, high, clips, shift)
    zero = zero - shift
    asymmetric = bool(np.any(zero))
    wide_scale, wide_zero = _spread(scale, shape, axis), _spread(zero, shape, axis)

    def numbers() -> Iterator[npt.NDArray[Any]]:
        """Integers less their zero point, int16 where int8 may not hold them."""
        for start, array in row_blocks(tensor if tensor is not None else ir.tensor(constants.array(source))):
            offset = _rows(wide_zero, start, array) if asymmetric else 0
            if quantizer is None:
                yield np.clip(array.astype(np.int16) - shift, low, high) - offset
                continue
            try:
                dtype = np.int16 if asymmetric else np.int8
                yield quantize_weight(array, _rows(wide_scale, start, array), low - offset, high - offset, dtype)
            except ValueError as error:
                raise UnsupportedModelError(
                    f"Tensor '{source.name}': {error}. Train or export the model again."
                ) from error

    def blocks() -> Iterator[npt.NDArray[np.int8]]:
        for part in numbers():
            yield part.astype(np.int8, copy=False)

    detail = ""
    if asymmetric:
        _refuse_wide(numbers(), value, zero)
        detail = "asymmetric weight moved to zero point 0, which int8 holds for these values"
    key = (source.name, scale.tobytes(), zero.tobytes(), axis, low, high)
    return ResolvedWeight(
        lambda: _assembled(blocks(), shape), shape, scale, axis, source.name or "weight", key, detail, blocks
    )


def _clipped_range(low: int, high: int, clips: list[tuple[float, float]], shift: int) -> tuple[int, int]:
    for lower, upper in clips:
        low = max(low, int(np.ceil(max(lower, -1e9))) - shift)
        high = min(high, int(np.floor(min(upper, 1e9))) - shift)
    return low, high


def _assembled(blocks: Iterator[npt.NDArray[np.int8]], shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    result = np.empty(shape, np.int8)
    flat, done = result.reshape(-1), 0
    for part in blocks:
        flat[done : done + part.size] = part.reshape(-1)
        done += part.size
    return result


def _rows(factor: npt.NDArray[Any], start: int, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The part of a spread factor that belongs to a block of rows."""
    return factor[start : start + len(block)] if factor.ndim and len(factor) > 1 else factor


def _refuse_wide(blocks: Iterator[npt.NDArray[Any]], value: ir.Value, zero: npt.NDArray[Any]) -> None:
    ends = [(int(b.min(initial=0)), int(b.max(initial=0))) for b in blocks]
    low, high = min((e[0] for e in ends), default=0), max((e[1] for e in ends), default=0)
    if low < INT8_MIN or high > INT8_MAX:
        raise Refusal(
            "weight-asymmetric",
            f"its weight '{value.name}' has zero point {int(zero[np.flatnonzero(zero)[0]])} (in int8 range), and its "
            f"integers less their zero point reach from {low} to {high}, beyond int8",
            "Train with symmetric weights: Ascend requires offset_w = 0.",
        )


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


def _spread(factor: npt.NDArray[Any], shape: tuple[int, ...], axis: int | None) -> npt.NDArray[Any]:
    """A flat factor made broadcastable against a weight.

    A grouped ConvTranspose may hold one factor per output channel while its axis 1 counts those of one group only.
    """
    layout = [1] * len(shape)
    if axis is None:
        return factor.reshape(layout)
    if factor.size == shape[axis]:
        layout[axis] = -1
        return factor.reshape(layout)
    groups = factor.size // shape[axis]
    layout[0], layout[axis] = groups, shape[axis]
    return np.repeat(factor.reshape(layout), shape[0] // groups, axis=0)


def _rearranged(weight: ResolvedWeight, chain: list[ir.Node], constants: ConstantEvaluator) -> ResolvedWeight:
    """The weight behind Transposes, Casts and reshapes; ``chain`` runs from the layer back to the DQ."""
    for node in reversed(chain):
        if node.op_type == "Transpose":
            weight = _transposed(weight, node)
        elif node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            weight = _reshaped(weight, node, constants)
    return weight


def _transposed(weight: ResolvedWeight, node: ir.Node) -> ResolvedWeight:
    rank = len(weight.shape)
    perm = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else tuple(reversed(range(rank)))
    return dataclasses.replace(
        weight,
        integers=lambda: np.ascontiguousarray(weight.integers().transpose(perm)),
        shape=tuple(weight.shape[p] for p in perm),
        axis=None if weight.axis is None else perm.index(weight.axis),
        key=(*weight.key, perm),
        blocks=None,
    )


def _reshaped(weight: ResolvedWeight, node: ir.Node, constants: ConstantEvaluator) -> ResolvedWeight:
    shape = tuple(constants.array(node.outputs[0]).shape)
    axis = weight.axis
    if axis is not None:
        # the channels keep an axis of their own when as many elements lie before and behind them as ever
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


def _on_a_grid(value: ir.Value, channel_axis: int, constants: ConstantEvaluator, wanted: bool) -> ResolvedWeight:
    remedy = "Train the layer with a weight quantizer."
    if not wanted:
        raise Refusal(
            "weight-not-quantized", f"its weight '{value.name}' has no QuantizeLinear/DequantizeLinear", remedy
        )
    array = constants.array(value)
    found = recover_grid(array, channel_axis)
    if found is None and recover_grid(array, channel_axis, 255) is not None:
        raise Refusal(
            "weight-asymmetric",
            f"its weight '{value.name}' lies on a grid of 8 bits whose integers leave int8 (an asymmetric range)",
            "Train with symmetric weights: Ascend requires offset_w = 0.",
        )
    if found is None:
        raise Refusal(
            "weight-not-quantized",
            f"its weight '{value.name}' has no QuantizeLinear/DequantizeLinear and lies on no int8 grid",
            remedy,
        )
    scale, axis = found

    wide_scale = _spread(scale, array.shape, axis)

    def blocks() -> Iterator[npt.NDArray[np.int8]]:
        tensor = constants.tensor(value)
        for start, floats in row_blocks(tensor if tensor is not None else ir.tensor(constants.array(value))):
            yield quantize_weight(floats, _rows(wide_scale, start, floats), INT8_MIN, INT8_MAX, np.int8)

    shape = tuple(array.shape)
    return ResolvedWeight(
        lambda: _assembled(blocks(), shape),
        shape,
        scale,
        axis,
        value.name or "weight",
        (value.name, scale.tobytes()),
        "float weight without Q/DQ that lies on an int8 grid: integers and scale recovered from its values",
        blocks,
    )
