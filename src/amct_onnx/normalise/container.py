"""Container repairs: functions inlined, one opset, operators and constants that ATC reads, nodes sorted and named."""

from __future__ import annotations

import re

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.believed_shapes import take_over_beliefs
from amct_onnx.graph.edit import FreeNames, bodies, nodes_of, note_flat
from amct_onnx.graph.model_warnings import take_over_warnings, warn
from amct_onnx.graph.node_order import sort_nodes
from amct_onnx.graph.unused_nodes import remove_unused_nodes
from amct_onnx.normalise.constant_nodes import store_constants
from amct_onnx.normalise.constant_types import refuse_wrong_constants
from amct_onnx.normalise.declared_shapes import check_declared_shapes
from amct_onnx.normalise.device_configurations import drop_device_configurations
from amct_onnx.normalise.function_opsets import raise_older_nodes, unify_opsets
from amct_onnx.normalise.opset import normalise_opset

MAX_NODES = 1_000_000
"""Limit for a model with its functions inlined. The largest real models have some ten thousand nodes."""
MAX_CALL_DEPTH = 100
"""Limit of functions that call functions."""
MAX_NAMED = 3
"""Inputs that a warning names."""
CONSTANTS_NAME = re.compile(r".*_Initializer_\d+", re.DOTALL)
"""Names of the nodes that ATC's parser makes from initializers: <tensor>_Initializer_<n>."""


def normalise_container(model: ir.Model) -> ir.Model:
    """Return the model with functions inlined, opset 11..18, sorted and uniquely named nodes that an output needs.

    Raises:
        UnsupportedModelError: The graph is cyclic, a function cannot be inlined, a node has no form in opset 11..18, or
            reads a constant of a type that it does not take.
    """
    try:
        for graph in (model.graph, *(f.graph for f in model.functions.values())):
            sort_nodes(graph)
    except ValueError as error:
        raise UnsupportedModelError(
            f"The graph holds a cycle and cannot be sorted ({error}). Export the model again."
        ) from error
    if model.functions:
        _refuse_explosion(model)
        unify_opsets(model)
        try:
            model = InlinePass()(model).model
        except ValueError as error:  # opsets that differ, attributes that are graphs
            raise UnsupportedModelError(
                f"The model's functions cannot be inlined ({error}). Export the model without functions."
            ) from error
        raise_older_nodes(model)
    drop_device_configurations(model)
    check_declared_shapes(model)
    declared, model = model, normalise_opset(model)
    if declared is not model:
        take_over_warnings(model, declared)
        take_over_beliefs(model, declared)
    store_constants(model)
    # a layer whose result nothing reads is in neither output, and not in the ledger
    remove_unused_nodes(model)
    _name_uniquely(model)
    refuse_wrong_constants(model)
    note_flat(model)
    return model


def _refuse_explosion(model: ir.Model) -> None:
    """Count nodes before they are made: functions that call others twice double with each level."""
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(graph: ir.Graph, depth: int) -> int:
        if depth > MAX_CALL_DEPTH:
            raise UnsupportedModelError(
                f"The model's functions call each other more than {MAX_CALL_DEPTH} levels deep, or themselves. Export "
                "the model without functions."
            )
        total = 0
        for node in ir.traversal.RecursiveGraphIterator(graph):
            key = node.op_identifier()
            if key in model.functions and key not in sizes:
                sizes[key] = size(model.functions[key].graph, depth + 1)
            total += sizes.get(key, 1)
        return total

    total = size(model.graph, 0)
    if total > MAX_NODES:
        raise UnsupportedModelError(
            f"The model has {total} nodes with its functions inlined; at most {MAX_NODES} are inlined. "
            "Export a smaller model."
        )


def _name_uniquely(model: ir.Model) -> None:
    """One name per node and per value in the whole model, bodies included; of values only those in bodies change.

    Initializers that are also listed as graph inputs are inputs no longer: ATC makes them constants.
    """
    constants = {v.name for v in model.graph.initializers.values()}
    dropped: list[str] = []
    for value in [v for v in model.graph.inputs if v.name in constants]:
        model.graph.inputs.remove(value)
        dropped.append(value.name or "")
    if dropped:
        named = ", ".join(f"'{n}'" for n in dropped[:MAX_NAMED]) + (", ..." if len(dropped) > MAX_NAMED else "")
        warn(
            model,
            f"{len(dropped)} graph inputs have initializers ({named}): the outputs hold these as constants and take no "
            "such inputs. Feed the other inputs only.",
        )
    outer = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    values = FreeNames(v.name for v in outer)
    for graph in bodies(model.graph):
        for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
            if value.name:
                value.name = values.take(value.name)
    nodes = FreeNames(v.name for v in model.graph.inputs)
    for index, node in enumerate(nodes_of(model)):
        wished = node.name or f"{node.op_type}_{index}"
        node.name = nodes.take(f"{wished}_node" if CONSTANTS_NAME.fullmatch(wished) else wished)
