"""Sums of an Einsum over an axis that one operand may repeat.

An Einsum repeats an axis of size 1 as often as the other operand needs; a MatMul does so for the axes of a batch alone.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.refused import note_form
from amct_onnx.graph.shapes import sizes_that_differ


def has_repeated_sum(node: ir.Node, x: str, w: str, summed: str) -> bool:
    """Whether an axis that is summed may have two sizes, which is then noted on the node.

    Args:
        node: an Einsum of two operands.
        x: labels of the first one's axes.
        w: labels of the second one's axes.
        summed: labels of both that the result lacks.
    """
    differ = sizes_that_differ(node.inputs[0], x, node.inputs[1], w, summed)
    if differ:
        note_form(
            node,
            f"sums over axes whose two sizes are not known to be equal: {differ}. Einsum repeats an axis of size 1, "
            "and MatMul does not",
        )
    return bool(differ)
