"""One verdict for every candidate layer: a site with all factors, or a refusal with its reason."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import numpy as np
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.common.arrays import Float32, Int8
from amct_onnx.common.counted import counted
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import known_as
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import CONVOLUTIONS, LAYER_KINDS, PRODUCTS, Layout, bias_of, layout_of
from amct_onnx.graph.refused import Refusal, check_not_refused
from amct_onnx.graph.shapes import stored_shape
from amct_onnx.plan.activation_products import is_activation_product, plan_activation_product
from amct_onnx.plan.activations import dequantization_scale, find_quantizer
from amct_onnx.plan.biases import BeyondInt32, PlannedBias, plan_bias
from amct_onnx.plan.channels import channel_scales, negatable, signed_weight
from amct_onnx.plan.factors import Activation, Quantizer, Site
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.output_scales import next_scale
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.plan.tails import Tail, addend_of, tails_of
from amct_onnx.plan.weights import ResolvedWeight, resolve_weight


def plan_layer(node: ir.Node, grids: Grids, constants: ConstantEvaluator, settings: PlanSettings) -> Site:
    """Resolve one candidate layer.

    Raises:
        Refusal: The layer stays float.
        FactorError: A quantizer with unusable factors.
    """
    check_not_refused(node)
    if is_activation_product(node, constants):
        return plan_activation_product(node, grids, settings, constants)
    _check_second_input(node, constants)
    source, quantizer = find_quantizer(node.inputs[0], grids)
    attributes = _attributes(node)
    layout = layout_of(node)
    assert layout is not None  # the planner asks for the operators of the table
    resolved = resolve_weight(node.inputs[1], layout, constants, settings)
    _check_rank(node, len(resolved.shape))
    _check_weight(node, resolved, layout)
    own = _own_bias(node, constants)
    tail, signs, scale_w, deq_scale, bias = _absorb_tail(
        node, resolved, quantizer, channel_scales(resolved, layout), layout, own, constants
    )
    bias_value = tail.bias or own or addend_of(tail)
    split = _split_scale(node, deq_scale, settings)
    last = (tail.nodes[-1] if tail.nodes else node).outputs[0]
    return Site(
        node=node.name or "",
        activations=(Activation(source.name or "", quantizer, float(quantizer.scale_d)),),
        weight=signed_weight(resolved, scale_w, signs, layout),
        deq_scale=deq_scale,
        bias=None if bias is None else bias.integers,
        float_bias=None if bias is None else bias.floats,
        bias_name=(bias_value.name or "") if bias_value is not None else "",
        absorbed=tuple(n.name or "" for n in tail.nodes),
        split_scale=split,
        transpose_input=node.op_type == "Gemm" and bool(attribute(node, "transA", 0)),
        float_type=float_type_of(node.outputs[0]) if node.outputs[0].dtype else float_type_of(node.inputs[0] or source),
        attributes=attributes,
        as_2d=len(resolved.shape) == 3 and layout.kind.convolution and not settings.keep_conv1d,
        detail="; ".join(_details(resolved, tail, split, floats=bias is not None and bias.floats is not None)),
        bias_error=None if bias is None else bias.error,
        output=last.name or "",
        output_scale=next_scale(last, constants),
        input_sum=None if resolved.shift is None else (signs * resolved.shift * deq_scale).astype(np.float32),
    )


def _own_bias(node: ir.Node, constants: ConstantEvaluator) -> ir.Value | None:
    """The bias input, which must be constant."""
    own = bias_of(node)
    if own is not None and not constants.is_constant(own):
        raise Refusal("bias-not-constant", f"its bias '{own.name}' is not a constant", "Use a constant bias.")
    return own


class _Absorbed(NamedTuple):
    """A tail and the layer's factors with it; signs int8, scales float32, each [1] or [channels]."""

    tail: Tail
    signs: Int8
    scale_w: Float32
    deq_scale: Float32
    bias: PlannedBias | None


def _absorb_tail(
    node: ir.Node,
    weight: ResolvedWeight,
    quantizer: Quantizer,
    scale: Float32,
    layout: Layout,
    own: ir.Value | None,
    constants: ConstantEvaluator,
) -> _Absorbed:
    """The longest tail behind a layer that its integers can hold.

    Args:
        node: the layer.
        weight: as resolved.
        quantizer: quantizer of its input.
        scale: scale of the weight, [1] or [channels].
        layout: layout of the weight.
        own: the layer's own bias.
        constants: constants of the model.
    """
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if alpha == 0 or not np.isfinite(alpha):
        raise Refusal("gemm-alpha", f"its alpha is {alpha}", "Use alpha = 1.")
    channels = layout.channels(weight.shape)
    rank = _output_rank(node) if layout.kind.bias_input is None else len(weight.shape)
    for tail in tails_of(node, channels, rank, constants):
        factor = np.broadcast_to(tail.factor * alpha, (channels,)) if tail.factor.size > 1 else tail.factor * alpha
        signs = np.sign(factor).astype(np.int8)
        if (signs != 1).any() and not negatable(weight, signs, layout):
            continue
        # a channel that the tail multiplies by 0 keeps its scale: its integers are 0
        scale_w = (scale * np.where(factor == 0, 1.0, np.abs(factor))).astype(np.float32)
        try:
            deq_scale = dequantization_scale(quantizer, scale_w)
            bias = plan_bias(own, tail, beta, alpha, deq_scale, channels, constants)
        except BeyondInt32:
            continue
        except Refusal:
            if any(n.op_type == "BatchNormalization" for n in tail.nodes):
                continue
            raise
        return _Absorbed(tail, signs, scale_w, deq_scale, bias)
    raise Refusal("gemm-alpha", f"its alpha {alpha} would turn the weight -128 into 128", "Use a positive alpha.")


def _check_second_input(node: ir.Node, constants: ConstantEvaluator) -> None:
    """Refuse a MatMul or Gemm whose constant is its first input."""
    if node.op_type not in PRODUCTS or constants.is_constant(node.inputs[1]):
        return
    rank = len(stored_shape(node.inputs[0]) or ())
    if rank > 2:
        _refuse_rank(rank)
    raise Refusal(
        "weight-not-constant",
        f"its second input '{_name(node.inputs[1])}' is not a constant; the constant is its first",
        "Multiply in the other order: int8 layers take the weight as their second input.",
    )


def _check_rank(node: ir.Node, rank: int) -> None:
    """Refuse weights of more axes than int8 layers take, and a kernel that is dilated in depth."""
    kind = LAYER_KINDS[node.op_type]
    if rank in kind.int8_ranks:
        dilations = attribute(node, "dilations", ())
        if rank == 5 and dilations and dilations[0] != 1:
            raise Refusal(
                "conv-3d-dilation",
                f"its dilations are {list(dilations)}, and an int8 3-D Conv takes 1 in depth",
                "Keep it float, or train it with dilation 1 in depth.",
            )
        return
    if node.op_type == "ConvTranspose" and rank == 5:
        raise Refusal("conv-transpose-3d", "ConvTranspose with three spatial axes has no int8 form", "Keep it float.")
    if kind.convolution and rank > max(kind.int8_ranks):
        raise Refusal("conv-rank", f"it has {rank - 2} spatial axes, int8 at most 3", "Keep it float.")
    if node.op_type == "MatMul":
        _refuse_rank(rank)


def _refuse_rank(rank: int) -> NoReturn:
    raise Refusal(
        "matmul-weight-rank",
        f"its weight has {counted(rank, 'axis', 'axes')}, and ATC compiles an int8 constant in a MatMul only as a "
        "matrix",
        "Use a 2-D weight, or one MatMul for each matrix of it.",
    )


def _check_weight(node: ir.Node, weight: ResolvedWeight, layout: Layout) -> None:
    """Raise UnsupportedModelError where no layer of this kind can have such a weight."""
    shape, group = weight.shape, layout.group
    if not layout.kind.convolution:
        fits, wanted = len(shape) == 2, "2 axes"
    else:
        fits, wanted = (
            len(shape) > 2 and group > 0 and shape[0] % group == 0,
            f"3 to 5 axes, the first in {group} groups",
        )
    if not fits or not all(shape):
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}): its weight '{weight.name}' has the shape {list(shape)}; it "
            f"takes {wanted}, none of them 0. Export the model again."
        )


def _split_scale(node: ir.Node, deq_scale: Float32, settings: PlanSettings) -> bool:
    """Whether the scale is split: a Gemm or MatMul with a scale per channel gets one deq_scale, and a Mul the ratio."""
    if node.op_type not in PRODUCTS or deq_scale.size == 1 or settings.gemm_per_channel == "vector":
        return False
    if settings.gemm_per_channel == "refuse":
        raise Refusal(
            "gemm-per-channel",
            f"its weight has {deq_scale.size} scales, and gemm_per_channel is 'refuse'",
            "Quantize the weight per tensor, or convert with gemm_per_channel 'mul' or 'vector'.",
        )
    if not np.all(np.isfinite(arithmetic.common_scale_ratio(deq_scale))):
        raise Refusal(
            "deq-scale-range", "scale_d * scale_w * 2^14 leaves float32's range", "Calibrate the quantizers again."
        )
    return True


def _details(weight: ResolvedWeight, tail: Tail, split: bool, *, floats: bool) -> list[str]:
    sentences = [weight.detail] if weight.detail else []
    if len(tail.nodes) > 1 or (tail.nodes and tail.bias is None):
        sentences.append(f"{' and '.join(n.op_type for n in tail.nodes)} folded into deq_scale and bias")
    if floats:
        sentences.append("its bias does not fit int32 and is added as floats behind AscendDequant")
    if split:
        sentences.append("one AscendDequant scale 2^-14 and a Mul with the per-channel ratio")
    return sentences


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _attributes(node: ir.Node) -> tuple[ir.Attr, ...]:
    """Attributes of the layer in the output models; normalisation has completed those of convolutions."""
    if node.op_type not in CONVOLUTIONS:
        return ()
    if {"auto_pad", "output_shape"} & node.attributes.keys() or "pads" not in node.attributes:
        raise Refusal(
            "padding-unknown",
            "its padding depends on the size of its input, which the model does not declare",
            "Export the model with explicit pads, or with fixed spatial axes.",
        )
    return tuple(node.attributes.values())


def _output_rank(node: ir.Node) -> int | None:
    """Rank of a MatMul's result, for a weight of 2 axes; None when nothing declares it."""
    for value in (node.outputs[0], node.inputs[0]):
        if value is not None and value.shape is not None:
            return len(value.shape)
    return None
