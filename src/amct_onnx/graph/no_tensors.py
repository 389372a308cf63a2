"""Values that are sequences or optionals: no array holds them, and no session can show an optional as an output."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import bodies_of

NO_TENSOR_TYPES = (ir.SequenceType, ir.OptionalType)
MAKERS = frozenset(
    {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence", "Optional"}
    | {"SequenceMap"}
)
"""Operators whose result is a sequence or an optional whatever they read."""


def no_tensors(graph: ir.Graph) -> set[ir.Value]:
    """The values of a graph and its bodies that are sequences or optionals, also where no type is declared."""
    found = {v for v in graph.inputs if isinstance(v.type, NO_TENSOR_TYPES)}
    _collect(graph, found)
    return found


def is_sequence(value: ir.Value) -> bool:
    """Whether a value is declared as a sequence, or as an optional one: a session gives a list for it."""
    kind = value.type.elem_type if isinstance(value.type, ir.OptionalType) else value.type
    return isinstance(kind, ir.SequenceType)


def _collect(graph: ir.Graph, found: set[ir.Value]) -> None:
    for node in graph:
        inside = bodies_of(node)
        if node.op_type == "Loop" and inside:
            # node and body both begin with number and condition
            for value, inner in zip(node.inputs, inside[0].inputs, strict=False):
                if value in found:
                    found.add(inner)
        for body in inside:
            found.update(v for v in body.inputs if isinstance(v.type, NO_TENSOR_TYPES))
            _collect(body, found)
        for index, value in enumerate(node.outputs):
            if isinstance(value.type, NO_TENSOR_TYPES) or _is_none(node, index, inside, found):
                found.add(value)


def _is_none(node: ir.Node, index: int, inside: list[ir.Graph], found: set[ir.Value]) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in MAKERS:
        return True
    if node.op_type == "Identity":
        return node.inputs[0] in found
    if node.op_type == "If":
        return any(index < len(body.outputs) and body.outputs[index] in found for body in inside)
    if node.op_type == "Loop" and inside:
        return index + 1 < len(inside[0].outputs) and inside[0].outputs[index + 1] in found
    return False
