"""Nodes whose result differs from run to run."""

from __future__ import annotations

from itertools import chain

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import bodies_of, nodes_of
from amct_onnx.graph.opset import opset_of

DRAWS = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial".split())
"""Operators that draw random numbers, whatever the mode; a seed fixes them for a session, not for a run."""
NAMED = 3
"""Nodes of one kind that a sentence names."""


def random_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes that draw and that an output depends on, in the order of the graph; those within functions come last.

    A Dropout in training mode is among them; of functions every node counts.
    """
    constants = ConstantEvaluator(opset_of(model))
    found = [n for n in nodes_of(model) if _draws(n, constants)]
    if found:
        needed = _needed_nodes(model.graph)
        found = [n for n in found if n in needed]
    within = (ir.traversal.RecursiveGraphIterator(function) for function in model.functions.values())
    return [*found, *(n for n in chain(*within) if _draws(n, constants))]


def _draws(node: ir.Node, constants: ConstantEvaluator) -> bool:
    return node.domain in ("", "ai.onnx") and (node.op_type in DRAWS or drops(node, constants))


def _needed_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Nodes that an output of the graph depends on."""
    needed: set[ir.Node] = set()
    waiting: list[ir.Value | None] = list(graph.outputs)
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        if node is not None and node not in needed:
            needed.add(node)
            waiting += [*node.inputs, *(output for body in bodies_of(node) for output in body.outputs)]
    return needed


def drops(node: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether a node is a Dropout whose training_mode is true, or unknown, and whose ratio is not 0."""
    if node.op_type != "Dropout" or node.domain not in ("", "ai.onnx"):
        return False
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None:
        return False  # below opset 12 there is no such input, and models are raised from there in inference mode
    if constants.is_constant(mode) and not np.any(constants.array(mode)):
        return False
    ratio = node.inputs[1]
    return ratio is None or not constants.is_constant(ratio) or bool(np.any(constants.array(ratio)))


def draw(nodes: list[ir.Node]) -> str:
    """``Node 'x' (Dropout) draws random numbers``."""
    return f"{named(nodes)} {'draws' if len(nodes) == 1 else 'draw'} random numbers"


def named(nodes: list[ir.Node]) -> str:
    """Some nodes with their operators, and how many more there are."""
    shown = ", ".join(f"'{n.name or n.outputs[0].name}' ({n.op_type})" for n in nodes[:NAMED])
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    noun = "Node" if len(nodes) == 1 else "Nodes"
    return f"{noun} {shown}{more}"
