"""Nodes that no output needs go, and with an If, Loop or Scan among them what its bodies alone read."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from amct_onnx.graph.edit import bodies_of, nodes_of


def remove_unused_nodes(model: ir.Model) -> None:
    """Remove, in place, every node and initializer that no output depends on."""
    holders = [n for n in nodes_of(model) if bodies_of(n)]
    RemoveUnusedNodesPass()(model)
    while gone := [n for n in holders if n.graph is None]:
        # onnx-ir leaves the nodes of their bodies as readers of the tensors around
        for node in gone:
            _let_go(node)
        holders = [n for n in holders if n.graph is not None]
        RemoveUnusedNodesPass()(model)


def _let_go(node: ir.Node) -> None:
    """Let the nodes in the bodies of a removed node read nothing."""
    for body in bodies_of(node):
        for inner in body:
            _let_go(inner)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
