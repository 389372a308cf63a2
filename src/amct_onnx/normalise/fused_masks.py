"""Masks of com.microsoft's attention operators, as what is added to the scores [batch, heads, length, keys].

Source: the contrib operators' documentation of ONNX Runtime, and its kernel, which the tests compare.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.normalise.fused_parts import Parts

Shape = tuple[int | ir.SymbolicDim, ...]
FILTER_VALUE = -10000.0
"""Added where a mask says no, unless an attribute says otherwise."""


def masks_of(
    parts: Parts, node: ir.Node, mask: ir.Value | None, queries: ir.Value, keys: ir.Value
) -> list[ir.Value] | None:
    """What a mask and the attribute ``unidirectional`` add.

    Args:
        parts: of the model.
        node: the attention.
        mask: of integers: [batch, keys] or [batch, length, keys], positive where a key counts; or [batch], how many
            keys count; or [2 * batch], where they end and where they begin.
        queries: [batch, length, ...].
        keys: [batch, keys, ...].

    Returns:
        None for any other mask, and where a shape on which this depends is not known.
    """
    added = []
    if checked_attribute(node, "unidirectional", 0):
        lengths = [_length(parts, v) for v in (queries, keys)]
        if not isinstance(lengths[0], int) or lengths[0] != lengths[1]:
            return None  # the diagonal may lie elsewhere, and ATC wants constants
        later = np.triu(np.full((lengths[0], lengths[0]), np.finfo(np.float32).min, np.float32), 1)
        added.append(parts.like(node, "later", later))
    if mask is not None:
        counts = _counting_keys(parts, node, mask, keys)
        if counts is None:
            return None
        filter_value = checked_attribute(node, "mask_filter_value", FILTER_VALUE)
        choices = [parts.number(node, "counts", 0.0), parts.number(node, "filtered", filter_value)]
        added.append(parts.op(node, "Where", [counts, *choices], "mask"))
    return added


def _counting_keys(parts: Parts, node: ir.Node, mask: ir.Value, keys: ir.Value) -> ir.Value | None:
    """Whether each key counts, broadcastable against the scores."""
    shape, batch = parts.shape(mask), parts.shape(keys)
    if shape is None or batch is None or mask.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
        return None
    if len(shape) in (2, 3):
        zero = parts.edit.constant(f"{node.name}/mask/zero", np.asarray(0, mask.dtype.numpy()))
        counts = parts.op(node, "Greater", [mask, zero], "counts", kind=ir.DataType.BOOL)
        return parts.unsqueezed(node, counts, [1, 2] if len(shape) == 2 else [1], "counts.spread")
    length, halves = _length(parts, keys), _halves(shape, batch)
    if not isinstance(length, int) or not halves:
        return None
    bounds = []
    mask = parts.op(node, "Cast", [mask], "ends", [ir.AttrInt64("to", int(ir.DataType.INT64))], ir.DataType.INT64)
    for name, places in zip(("end", "begin"), halves, strict=False):
        value = mask
        if places is not None:
            indices = parts.integers(node, f"{name}.indices", places)
            value = parts.op(node, "Gather", [mask, indices], name, kind=ir.DataType.INT64)
        value = parts.unsqueezed(node, value, [1, 2, 3], f"{name}.spread")
        positions = parts.integers(node, f"{name}.positions", list(range(length)))
        bounds.append(parts.op(node, "Less", [positions, value], f"before_{name}", kind=ir.DataType.BOOL))
    if len(bounds) == 1:
        return bounds[0]
    behind = parts.op(node, "Not", [bounds[1]], "behind_begin", kind=ir.DataType.BOOL)
    return parts.op(node, "And", [bounds[0], behind], "counts", kind=ir.DataType.BOOL)


def _halves(shape: Shape, batch: Shape) -> list[list[int] | None]:
    """Where a mask of one axis holds the ends of the keys, and their begins; None for all of it."""
    if len(shape) != 1:
        return []
    if shape[0] == batch[0]:
        return [None]
    if not isinstance(shape[0], int) or not isinstance(batch[0], int) or shape[0] != 2 * batch[0]:
        return []
    return [list(range(batch[0])), list(range(batch[0], shape[0]))]


def _length(parts: Parts, value: ir.Value) -> int | ir.SymbolicDim | None:
    shape = parts.shape(value)
    return shape[1] if shape is not None and len(shape) > 1 else None
