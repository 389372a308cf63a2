"""Nodes are sorted as onnx-ir sorts them, and left alone where they are in order."""

from __future__ import annotations

import random

import onnx_ir as ir
import pytest

from amct_onnx.graph.node_order import sort_nodes


def chains(order: list[int]) -> ir.Graph:
    """Twelve nodes, each of which reads two earlier ones, in an order."""
    source = ir.Value(name="x")
    nodes: list[ir.Node] = []
    for index in range(12):
        read = [nodes[i].outputs[0] for i in (index // 2, index // 3)] if index else [source]
        nodes.append(ir.Node("", "Sum", read, num_outputs=1, name=str(index)))
    return ir.Graph([source], [nodes[-1].outputs[0]], nodes=[nodes[i] for i in order])


@pytest.mark.parametrize("seed", range(8))
def test_order_is_that_of_onnx_ir(seed: int) -> None:
    order = list(range(12))
    random.Random(seed).shuffle(order)
    for kept in (order, sorted(order)):
        ours, theirs = chains(kept), chains(kept)
        sort_nodes(ours)
        theirs.sort()
        assert [n.name for n in ours] == [n.name for n in theirs]


def test_a_cycle_is_an_error() -> None:
    graph = chains(list(range(12)))
    graph.node(0).replace_input_with(0, graph.node(11).outputs[0])
    with pytest.raises(ValueError, match="cycle"):
        sort_nodes(graph)
