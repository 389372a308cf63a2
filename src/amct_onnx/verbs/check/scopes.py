"""The graphs of a model: the root and those that attributes of nodes hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Scope:
    """A graph, and the node whose attribute holds it (None for the root)."""

    graph: ir.Graph
    holder: ir.Node | None
    outer: Scope | None


def scopes_of(root: ir.Graph) -> Iterator[Scope]:
    """The root graph and all nested ones, breadth first as ATC's parser visits them."""
    waiting = deque([Scope(root, None, None)])
    while waiting:
        scope = waiting.popleft()
        yield scope
        for node in scope.graph:
            for item in node.attributes.values():
                if item.is_ref():
                    continue
                if item.type == ir.AttributeType.GRAPH:
                    waiting.append(Scope(item.as_graph(), node, scope))
                elif item.type == ir.AttributeType.GRAPHS:
                    waiting.extend(Scope(g, node, scope) for g in item.as_graphs())
