"""Attention and QAttention of com.microsoft without mask and past: products, Softmax and reshapes.

q, k, v = split(x w + bias),    y = softmax(q k' / sqrt(head size)) v, for each head
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.graph.shapes import stored_shape
from amct_onnx.normalise.fused_parts import Parts, given, required

PLAIN = ("num_heads", "scale", "mask_filter_value", "past_present_share_buffer", "rotary_embedding_dim")
"""Attributes under which the definition above holds; of the others, those that are 0."""


def attention(parts: Parts, node: ir.Node) -> ir.Value | None:
    """Attention: x, weights, bias, mask, ...; QAttention: x, weight, bias, their scales, mask, their zero points.

    Returns:
        The result; None where masks, past keys or other variants are asked for.
    """
    quantized = node.op_type == "QAttention"
    more = [5, *range(8, len(node.inputs))] if quantized else range(3, len(node.inputs))
    variants = [a for a in node.attributes.values() if a.name not in PLAIN and a.value]
    shape, heads = stored_shape(node.inputs[1]), checked_attribute(node, "num_heads", 0)
    if any(given(node, i) is not None for i in more) or variants or shape is None or len(shape) != 2 or heads < 1:
        return None
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return None
    size = shape[1] // 3 // heads
    if size * heads * 3 != shape[1]:
        return None
    x, weight = required(node, 0), required(node, 1)
    if quantized:
        x = _dequantized(parts, node, x, 3, 6, "x")
        weight = _dequantized(parts, node, weight, 4, 7, "w")
    value = parts.op(node, "MatMul", [x, weight], "")
    if given(node, 2) is not None:
        value = parts.op(node, "Add", [value, required(node, 2)], "bias")
    value = parts.op(node, "Reshape", [value, parts.integers(node, "heads", [0, 0, 3, heads, size])], "heads")
    value = parts.op(node, "Transpose", [value], "parts", [ir.AttrInt64s("perm", [2, 0, 3, 1, 4])])
    q, k, v = (
        parts.op(node, "Gather", [value, parts.integers(node, name, i)], name, [ir.AttrInt64("axis", 0)])
        for i, name in enumerate(("query", "key", "value"))
    )
    k = parts.op(node, "Transpose", [k], "key_transposed", [ir.AttrInt64s("perm", [0, 1, 3, 2])])
    scale = checked_attribute(node, "scale", 0.0) or 1 / math.sqrt(size)
    scores = parts.binary(node, "Mul", parts.op(node, "MatMul", [q, k], "scores"), scale, "scaled")
    scores = parts.op(node, "Softmax", [scores], "softmax", [ir.AttrInt64("axis", -1)])
    value = parts.op(node, "MatMul", [scores, v], "weighted")
    value = parts.op(node, "Transpose", [value], "heads_last", [ir.AttrInt64s("perm", [0, 2, 1, 3])])
    return parts.op(node, "Reshape", [value, parts.integers(node, "joined", [0, 0, heads * size])], "joined")


def _dequantized(parts: Parts, node: ir.Node, value: ir.Value, scale: int, zero: int, label: str) -> ir.Value:
    factor = required(node, scale)
    inputs = [value, factor, *([] if given(node, zero) is None else [given(node, zero)])]
    per_channel = parts.constants.is_constant(factor) and np.size(parts.constants.array(factor)) > 1
    attributes = [ir.AttrInt64("axis", 1)] if per_channel else []
    result = parts.op(node, "DequantizeLinear", inputs, f"{label}.dequantize", attributes)
    result.shape = value.shape
    return result
