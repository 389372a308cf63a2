"""Attention, QAttention and MultiHeadAttention of com.microsoft without past keys: products, Softmax and reshapes.

    y = softmax(q k' * scale + masks) v,    for each head

q, k and v are parts of x w + bias in (Q)Attention, inputs in MultiHeadAttention. A mask adds 0 or mask_filter_value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.normalise.fused_masks import masks_of
from amct_onnx.normalise.fused_parts import Parts, given, required

PLAIN = ("num_heads", "scale", "mask_filter_value", "past_present_share_buffer", "rotary_embedding_dim")
"""Attributes under which the definition above holds; of the others, those that are 0."""
HEADS_FIRST = (0, 2, 1, 3)


def attention(parts: Parts, node: ir.Node) -> ir.Value | None:
    """Attention: x, weights, bias, mask, past, addend; QAttention: x, weight, bias, their scales, mask, zero points.

    Returns:
        The result; None where past keys or other variants are asked for, or a mask whose meaning is not known.
    """
    quantized = node.op_type == "QAttention"
    others = [8] if quantized else [4, *range(6, len(node.inputs))]
    shape, heads = parts.shape(required(node, 1)), checked_attribute(node, "num_heads", 0)
    if _is_variant(node, others) or shape is None or len(shape) != 2 or heads < 1 or not isinstance(shape[1], int):
        return None
    size = shape[1] // 3 // heads
    if size * heads * 3 != shape[1]:
        return None
    x, weight = required(node, 0), required(node, 1)
    masks = masks_of(parts, node, given(node, 5 if quantized else 3), x, x)
    if masks is None:
        return None
    if not quantized and given(node, 5) is not None:
        masks.append(required(node, 5))
    if quantized:
        x = dequantized(parts, node, x, 3, 6, "x")
        weight = dequantized(parts, node, weight, 4, 7, "w")
    value = parts.op(node, "MatMul", [x, weight], "")
    if given(node, 2) is not None:
        value = parts.op(node, "Add", [value, required(node, 2)], "bias")
    value = parts.op(node, "Reshape", [value, parts.integers(node, "heads", [0, 0, 3, heads, size])], "heads")
    value = parts.op(node, "Transpose", [value], "parts", [ir.AttrInt64s("perm", [2, 0, 3, 1, 4])])
    q, k, v = (
        parts.op(node, "Gather", [value, parts.integers(node, name, i)], name, [ir.AttrInt64("axis", 0)])
        for i, name in enumerate(("query", "key", "value"))
    )
    return _attended(parts, node, (q, k, v), size, masks)


def multi_head_attention(parts: Parts, node: ir.Node) -> ir.Value | None:
    """MultiHeadAttention: query, key, value, each [batch, length, width]; bias of all three, mask, addend.

    Returns:
        The result; None where the inputs are packed, past keys are asked for, or the meaning of a mask is not known.
    """
    heads = checked_attribute(node, "num_heads", 0)
    inputs = [given(node, i) for i in range(3)]
    shapes = [parts.shape(v) if v is not None else None for v in inputs]
    widths = {s[2] for s in shapes if s is not None and len(s) == 3 and isinstance(s[2], int)}
    if _is_variant(node, range(6, len(node.inputs))) or heads < 1 or len(widths) != 1:
        return None
    if any(s is None or len(s) != 3 or not isinstance(s[2], int) for s in shapes):
        return None
    width = widths.pop()
    if width % heads:
        return None
    masks = masks_of(parts, node, given(node, 4), required(node, 0), required(node, 1))
    if masks is None:
        return None
    if given(node, 5) is not None:
        masks.append(required(node, 5))
    split = []
    for index, name in enumerate(("query", "key", "value")):
        value = required(node, index)
        if given(node, 3) is not None:
            bounds = [parts.integers(node, f"{name}.{i}", [(index + i) * width]) for i in (0, 1)]
            value = parts.op(
                node, "Add", [value, parts.op(node, "Slice", [required(node, 3), *bounds], f"{name}.bias")], name
            )
        heads_of = parts.integers(node, f"{name}.heads", [0, 0, heads, width // heads])
        value = parts.op(node, "Reshape", [value, heads_of], f"{name}.heads")
        split.append(parts.op(node, "Transpose", [value], f"{name}.first", [ir.AttrInt64s("perm", HEADS_FIRST)]))
    return _attended(parts, node, split, width // heads, masks)


def _is_variant(node: ir.Node, others: Sequence[int]) -> bool:
    """Whether a node has inputs, attributes or read outputs beyond the definition above."""
    if any(given(node, i) is not None for i in others):
        return True
    if any(a.name not in (*PLAIN, "unidirectional") and a.value for a in node.attributes.values()):
        return True
    return any(v.uses() or v.is_graph_output() for v in node.outputs[1:])


def _attended(parts: Parts, node: ir.Node, split: Sequence[ir.Value], size: int, masks: Sequence[ir.Value]) -> ir.Value:
    """The formula, of q, k and v as [batch, heads, length, size]."""
    q, k, v = split
    k = parts.op(node, "Transpose", [k], "key_transposed", [ir.AttrInt64s("perm", [0, 1, 3, 2])])
    scale = checked_attribute(node, "scale", 0.0) or 1 / math.sqrt(size)
    scores = parts.binary(node, "Mul", parts.op(node, "MatMul", [q, k], "scores"), scale, "scaled")
    for index, mask in enumerate(masks):
        scores = parts.op(node, "Add", [scores, mask], f"masked_{index}")
    scores = parts.op(node, "Softmax", [scores], "softmax", [ir.AttrInt64("axis", -1)])
    value = parts.op(node, "MatMul", [scores, v], "weighted")
    value = parts.op(node, "Transpose", [value], "heads_last", [ir.AttrInt64s("perm", HEADS_FIRST)])
    heads = checked_attribute(node, "num_heads", 0)
    return parts.op(node, "Reshape", [value, parts.integers(node, "joined", [0, 0, heads * size])], "joined")


def dequantized(parts: Parts, node: ir.Node, value: ir.Value, scale: int, zero: int, label: str) -> ir.Value:
    """Integers, of the scale and zero point that are these inputs, as floats; a scale per column at most."""
    factor = required(node, scale)
    inputs = [value, factor, *([] if given(node, zero) is None else [given(node, zero)])]
    per_channel = parts.constants.is_constant(factor) and np.size(parts.constants.array(factor)) > 1
    attributes = [ir.AttrInt64("axis", 1)] if per_channel else []
    result = parts.op(node, "DequantizeLinear", inputs, f"{label}.dequantize", attributes)
    result.shape = value.shape
    return result
