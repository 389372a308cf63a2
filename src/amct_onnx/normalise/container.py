"""Container repairs: functions inlined, one opset of the default domain, nodes sorted and named."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, TopologicalSortPass

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.normalise.graph_edit import FreeNames
from amct_onnx.normalise.opset import normalise_opset


def normalise_container(model: ir.Model) -> ir.Model:
    """Return the model with functions inlined, opset 11..18, sorted and uniquely named nodes.

    Raises:
        UnsupportedModelError: The graph is cyclic, or a node has no form in opset 11..18.
    """
    if model.functions:
        model = InlinePass()(model).model
    model = normalise_opset(model)
    try:
        TopologicalSortPass()(model)
    except ValueError as error:
        raise UnsupportedModelError(
            f"The graph cannot be sorted ({error}). It holds a cycle; export it again."
        ) from error
    _name_uniquely(model)
    return model


def _name_uniquely(model: ir.Model) -> None:
    names = FreeNames(v.name for v in model.graph.inputs)
    for index, node in enumerate(ir.traversal.RecursiveGraphIterator(model.graph)):
        node.name = names.take(node.name or f"{node.op_type}_{index}")
    constants = {v.name for v in model.graph.initializers.values()}
    for position in reversed(range(len(model.graph.inputs))):
        if model.graph.inputs[position].name in constants:
            del model.graph.inputs[position]
