"""Nodes whose result differs from run to run."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.needs import Need, needs_of
from amct_onnx.graph.opset import opset_of

DRAWS = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial".split())
"""Operators that draw random numbers, whatever the mode; a seed fixes them for a session, not for a run."""
NAMED = 3
"""Nodes of one kind that a sentence names."""


def random_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes that draw and on whose numbers an output depends, in the order of the graph; functions come last.

    A Dropout in training mode is among them. What only Shape and its kin read of a node is not random.
    """
    return giving_numbers(_drawing(model), model)


def giving_numbers(nodes: list[ir.Node], model: ir.Model) -> list[ir.Node]:
    """Those nodes on whose numbers an output of the model depends, not only on the shapes of their results."""
    if not nodes:
        return []
    needs = needs_of(model)
    return [n for n in nodes if any(needs.get(v) is Need.NUMBERS for v in n.outputs)]


def numbers_of_chance(model: ir.Model, outputs: Iterable[ir.Value]) -> set[ir.Value]:
    """The tensors of the graph that chance may make, in a model none of whose outputs it makes: see ``random_nodes``.

    They are those whose numbers no output needs; none where no node draws.

    Args:
        model: only read.
        outputs: of the model as it was given.
    """
    if not _drawing(model):
        return set()
    needs = needs_of(model, outputs)
    return {v for n in model.graph for v in n.outputs if needs.get(v) is not Need.NUMBERS}


def _drawing(model: ir.Model) -> list[ir.Node]:
    """The nodes of the graph and its bodies that draw, and behind them those within functions."""
    constants = ConstantEvaluator(opset_of(model))
    within = (ir.traversal.RecursiveGraphIterator(function) for function in model.functions.values())
    return [n for n in chain(nodes_of(model), *within) if _draws(n, constants)]


def _draws(node: ir.Node, constants: ConstantEvaluator) -> bool:
    return node.domain in ("", "ai.onnx") and (node.op_type in DRAWS or drops(node, constants))


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
