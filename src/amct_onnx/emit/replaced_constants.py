"""Constants that only the layers that become int8 read: the plan holds their numbers, so no output model needs them."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.plan.factors import Plan


def replaced_constants(model: ir.Model, plan: Plan) -> set[ir.Node | ir.Value]:
    """The nodes, with their results, and the initializers that can be left out of an output model from the start.

    Args:
        model: the normalised graph.
        plan: of its conversion.
    """
    constants = ConstantEvaluator(opset_of(model))
    nodes = {n.name or "": n for n in nodes_of(model)}
    behind = [nodes[name] for s in plan.sites for name in s.absorbed]
    # inputs that the emitters replace, with what reads them
    replaced = {(nodes[s.node], i) for s in plan.sites for i in range(len(s.activations), len(nodes[s.node].inputs))}
    replaced |= {(n, i) for n in behind for i in range(len(n.inputs))}
    found: set[ir.Node | ir.Value] = set()
    waiting = [node.inputs[index] for node, index in replaced]
    while waiting:
        value = waiting.pop()
        if value is None or value in found or value.is_graph_output() or not constants.is_constant(value):
            continue
        if not all(use.node in found or use in replaced for use in value.uses()):
            continue
        found.add(value)
        node = value.producer()
        if node is not None:
            found.add(node)
            waiting += node.inputs
    return found
