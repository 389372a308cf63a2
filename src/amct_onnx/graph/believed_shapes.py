"""Shapes that only the file tells, because no inference can: they may be false, so no output repeats them."""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of

BELIEVED = "amct_onnx.believed_shapes"
"""Key in a graph's meta: names of the tensors whose declared shape nothing confirms."""


def believed_shapes(model: ir.Model) -> frozenset[str]:
    """Names of the tensors whose declared shape nothing confirms."""
    return frozenset(model.graph.meta.get(BELIEVED, ()))


def take_over_beliefs(model: ir.Model, before: ir.Model) -> None:
    """Give a model that stands for another one the other's."""
    model.graph.meta[BELIEVED] = set(believed_shapes(before))


def forget_beliefs(model: ir.Model, believed: Set[str]) -> None:
    """Take their shapes from these tensors, in place, and from all that depend on them, but for graph outputs."""
    if not believed:
        return
    unsure: set[ir.Value] = set()
    for node in nodes_of(model):
        if any(v.name in believed for v in node.outputs) or any(v in unsure for v in node.inputs if v is not None):
            unsure.update(node.outputs)
    for value in unsure:
        if not value.is_graph_output():
            value.shape = None
