"""Container repairs: functions inlined, nodes sorted and named, one name for the default domain."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, TopologicalSortPass

from amct_onnx.errors import UnsupportedModelError

OLDEST_OPSET = 11
"""Of the fake-quant model: Clip with three inputs, Round."""
RAISED_OPSET = 13
"""What a model below OLDEST_OPSET is raised to."""
NEWEST_OPSET = 18
"""ATC's Conv, ConvTranspose, Gemm and MatMul plugins are registered for opset 8..18; fake-quant needs 11."""


def normalise_container(model: ir.Model) -> ir.Model:
    """Return the model with functions inlined, opset 11..18, sorted and uniquely named nodes.

    Raises:
        UnsupportedModelError: The graph is cyclic or an operator's schema differs between the source's opset and 18.
    """
    if model.functions:
        model = InlinePass()(model).model
    model = _older_opset_raised(model)
    _newer_opset_relabelled(model)
    try:
        TopologicalSortPass()(model)
    except ValueError as error:
        raise UnsupportedModelError(
            f"The graph cannot be sorted ({error}). It holds a cycle; export it again."
        ) from error
    _name_uniquely(model)
    return model


def opset_of(model: ir.Model) -> int:
    """The version of the default domain."""
    versions = [v for d, v in model.opset_imports.items() if d in ("", "ai.onnx")]
    if not versions:
        raise UnsupportedModelError("The model imports no opset of the default domain. Export it again.")
    return versions[0]


def _older_opset_raised(model: ir.Model) -> ir.Model:
    if opset_of(model) >= OLDEST_OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(ir.to_proto(model), RAISED_OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own classes
        raise UnsupportedModelError(
            f"Opset {opset_of(model)} cannot be raised to {RAISED_OPSET} ({error}). Export with opset 11 to 18."
        ) from error
    return ir.from_proto(converted)


def _newer_opset_relabelled(model: ir.Model) -> None:
    version = opset_of(model)
    if version <= NEWEST_OPSET:
        return
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in ("", "ai.onnx") or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        try:
            new = onnx.defs.get_schema(node.op_type, version, "")
            old = onnx.defs.get_schema(node.op_type, NEWEST_OPSET, "")
        except onnx.defs.SchemaError as error:
            raise UnsupportedModelError(
                f"Node '{node.name}': operator {node.op_type} does not exist in opset {NEWEST_OPSET}, the newest that "
                "ATC takes. Export the model with opset 18 or lower."
            ) from error
        unknown = set(node.attributes) - set(old.attributes)
        if len(new.inputs) != len(old.inputs) or unknown:
            raise UnsupportedModelError(
                f"Node '{node.name}': operator {node.op_type} of opset {version} differs from that of opset "
                f"{NEWEST_OPSET}, the newest that ATC takes. Export the model with opset 18 or lower."
            )
    model.opset_imports[""] = NEWEST_OPSET


def _name_uniquely(model: ir.Model) -> None:
    """One name per node and per value in the whole model, bodies included; only names in bodies ever change.

    Initializers that are also listed as graph inputs are inputs no longer: ATC makes them constants.
    """
    constants = {v.name for v in model.graph.initializers.values()}
    for value in [v for v in model.graph.inputs if v.name in constants]:
        model.graph.inputs.remove(value)
    values = {v.name for v in [*model.graph.inputs, *model.graph.initializers.values()]}
    values |= {v.name for node in model.graph for v in node.outputs}
    for graph in bodies(model.graph):
        for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
            if value.name:
                value.name = _free(value.name, values)
    nodes: set[str | None] = {v.name for v in model.graph.inputs}
    for index, node in enumerate(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.domain == "ai.onnx":
            node.domain = ""
        node.name = _free(node.name or f"{node.op_type}_{index}", nodes)


def _free(base: str, taken: set[str | None]) -> str:
    name, suffix = base, 1
    while name in taken:
        name, suffix = f"{base}_{suffix}", suffix + 1
    taken.add(name)
    return name


def bodies(graph: ir.Graph) -> list[ir.Graph]:
    """The bodies of all If, Loop and Scan nodes in a graph, nested ones too."""
    found = []
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found.append(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                found.extend(attribute.as_graphs())
    return found
