"""What only the layers that become int8 read: constants, whose numbers the plan holds, and quantizers in front of them.

Both emitters write these anew, so no output model needs them.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.factors import Plan


def replaced_parts(model: ir.Model, plan: Plan) -> set[ir.Node | ir.Value]:
    """The nodes, with their results, and the initializers that can be left out of an output model from the start.

    Args:
        model: the normalised graph.
        plan: of its conversion.
    """
    constants = ConstantEvaluator(opset_of(model))
    nodes = {n.name or "": n for n in nodes_of(model)}
    behind = [nodes[name] for s in plan.sites for name in s.absorbed]
    # inputs that the emitters replace, with what reads them
    replaced = {(nodes[s.node], i) for s in plan.sites for i in range(len(nodes[s.node].inputs))}
    replaced |= {(n, i) for n in behind for i in range(len(n.inputs))}
    looked_up = _looked_up(plan)
    found: set[ir.Node | ir.Value] = set()
    waiting = [node.inputs[index] for node, index in replaced]
    while waiting:
        value = waiting.pop()
        if value is None or value in found or value.is_graph_output() or value.name in looked_up:
            continue
        node = value.producer()
        if not (is_op(node, QUANTIZE, DEQUANTIZE) or constants.is_constant(value)):
            continue
        if not all(use.node in found or use in replaced for use in value.uses()):
            continue
        found.add(value)
        if node is not None:
            found.add(node)
            waiting += node.inputs
    return found


def _looked_up(plan: Plan) -> set[str]:
    """Names of the tensors that the emitters look for in the copy, at which they insert something."""
    names = {a.source for s in plan.sites for a in s.activations}
    names |= {name for p in (*plan.pairs, *plan.moved) for name in (p.source, p.output)}
    return names | {name for out, source, _ in plan.outputs for name in (out, source)}
