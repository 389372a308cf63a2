"""Topological order of nodes: a graph that has it, as most do, is not sorted again."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import bodies_of


def sort_nodes(graph: ir.Graph) -> None:
    """Sort a graph and the bodies in it in place, as ``ir.Graph.sort``: that keeps a graph in order as it is.

    Raises:
        ValueError: The graph holds a cycle.
    """
    if not _is_sorted(graph):
        graph.sort()


def _is_sorted(graph: ir.Graph) -> bool:
    """Whether a graph without bodies has each node behind what it reads."""
    seen: set[ir.Node | None] = {None}
    for node in graph:
        if bodies_of(node) or any(v is not None and v.producer() not in seen for v in node.inputs):
            return False
        seen.add(node)
    return True
