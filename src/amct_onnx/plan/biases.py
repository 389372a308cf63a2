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
from amct_onnx.plan.tails import EMPTY, Tail


@dataclass(frozen=True)
class PlannedBias:
    """A layer's bias as integers, and what the rounding costs; or as floats.

    Attributes:
        integers: int32 [channels]; None for floats.
        error: integers * deq_scale - bias, float64 [channels]; 0 for a bias that was int32 already; None for floats.
        floats: float32 [channels] of a bias that int32 does not hold, which is added behind the layer; else None.
    """

    integers: npt.NDArray[np.int32] | None
    error: Float64 | None
    floats: Float32 | None = None


class BeyondInt32(Exception):
    """A tail adds more than an int32 bias holds: the layer goes without it."""


def plan_bias(
    own: ir.Value | None,
    tail: Tail,
    beta: float,
    alpha: float,
    deq_scale: Float32,
    channels: int,
    constants: ConstantEvaluator,
) -> PlannedBias | None:
    """The bias of the layer and what its tail adds; None when there is neither.

    Raises:
        Refusal: The bias is not a row of the output's channels.
        BeyondInt32: Integers do not hold what the tail adds. The layer's own bias is floats then.
    """
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
    if exact is None:
        total = np.zeros(channels)
        if own is not None:
            array = np.asarray(constants.array(own)).astype(np.float64)
            total = total + array.reshape(-1) * beta * tail.factor
        if tail.addend is not None:
            total = total + tail.addend
        exact = arithmetic.bias_integers(total, deq_scale)
    if not ((exact >= arithmetic.INT32_MIN) & (exact <= arithmetic.INT32_MAX)).all():
        if tail is not EMPTY:
            raise BeyondInt32
        floats = exact * deq_scale if total is None else total
        return PlannedBias(None, None, np.broadcast_to(floats, (channels,)).astype(np.float32))
    integers = np.broadcast_to(exact, (channels,)).astype(np.int32)
    error = np.zeros(channels) if total is None else integers * deq_scale.astype(np.float64) - total
    return PlannedBias(integers, np.broadcast_to(error, (channels,)))


def _exact_bias(value: ir.Value, deq_scale: Float32, constants: ConstantEvaluator) -> Float64 | None:
    """The integers of an int32 DQ whose scale is already scale_d * scale_w; they are kept."""
    node = value.producer()
    if not is_op(node, DEQUANTIZE) or node is None or node.inputs[0] is None:
        return None
    scale, zero, _ = raw_factors(node, constants, any_scale=True)  # of a dead channel
    integers = np.asarray(constants.array(node.inputs[0])).reshape(-1)
    if integers.dtype != np.int32 or np.any(zero) or not _same_scale(scale, deq_scale):
        return None
    return np.broadcast_to(integers, np.broadcast_shapes(integers.shape, deq_scale.shape)).astype(np.float64)


def _same_scale(scale: Float32, deq_scale: Float32) -> bool:
    """Whether two factors are equal by value; one of them may be per-tensor."""
    return (1 in (scale.size, deq_scale.size) or scale.size == deq_scale.size) and bool(np.all(scale == deq_scale))
