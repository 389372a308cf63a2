"""One verdict for every candidate layer: a site with all factors, or a refusal with its reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx import arithmetic
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.plan.factors import Quantizer, Site, Weight
from amct_onnx.plan.quantizers import DEQUANTIZE, is_op, quantizer_of, raw_factors
from amct_onnx.plan.weights import Refusal, ResolvedWeight, resolve_weight

CANDIDATES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
EXACT_MOVES = frozenset(
    {
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Gather",
        "Expand",
        "MaxPool",
        "Identity",
        "Relu",
        "DepthToSpace",
        "SpaceToDepth",
    }
)
"""Operators whose output lies on the grid of their one quantized input: quantizing it again changes no bit."""


def find_quantizer(value: ir.Value | None, constants: ConstantEvaluator) -> tuple[ir.Value, Quantizer]:
    """The float tensor to quantize in front of a layer, and the factors.

    Behind data movement the tensor itself is returned: its values already lie on the grid.

    Raises:
        Refusal: No quantizer of 8 bits, per-tensor, is there.
    """
    node = value.producer() if value is not None else None
    moved = False
    while node is not None and node.op_type in EXACT_MOVES and node.domain == "" and node.inputs[0] is not None:
        moved = True
        node = node.inputs[0].producer()
    found = quantizer_of(node, constants) if is_op(node, DEQUANTIZE) and node is not None else None
    if value is None or found is None:
        raise Refusal(
            "activation-not-quantized",
            f"its input '{value.name if value else ''}' has no QuantizeLinear/DequantizeLinear",
            "Train the layer with an activation quantizer.",
        )
    source, quantizer = found
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
    return (value, dataclasses.replace(quantizer, low=-128, high=127)) if moved else (source, quantizer)


def plan_layer(node: ir.Node, constants: ConstantEvaluator) -> Site:
    """Resolve one candidate layer.

    Raises:
        Refusal: The layer stays float.
    """
    if node.op_type == "ConvTranspose" and _rank(node) == 5:
        raise Refusal("conv-transpose-3d", "ConvTranspose with three spatial axes has no int8 form", "Keep it float.")
    source, quantizer = find_quantizer(node.inputs[0], constants)
    resolved = resolve_weight(node.inputs[1], constants)
    integers, shape, scale, axis = resolved.integers, resolved.shape, resolved.scale, resolved.axis
    blocks = resolved.blocks
    alpha, beta = np.float32(1), np.float32(1)
    if node.op_type == "Gemm":
        alpha, beta = np.float32(_attr(node, "alpha", 1.0)), np.float32(_attr(node, "beta", 1.0))
        if not alpha > 0:
            raise Refusal("gemm-alpha", f"its alpha is {alpha}", "Use alpha = 1.")
        if _attr(node, "transB", 0):
            transposed = resolved.integers
            shape, axis = shape[::-1], None if axis is None else 1 - axis
            blocks = None

            def integers() -> npt.NDArray[np.int8]:
                return np.ascontiguousarray(transposed().T)

    elif node.op_type == "MatMul" and len(shape) != 2:
        raise Refusal("matmul-weight-rank", f"its weight has {len(shape)} axes", "Only 2-D weights are accepted.")
    group = int(_attr(node, "group", 1)) if node.op_type.startswith("Conv") else 1
    channel_axis = 0 if node.op_type == "Conv" else 1
    channels = shape[1] * group if node.op_type == "ConvTranspose" else shape[channel_axis]
    if axis is not None and axis != channel_axis:
        raise Refusal(
            "weight-axis",
            f"the scales of '{resolved.name}' belong to axis {axis}; the output channels are axis {channel_axis}",
            "Quantize the weight along its output channels.",
        )
    if scale.size not in (1, channels):
        if node.op_type == "ConvTranspose" and scale.size * group == channels:
            scale = np.tile(scale, group)
        else:
            raise Refusal(
                "weight-scale-length", f"{scale.size} scales for {channels} output channels", "Export the model again."
            )
    scale = scale * alpha
    deq_scale = arithmetic.dequantize_scale(quantizer.scale_d, scale)
    if not np.all(np.isfinite(deq_scale)) or np.any(deq_scale == 0):
        raise Refusal("deq-scale-range", "scale_d * scale_w leaves float32's range", "Calibrate the quantizers again.")
    add, bias_value = _bias(node, channels, constants)
    bias = None if bias_value is None else _quantize_bias(bias_value, beta, deq_scale, channels, constants)
    split = node.op_type in ("Gemm", "MatMul") and deq_scale.size > 1
    return Site(
        node=node.name or "",
        source=source.name or "",
        quantizer=quantizer,
        weight=Weight(integers, shape, scale, resolved.name, blocks),
        deq_scale=deq_scale,
        bias=bias,
        bias_name=(bias_value.name or "") if bias_value is not None else "",
        add=add.name if add is not None else None,
        split_scale=split,
        transpose_input=bool(node.op_type == "Gemm" and _attr(node, "transA", 0)),
        attributes=_attributes(node, resolved),
    )


def _rank(node: ir.Node) -> int:
    weight = node.inputs[1]
    if weight is not None and weight.shape is not None:
        return len(weight.shape)
    kernel = node.attributes.get("kernel_shape")
    return len(kernel.as_ints()) + 2 if kernel is not None else 0


def _attr(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _attributes(node: ir.Node, weight: ResolvedWeight) -> tuple[ir.Attr, ...]:
    """Every attribute spelled out that ATC needs (kernel_shape, strides, pads, dilations, group)."""
    if node.op_type in ("Conv", "ConvTranspose"):
        spatial = len(weight.shape) - 2
        result = dict(node.attributes)
        result.setdefault("kernel_shape", ir.AttrInt64s("kernel_shape", list(weight.shape[2:])))
        result.setdefault("strides", ir.AttrInt64s("strides", [1] * spatial))
        result.setdefault("dilations", ir.AttrInt64s("dilations", [1] * spatial))
        result.setdefault("group", ir.AttrInt64("group", 1))
        if _attr(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and "output_shape" not in result:
            result.pop("auto_pad", None)
            result.setdefault("pads", ir.AttrInt64s("pads", [0] * 2 * spatial))
        return tuple(result.values())
    return ()


def _bias(node: ir.Node, channels: int, constants: ConstantEvaluator) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add that carries a MatMul's bias (None for the other operators), and the bias."""
    if node.op_type != "MatMul":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if value is not None and not constants.is_constant(value):
            raise Refusal("bias-not-constant", f"its bias '{value.name}' is not a constant", "Use a constant bias.")
        return None, value
    output = node.outputs[0]
    users = list(output.uses())
    if len(users) != 1 or output.is_graph_output():
        return None, None
    add, position = users[0].node, users[0].idx
    if add.op_type != "Add" or add.domain != "" or add.graph is not node.graph:
        return None, None
    other = add.inputs[1 - position]
    if other is None or not constants.is_constant(other):
        return None, None
    shape = constants.array(other).shape
    rank = len(output.shape) if output.shape is not None else 2
    # a bias of more axes than the product would raise the rank of the result
    if not shape or shape[-1] != channels or int(np.prod(shape)) != channels or len(shape) > rank:
        return None, None
    return add, other


def _quantize_bias(
    value: ir.Value, beta: np.float32, deq_scale: npt.NDArray[np.float32], channels: int, constants: ConstantEvaluator
) -> npt.NDArray[np.int32]:
    bias = _exact_bias(value, beta, deq_scale, constants)
    if bias is None:
        array = np.asarray(constants.array(value))
        if array.size not in (1, channels):
            raise Refusal(
                "bias-shape", f"its bias '{value.name}' has shape {array.shape}", f"Use a bias of shape [{channels}]."
            )
        array = np.broadcast_to(array.reshape(-1).astype(np.float32) * beta, (channels,))
        bias = arithmetic.quantize_bias(array, deq_scale)
    bad = np.flatnonzero(~((bias >= arithmetic.INT32_MIN) & (bias <= arithmetic.INT32_MAX)))
    if bad.size:
        raise Refusal(
            "bias-overflow",
            f"its bias '{value.name}' quantizes to {bias[bad[0]]:.0f} in channel {bad[0]}, beyond int32",
            "Use a larger weight or activation scale in that channel, or a smaller bias.",
        )
    return bias.astype(np.int32)


def _exact_bias(
    value: ir.Value, beta: np.float32, deq_scale: npt.NDArray[np.float32], constants: ConstantEvaluator
) -> npt.NDArray[np.float64] | None:
    """The integers of an int32 DQ whose scale is already scale_d * scale_w: taken over unchanged."""
    node = value.producer()
    if not is_op(node, DEQUANTIZE) or node is None or node.inputs[0] is None or beta != 1:
        return None
    scale, zero, _ = raw_factors(node, constants)
    integers = np.asarray(constants.array(node.inputs[0])).reshape(-1)
    if integers.dtype != np.int32 or np.any(zero) or not _same_scale(scale, deq_scale):
        return None
    return np.broadcast_to(integers, np.broadcast_shapes(integers.shape, deq_scale.shape)).astype(np.float64)


def _same_scale(scale: npt.NDArray[np.float32], deq_scale: npt.NDArray[np.float32]) -> bool:
    """Equal by value; one of the two may be per-tensor."""
    return (1 in (scale.size, deq_scale.size) or scale.size == deq_scale.size) and bool(np.all(scale == deq_scale))
