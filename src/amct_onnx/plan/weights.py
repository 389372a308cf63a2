"""Resolve a layer's weight: float -> Q -> DQ or integers -> DQ, with Clip, Cast, Identity and Transpose in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.arithmetic import quantize
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
    """

    integers: Callable[[], npt.NDArray[np.int8]]
    shape: tuple[int, ...]
    scale: npt.NDArray[np.float32]
    axis: int | None
    name: str


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
        floats = constants.array(source)
        # min and max pass a NaN on and need no memory of the weight's size
        if floats.size and not np.isfinite([floats.min(), floats.max()]).all():
            position = [int(i) for i in np.argwhere(~np.isfinite(floats))[0]]
            raise Refusal(
                "weight-not-finite",
                f"its weight '{source.name}' holds {floats[tuple(position)]} at {position}: no integer stands for it",
                "Train or export the model again.",
            )
    tensor = constants.tensor(source)
    shape = tuple(tensor.shape.numpy()) if tensor is not None else constants.array(source).shape
    source_axis = None if axis is None else axis % len(shape)
    axis = source_axis

    def integers() -> npt.NDArray[np.int8]:
        array: npt.NDArray[Any] = constants.array(source)
        if quantizer is not None:
            layout = [1] * array.ndim
            if source_axis is not None:
                # a grouped ConvTranspose may hold one scale per output channel, axis 1 being Cout / group
                layout[source_axis] = scale.size
            if source_axis is not None and scale.size != array.shape[source_axis]:
                groups = scale.size // array.shape[source_axis]
                parts = zip(np.split(array, groups, axis=0), np.split(scale, groups), strict=True)
                layout[source_axis] = array.shape[source_axis]
                q = np.concatenate([quantize(p, s.reshape(layout), np.zeros(1, np.int64)) for p, s in parts])
            else:
                q = quantize(array, scale.reshape(layout), np.zeros(1, np.int64))
            q = np.clip(q, low, high)
        else:
            q = array.astype(np.int16) - shift
        for lower, upper in clips:
            q = np.clip(q, lower - shift, upper - shift)
        result = q.astype(np.int8)
        for perm in reversed(permutations):
            result = result.transpose(perm or None)
        return np.ascontiguousarray(result)

    rank = len(shape)
    for perm in reversed(permutations):
        order = perm or tuple(reversed(range(rank)))
        shape = tuple(shape[p] for p in order)
        axis = None if axis is None else order.index(axis)
    return ResolvedWeight(integers, shape, scale, axis, source.name or "weight")
