"""One verdict for every candidate layer: a site with all factors, or a refusal with its reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx import arithmetic
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.normalise.float_types import float_type_of
from amct_onnx.plan.factors import Quantizer, Site, Weight
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.quantizers import DEQUANTIZE, is_op, raw_factors
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.plan.tails import EMPTY, Tail, tails_of
from amct_onnx.plan.weights import Refusal, ResolvedWeight, resolve_weight

CANDIDATES = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def find_quantizer(value: ir.Value | None, grids: Grids) -> tuple[ir.Value, Quantizer]:
    """The float tensor to quantize in front of a layer, and the factors.

    Behind data movement the tensor itself is returned: its values already lie on the grid.

    Raises:
        Refusal: No quantizer of 8 bits, per-tensor, is there.
    """
    pair = grids.pair(value.producer()) if value is not None else None
    quantizer = pair[1] if pair is not None else grids.of(value)
    if value is None or quantizer is None:
        raise Refusal(
            "activation-not-quantized",
            f"its input '{value.name if value else ''}' has no QuantizeLinear/DequantizeLinear",
            "Train the layer with an activation quantizer.",
        )
    if quantizer.axis is not None:
        raise Refusal(
            "activation-per-channel",
            f"its input '{value.name}' is quantized per channel",
            "Quantize the activation per tensor.",
        )
    if quantizer.bits != 8:
        raise Refusal(
            "activation-16-bit",
            f"its input '{value.name}' is quantized to 16 bits",
            "Quantize the activation to 8 bits.",
        )
    source = pair[0] if pair is not None else value
    kind = float_type_of(source)
    quantizer = dataclasses.replace(quantizer, float_type=kind)
    if kind not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        raise Refusal(
            "float-type", f"its input '{value.name}' is {kind.name}", "Export the model in float32 or float16."
        )
    if not quantizer.per_tensor_int8:
        raise Refusal(
            "activation-scale-range",
            f"the scale {quantizer.scale_d} of its input '{value.name}' has no finite float32 reciprocal",
            "Calibrate the quantizer again: the scale is subnormal.",
        )
    if not quantizer.low <= quantizer.offset_d <= quantizer.high:
        raise Refusal(
            "activation-zero-point",
            f"the zero point {quantizer.offset_d} of '{value.name}' lies outside [{quantizer.low}, {quantizer.high}]",
            "Train with a range that includes zero.",
        )
    return source, quantizer


def plan_layer(node: ir.Node, grids: Grids, constants: ConstantEvaluator, settings: PlanSettings) -> Site:
    """Resolve one candidate layer.

    Raises:
        Refusal: The layer stays float.
        FactorError: A quantizer with unusable factors.
    """
    if node.op_type in ("MatMul", "Gemm") and not any(constants.is_constant(v) for v in node.inputs[:2]):
        raise Refusal(
            "activation-by-activation",
            "both of its inputs are activations",
            "None: Ascend multiplies int8 activations by constant weights only.",
        )
    source, quantizer = find_quantizer(node.inputs[0], grids)
    attributes = _attributes(node)
    turned = bool(node.op_type == "Gemm" and _attr(node, "transB", 0))
    channel_axis = 0 if node.op_type == "Conv" or turned else 1
    resolved = resolve_weight(node.inputs[1], channel_axis, constants, grid_weights=settings.grid_weights)
    if node.op_type == "ConvTranspose" and len(resolved.shape) == 5:
        raise Refusal("conv-transpose-3d", "ConvTranspose with three spatial axes has no int8 form", "Keep it float.")
    if node.op_type == "MatMul" and len(resolved.shape) != 2:
        raise Refusal(
            "matmul-weight-rank", f"its weight has {len(resolved.shape)} axes", "Only 2-D weights are accepted."
        )
    group = int(_attr(node, "group", 1)) if node.op_type.startswith("Conv") else 1
    channels = resolved.shape[channel_axis] * (group if node.op_type == "ConvTranspose" else 1)
    scale = _channel_scales(node, resolved, channel_axis, channels, group)
    alpha, beta = float(_attr(node, "alpha", 1.0)), float(_attr(node, "beta", 1.0))
    if alpha == 0 or not np.isfinite(alpha):
        raise Refusal("gemm-alpha", f"its alpha is {alpha}", "Use alpha = 1.")
    own = node.inputs[2] if len(node.inputs) > 2 else None
    if own is not None and not constants.is_constant(own):
        raise Refusal("bias-not-constant", f"its bias '{own.name}' is not a constant", "Use a constant bias.")
    rank = len(resolved.shape) if node.op_type != "MatMul" else _output_rank(node)
    for tail in tails_of(node, channels, rank, constants):
        factor = np.broadcast_to(tail.factor * alpha, (channels,)) if tail.factor.size > 1 else tail.factor * alpha
        signs = np.sign(factor).astype(np.int8)
        if np.any(signs != 1) and not _negatable(resolved, channel_axis, signs, group):
            continue
        # a channel that the tail multiplies by 0 keeps its scale: its integers are 0
        scale_w = (scale * np.where(factor == 0, 1.0, np.abs(factor))).astype(np.float32)
        try:
            deq_scale = _deq_scale(quantizer, scale_w)
            bias = _bias(own, tail, beta, alpha, deq_scale, channels, constants)
        except Refusal:
            if any(n.op_type == "BatchNormalization" for n in tail.nodes):
                continue
            raise
        break
    else:
        raise Refusal("gemm-alpha", f"its alpha {alpha} would turn the weight -128 into 128", "Use a positive alpha.")
    bias_value = tail.bias or own or _addend_of(tail)
    split = _split_scale(node, deq_scale, settings)
    return Site(
        node=node.name or "",
        source=source.name or "",
        quantizer=quantizer,
        weight=_weight(resolved, scale_w, channel_axis, signs, group, turned),
        deq_scale=deq_scale,
        bias=bias,
        bias_name=(bias_value.name or "") if bias_value is not None else "",
        absorbed=tuple(n.name or "" for n in tail.nodes),
        split_scale=split,
        transpose_input=bool(node.op_type == "Gemm" and _attr(node, "transA", 0)),
        float_type=float_type_of(node.outputs[0]) if node.outputs[0].dtype else float_type_of(node.inputs[0] or source),
        attributes=attributes,
        as_2d=len(resolved.shape) == 3 and node.op_type.startswith("Conv") and not settings.keep_conv1d,
        detail="; ".join(_details(resolved, tail, split)),
    )


def _split_scale(node: ir.Node, deq_scale: npt.NDArray[np.float32], settings: PlanSettings) -> bool:
    """Whether AscendDequant gets one scale and a Mul the ratio: a Gemm or MatMul with a scale per channel."""
    if node.op_type not in ("Gemm", "MatMul") or deq_scale.size == 1 or settings.gemm_per_channel == "vector":
        return False
    if settings.gemm_per_channel == "refuse":
        raise Refusal(
            "gemm-per-channel",
            f"its weight has {deq_scale.size} scales, and gemm_per_channel is 'refuse'",
            "Quantize the weight per tensor, or convert with gemm_per_channel 'mul' or 'vector'.",
        )
    return True


def _details(weight: ResolvedWeight, tail: Tail, split: bool) -> list[str]:
    found = [weight.detail] if weight.detail else []
    if len(tail.nodes) > 1 or (tail.nodes and tail.bias is None):
        found.append(f"{' and '.join(n.op_type for n in tail.nodes)} folded into deq_scale and bias")
    if split:
        found.append("one AscendDequant scale 2^-14 and a Mul with the per-channel ratio")
    return found


def _addend_of(tail: Tail) -> ir.Value | None:
    """The tensor that names the bias of an absorbed BatchNormalization."""
    norms = [n for n in tail.nodes if n.op_type == "BatchNormalization"]
    return norms[-1].inputs[2] if norms else None


def _channel_scales(
    node: ir.Node, weight: ResolvedWeight, channel_axis: int, channels: int, group: int
) -> npt.NDArray[np.float32]:
    if weight.axis is not None and weight.axis != channel_axis:
        raise Refusal(
            "weight-axis",
            f"the scales of '{weight.name}' belong to axis {weight.axis}; the output channels are axis {channel_axis}",
            "Quantize the weight along its output channels.",
        )
    if weight.scale.size in (1, channels):
        return weight.scale
    if node.op_type == "ConvTranspose" and weight.scale.size * group == channels:
        return np.tile(weight.scale, group)
    raise Refusal(
        "weight-scale-length", f"{weight.scale.size} scales for {channels} output channels", "Export the model again."
    )


def _deq_scale(quantizer: Quantizer, scale_w: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    deq_scale = arithmetic.dequantize_scale(quantizer.scale_d, scale_w)
    if not np.all(np.isfinite(deq_scale)) or np.any(deq_scale == 0):
        raise Refusal("deq-scale-range", "scale_d * scale_w leaves float32's range", "Calibrate the quantizers again.")
    return deq_scale


def _by_channel(
    integers: npt.NDArray[np.int8], channel_axis: int, signs: npt.NDArray[np.int8], group: int
) -> npt.NDArray[np.int8]:
    """Factors -1, 0, 1 of each output channel, broadcastable against the weight."""
    layout = [1] * integers.ndim
    if signs.size == 1:
        return signs.reshape(layout)
    layout[channel_axis] = integers.shape[channel_axis]
    if signs.size == integers.shape[channel_axis]:
        return signs.reshape(layout)
    # grouped ConvTranspose: [Cin, Cout / group, ...], the rows of one group after another
    layout[0] = group
    return np.repeat(signs.reshape(layout), integers.shape[0] // group, axis=0)


def _negatable(weight: ResolvedWeight, channel_axis: int, signs: npt.NDArray[np.int8], group: int) -> bool:
    """Whether no -128 would become 128."""
    if not np.any(signs < 0):
        return True
    integers = weight.integers()
    lowest = integers == arithmetic.INT8_MIN
    return not bool(np.any(lowest & (_by_channel(integers, channel_axis, signs, group) < 0)))


def _weight(
    resolved: ResolvedWeight,
    scale: npt.NDArray[np.float32],
    channel_axis: int,
    signs: npt.NDArray[np.int8],
    group: int,
    turned: bool,
) -> Weight:
    def integers() -> npt.NDArray[np.int8]:
        result = resolved.integers()
        if np.any(signs != 1):
            result = result * _by_channel(result, channel_axis, signs, group)
        return np.ascontiguousarray(result.T) if turned else result

    return Weight(
        integers,
        resolved.shape[::-1] if turned else resolved.shape,
        scale,
        resolved.name,
        (*resolved.key, turned, signs.tobytes() if np.any(signs != 1) else b""),
    )


def _attr(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _attributes(node: ir.Node) -> tuple[ir.Attr, ...]:
    """Of the layer in the output models; normalisation has spelled out those of convolutions."""
    if not node.op_type.startswith("Conv"):
        return ()
    if {"auto_pad", "output_shape"} & node.attributes.keys() or "pads" not in node.attributes:
        raise Refusal(
            "padding-unknown",
            "its padding depends on the size of its input, which the model does not declare",
            "Export the model with explicit pads, or with fixed spatial axes.",
        )
    return tuple(node.attributes.values())


def _output_rank(node: ir.Node) -> int:
    """Of a MatMul; 2 when nothing declares it, as its weight has 2 axes."""
    for value in (node.outputs[0], node.inputs[0]):
        if value is not None and value.shape is not None:
            return len(value.shape)
    return 2


def _bias(
    own: ir.Value | None,
    tail: Tail,
    beta: float,
    alpha: float,
    deq_scale: npt.NDArray[np.float32],
    channels: int,
    constants: ConstantEvaluator,
) -> npt.NDArray[np.int32] | None:
    """The int32 bias [channels] of the layer and what its tail adds; None when there is neither."""
    if own is None and tail.addend is None:
        return None
    single = own if tail is EMPTY else tail.bias if own is None else None
    exact = None
    if single is not None and beta == 1 and alpha == 1:
        exact = _exact_bias(single, deq_scale, constants)
    name = next((v.name for v in (single, own, _addend_of(tail)) if v is not None), "")
    if exact is None:
        total = np.zeros(channels)
        if own is not None:
            array = np.asarray(constants.array(own)).astype(np.float64)
            if array.size not in (1, channels):
                raise Refusal(
                    "bias-shape", f"its bias '{own.name}' has shape {array.shape}", f"Use a bias of shape [{channels}]."
                )
            total = total + array.reshape(-1) * beta * tail.factor
        if tail.addend is not None:
            total = total + tail.addend
        exact = arithmetic.quantize_bias(total, deq_scale)
    bad = np.flatnonzero(~((exact >= arithmetic.INT32_MIN) & (exact <= arithmetic.INT32_MAX)))
    if bad.size:
        raise Refusal(
            "bias-overflow",
            f"its bias '{name}' quantizes to {exact[bad[0]]:.0f} in channel {bad[0]}, beyond int32",
            "Use a larger weight or activation scale in that channel, or a smaller bias.",
        )
    return np.broadcast_to(exact, (channels,)).astype(np.int32)


def _exact_bias(
    value: ir.Value, deq_scale: npt.NDArray[np.float32], constants: ConstantEvaluator
) -> npt.NDArray[np.float64] | None:
    """The integers of an int32 DQ whose scale is already scale_d * scale_w: taken over unchanged."""
    node = value.producer()
    if not is_op(node, DEQUANTIZE) or node is None or node.inputs[0] is None:
        return None
    scale, zero, _ = raw_factors(node, constants)
    integers = np.asarray(constants.array(node.inputs[0])).reshape(-1)
    if integers.dtype != np.int32 or np.any(zero) or not _same_scale(scale, deq_scale):
        return None
    return np.broadcast_to(integers, np.broadcast_shapes(integers.shape, deq_scale.shape)).astype(np.float64)


def _same_scale(scale: npt.NDArray[np.float32], deq_scale: npt.NDArray[np.float32]) -> bool:
    """Equal by value; one of the two may be per-tensor."""
    return (1 in (scale.size, deq_scale.size) or scale.size == deq_scale.size) and bool(np.all(scale == deq_scale))
