"""The int32 bias of a layer: round(bias / (scale_d * scale_w)), or integers that were so already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.common.arrays import Float32, Float64
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, is_op
from amct_onnx.graph.refused import Refusal
from amct_onnx.plan.quantizers import raw_factors
from amct_onnx.plan.tails import EMPTY, Tail, addend_of


@dataclass(frozen=True)
class PlannedBias:
    """A layer's bias as integers, and what the rounding costs.

    Attributes:
        integers: int32 [channels].
        error: integers * deq_scale - bias, float64 [channels]; 0 for a bias that was int32 already.
    """

    integers: npt.NDArray[np.int32]
    error: Float64


def plan_bias(
    own: ir.Value | None,
    tail: Tail,
    beta: float,
    alpha: float,
    deq_scale: Float32,
    channels: int,
    constants: ConstantEvaluator,
) -> PlannedBias | None:
    """The bias of the layer and what its tail adds; None when there is neither."""
    if own is None and tail.addend is None:
        return None
    single = own if tail is EMPTY else tail.bias if own is None else None
    shape = constants.array(own).shape if own is not None else ()
    # [channels, 1] is one number for each row of a Gemm's output, not for each channel
    if own is not None and int(np.prod(shape)) != 1 and (int(np.prod(shape)) != channels or shape[-1] != channels):
        raise Refusal("bias-shape", f"its bias '{own.name}' has shape {shape}", f"Use a bias of shape [{channels}].")
    exact, total = None, None
    if single is not None and beta == 1 and alpha == 1:
        exact = _exact_bias(single, deq_scale, constants)
    name = next((v.name for v in (single, own, addend_of(tail)) if v is not None), "")
    if exact is None:
        total = np.zeros(channels)
        if own is not None:
            array = np.asarray(constants.array(own)).astype(np.float64)
            total = total + array.reshape(-1) * beta * tail.factor
        if tail.addend is not None:
            total = total + tail.addend
        exact = arithmetic.bias_integers(total, deq_scale)
    bad = np.flatnonzero(~((exact >= arithmetic.INT32_MIN) & (exact <= arithmetic.INT32_MAX)))
    if bad.size:
        raise Refusal(
            "bias-overflow",
            f"its bias '{name}' quantizes to {exact[bad[0]]:.0f} in channel {bad[0]}, beyond int32",
            "Use a larger weight or activation scale in that channel, or a smaller bias.",
        )
    integers = np.broadcast_to(exact, (channels,)).astype(np.int32)
    error = np.zeros(channels) if total is None else integers * deq_scale.astype(np.float64) - total
    return PlannedBias(integers, np.broadcast_to(error, (channels,)))


def _exact_bias(value: ir.Value, deq_scale: Float32, constants: ConstantEvaluator) -> Float64 | None:
    """The integers of an int32 DQ whose scale is already scale_d * scale_w; they are kept."""
    node = value.producer()
    if not is_op(node, DEQUANTIZE) or node is None or node.inputs[0] is None:
        return None
    scale, zero, _ = raw_factors(node, constants, zero_scales=True)  # of a dead channel
    integers = np.asarray(constants.array(node.inputs[0])).reshape(-1)
    if integers.dtype != np.int32 or np.any(zero) or not _same_scale(scale, deq_scale):
        return None
    return np.broadcast_to(integers, np.broadcast_shapes(integers.shape, deq_scale.shape)).astype(np.float64)


def _same_scale(scale: Float32, deq_scale: Float32) -> bool:
    """Whether two factors are equal by value; one of them may be per-tensor."""
    return (1 in (scale.size, deq_scale.size) or scale.size == deq_scale.size) and bool(np.all(scale == deq_scale))
