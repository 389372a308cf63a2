"""Nodes that no output needs go, and with an If, Loop or Scan among them what its bodies alone read."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from amct_onnx.graph.edit import bodies_of, nodes_of


def remove_unused_nodes(model: ir.Model) -> None:
    """Remove, in place, every node and initializer that no output depends on."""
    nodes = nodes_of(model)
    # without bodies, the list holds the nodes of the graph alone
    holders = [n for n in nodes if bodies_of(n)] if len(nodes) > len(model.graph) else []
    _remove(model)
    while gone := [n for n in holders if n.graph is None]:
        # neither onnx-ir nor we let go what the nodes of their bodies read of the tensors around
        for node in gone:
            _let_go(node)
        holders = [n for n in holders if n.graph is not None]
        _remove(model)


def _remove(model: ir.Model) -> None:
    """As onnx-ir's pass, which is run only where it would do more than this: it looks each node's schema up."""
    graph = model.graph
    _remove_nodes(graph)
    if model.functions or any(map(_has_unused_ends, graph)):
        RemoveUnusedNodesPass()(model)
        return
    ends = {*graph.outputs, *graph.inputs}
    for name in [n for n, v in graph.initializers.items() if not v.uses() and v not in ends]:
        del graph.initializers[name]


def _has_unused_ends(node: ir.Node) -> bool:
    """Whether a node may have unused nodes in bodies, results or inputs that can be left out, or a training mode."""
    if len(node.outputs) != 1 or (node.inputs and node.inputs[-1] is None):
        return True
    return node.op_type == "BatchNormalization" or bool(bodies_of(node))


def _remove_nodes(graph: ir.Graph) -> None:
    """Remove the nodes of a graph whose results nothing reads, and so on; their inputs lose a reader."""
    ends = set(graph.outputs)
    waiting = list(graph)
    gone: dict[ir.Node, None] = {}
    while waiting:
        node = waiting.pop()
        if node in gone or any(v.uses() or v in ends for v in node.outputs):
            continue
        gone[node] = None
        makers = [v.producer() for v in node.inputs if v is not None]
        node.resize_inputs(0)
        waiting += [m for m in makers if m is not None and m.graph is graph]
    graph.remove(gone)


def _let_go(node: ir.Node) -> None:
    """Let the nodes in the bodies of a removed node read nothing."""
    for body in bodies_of(node):
        for inner in body:
            _let_go(inner)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
