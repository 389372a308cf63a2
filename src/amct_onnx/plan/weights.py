"""Resolve a layer's weight: float -> Q -> DQ or integers -> DQ, with Clip, Cast, Identity and Transpose in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.arithmetic import quantize_symmetric
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.file_tensor import row_blocks
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.plan.quantizers import DEQUANTIZE, QUANTIZE, RANGES, clip_bounds, integer_type, is_op, raw_factors


class Refusal(Exception):
    """A layer cannot become int8: reason code, what is at fault, what would help."""

    def __init__(self, reason: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.remedy = reason, detail, remedy


@dataclass(frozen=True)
class ResolvedWeight:
    """Symmetric integers in the layout in which the layer reads them.

    Attributes:
        integers: computes int8 integers.
        shape: of the integers.
        scale: float32 [1] or [n].
        axis: the axis that scale belongs to; None when per-tensor.
        name: of the initializer.
        blocks: the integers in parts of the source, see Weight; None behind a Transpose.
    """

    integers: Callable[[], npt.NDArray[np.int8]]
    shape: tuple[int, ...]
    scale: npt.NDArray[np.float32]
    axis: int | None
    name: str
    blocks: Callable[[], Iterator[npt.NDArray[np.int8]]] | None = None


def resolve_weight(value: ir.Value | None, constants: ConstantEvaluator) -> ResolvedWeight:
    """Follow a weight input up to its constant.

    Raises:
        Refusal: The weight is not constant, not quantized, asymmetric or not of 8 bits or fewer.
    """
    if value is None or not constants.is_constant(value):
        raise Refusal(
            "weight-not-constant",
            f"its second input '{value.name if value else ''}' is not a constant",
            "Only layers with a constant weight become int8; two activations stay float.",
        )
    permutations: list[tuple[int, ...]] = []
    node = value.producer()
    while is_op(node, "Transpose", "Identity", "Cast") and node is not None and node.inputs[0] is not None:
        if node.op_type == "Transpose":
            perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
            permutations.append(tuple(perm) if perm else ())
        node = node.inputs[0].producer()
    if not is_op(node, DEQUANTIZE) or node is None or node.inputs[0] is None:
        raise Refusal(
            "weight-not-quantized",
            f"its weight '{value.name}' has no QuantizeLinear/DequantizeLinear",
            "Train the layer with a weight quantizer.",
        )
    dq = node
    scale, zero, axis = raw_factors(dq, constants)
    kind = integer_type(dq, constants)
    if kind not in RANGES or RANGES[kind][3] != 8:
        raise Refusal(
            "weight-type", f"its weight '{value.name}' is of type {kind.name}", "Quantize the weight to 8 bits."
        )
    low, high, shift, _ = RANGES[kind]
    if np.any(zero != shift):
        raise Refusal(
            "weight-asymmetric",
            f"the zero point of its weight '{value.name}' is {int(zero[zero != shift][0])}, not {shift}",
            "Train with symmetric weights: Ascend requires offset_w = 0.",
        )
    assert dq.inputs[0] is not None
    source = dq.inputs[0]
    clips: list[tuple[float, float]] = []
    quantizer: ir.Node | None = None
    while True:
        producer = source.producer()
        if not is_op(producer, "Identity", "Cast", "Clip", QUANTIZE) or producer is None or producer.inputs[0] is None:
            break
        if producer.op_type == QUANTIZE:
            quantizer = producer
            source = producer.inputs[0]
            break
        if producer.op_type == "Clip":
            clips.append(clip_bounds(producer, constants))
        source = producer.inputs[0]
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
    source_axis = None if axis is None else axis % len(shape)
    axis = source_axis

    def blocks() -> Iterator[npt.NDArray[np.int8]]:
        content = tensor if tensor is not None else ir.tensor(constants.array(source))
        for start, array in row_blocks(content):
            if quantizer is None:
                q = (array.astype(np.int16) - shift).astype(np.int8)
            else:
                part = rows[start : start + len(array)] if len(rows) > 1 else rows
                try:
                    q = quantize_symmetric(array, part, low, high)
                except ValueError as error:
                    raise UnsupportedModelError(
                        f"Tensor '{source.name}': {error}. Train the layer again or remove the value."
                    ) from error
            for lower, upper in clips:
                q = np.clip(q, lower - shift, upper - shift).astype(np.int8)
            yield q

    rows = _scale_of_rows(scale, shape, source_axis)
    source_shape = shape

    def integers() -> npt.NDArray[np.int8]:
        result = np.empty(source_shape, np.int8)
        flat, done = result.reshape(-1), 0
        for part in blocks():
            flat[done : done + part.size] = part.reshape(-1)
            done += part.size
        for perm in reversed(permutations):
            result = result.transpose(perm or None)
        return np.ascontiguousarray(result)

    rank = len(shape)
    for perm in reversed(permutations):
        order = perm or tuple(reversed(range(rank)))
        shape = tuple(shape[p] for p in order)
        axis = None if axis is None else order.index(axis)
    return ResolvedWeight(integers, shape, scale, axis, source.name or "weight", None if permutations else blocks)


def _scale_of_rows(scale: npt.NDArray[np.float32], shape: tuple[int, ...], axis: int | None) -> npt.NDArray[np.float32]:
    """The scale with an axis of its own for rows (axis 0), of length 1 when all rows share it.

    A grouped ConvTranspose may hold one scale per output channel, axis 1 being output channels / groups.
    """
    layout = [1] * max(1, len(shape))
    if axis is None or scale.size == 1:
        return scale.reshape(layout)
    layout[axis] = shape[axis]
    if scale.size == shape[axis]:
        return scale.reshape(layout)
    groups = max(1, scale.size // max(1, shape[axis]))
    if axis == 0 or scale.size != groups * shape[axis] or shape[0] % groups:
        raise Refusal(
            "weight-scale-length",
            f"{scale.size} scales for axis {axis} of shape {list(shape)}",
            "Export the model again.",
        )
    layout[0] = groups
    return np.repeat(scale.reshape(layout), shape[0] // groups, axis=0)
