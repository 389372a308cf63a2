"""EmbedLayerNormalization and QEmbedLayerNormalization of com.microsoft: rows of tables, their sum, its normalisation.

    y = LayerNormalization(words[ids] + positions[0 .. length] + segments[segment ids])

The tables, gamma and beta of the quantized one are integers, each with one scale and zero point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from amct_onnx.normalise.fused_attention import dequantized
from amct_onnx.normalise.fused_normalisations import layer_normalization
from amct_onnx.normalise.fused_parts import Parts, given, required

WORDS, POSITIONS, SEGMENTS, GAMMA, BETA = 2, 3, 4, 5, 6
"""Inputs; of the quantized operator their scales are six inputs further, and their zero points eleven."""
SCALE, ZERO, POSITION_IDS = 6, 11, 8


def embedding(parts: Parts, node: ir.Node) -> ir.Value | None:
    """The result; None where the mask's lengths are read, or a table of segments lacks its ids."""
    quantized = node.op_type.startswith("Q")
    segments, ids = given(node, SEGMENTS), given(node, 1)
    if (segments is None) != (ids is None) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None

    def table(index: int, label: str) -> ir.Value:
        value = required(node, index)
        return dequantized(parts, node, value, index + SCALE, index + ZERO, label) if quantized else value

    total = parts.op(node, "Gather", [table(WORDS, "words"), required(node, 0)], "words")
    positions = None if quantized else given(node, POSITION_IDS)
    rows = _rows(parts, node, table(POSITIONS, "positions"), positions)
    total = parts.op(node, "Add", [total, rows], "words_and_positions")
    if segments is not None:
        rows = parts.op(node, "Gather", [table(SEGMENTS, "segments"), ids], "segments")
        total = parts.op(node, "Add", [total, rows], "sum")
    return layer_normalization(parts, node, total, table(GAMMA, "gamma"), table(BETA, "beta"))


def _rows(parts: Parts, node: ir.Node, table: ir.Value, positions: ir.Value | None) -> ir.Value:
    """The rows at the positions; without any, as many from the first on as a sentence is long."""
    if positions is not None:
        return parts.op(node, "Gather", [table, positions], "positions")
    whole: Callable[..., ir.Value] = partial(parts.op, node, kind=ir.DataType.INT64)
    sizes = whole("Shape", [required(node, 0)], "sizes")
    one, two, first = (parts.integers(node, name, [n]) for name, n in (("one", 1), ("two", 2), ("first", 0)))
    length = whole("Slice", [sizes, one, two], "length")
    return parts.op(node, "Slice", [table, first, length, first], "positions")
