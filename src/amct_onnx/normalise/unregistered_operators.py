"""Write operators that ATC's parser has no plugin for as operators that it has one for.

An operator of an opset up to 18 may still be unknown to the parser: ReduceL2 is registered for 8 to 17 only, and
GroupNormalization for no opset. The specification's body says the same in operators that are registered. An operator
without such a body stays as it is; ``check`` reports it.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from amct_onnx.graph.atc_operators import is_accepted
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.shapes import infer_shapes
from amct_onnx.normalise.operator_bodies import OperatorBodies, body_operators, schema_of

LATER = frozenset(
    """
    QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger CastLike
    """.split()
)
"""Operators that later rules replace."""


def lower_unregistered(model: ir.Model) -> None:
    """Rewrite the model in place; its opset of the default domain is 11..18 and stays."""
    version = opset_of(model)
    nodes = [n for n in nodes_of(model) if _is_unknown(n, version)]
    if not nodes:
        return
    silent = any(v is not None and v.dtype is None for n in nodes if _depends(n, version) for v in n.inputs)
    # onnx's inference crashes on inputs without a type
    if silent and all(v.type is not None for v in model.graph.inputs):
        infer_shapes(model, strict=False)
    bodies = OperatorBodies(model, version)
    for node in nodes:
        _lower(node, version, bodies)
    bodies.inline()


def _is_unknown(node: ir.Node, version: int) -> bool:
    return node.domain == "" and node.op_type not in LATER and not is_accepted("", node.op_type, version)


def _depends(node: ir.Node, version: int) -> bool:
    """Whether the body of a node's operator depends on the types of its inputs."""
    schema: Any = schema_of(node.op_type, version)
    return schema is not None and bool(schema.context_dependent_function_opset_versions)


def _lower(node: ir.Node, version: int, bodies: OperatorBodies) -> None:
    schema = schema_of(node.op_type, version)
    if schema is None or not _helps(node, schema, version):
        return
    replaced = bodies.replace(node, schema, version)
    for inner in replaced[0] if replaced else ():
        if _is_unknown(inner, version):
            _lower(inner, version, bodies)


def _helps(node: ir.Node, schema: object, version: int) -> bool:
    """Whether the body consists of operators that are registered or have such a body themselves."""
    operators = body_operators(node, schema, version)
    if operators is None:
        return False
    known = {o for o in operators if o in LATER or is_accepted("", o, version)}
    return all(getattr(schema_of(o, version), "has_function", False) for o in operators - known)
