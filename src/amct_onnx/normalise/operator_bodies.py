"""Replace a node by the function body that the ONNX specification gives for its operator.

Schemas and bodies are those of the installed onnx. A replaced node becomes a call of a local function until ``inline``.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema
from onnx_ir.passes.common import InlinePass

from amct_onnx.graph.edit import STANDS_FOR, stands_for

BODY_DOMAIN = "amct_onnx.body"
"""Domain of the functions that hold specification bodies until they are inlined."""


def schema_of(op_type: str, version: int) -> OpSchema | None:
    """The schema that an opset of the default domain uses; None when the operator does not exist there."""
    try:
        return onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None


class OperatorBodies:
    """Collects the bodies of one model.

    Args:
        model: edited in place.
        target: opset that the bodies are declared to be of.
    """

    def __init__(self, model: ir.Model, target: int) -> None:
        self._model = model
        self._target = target
        self._count = 0

    def replace(self, node: ir.Node, schema: Any, version: int) -> tuple[list[ir.Node], int] | None:
        """Turn a node into a call of its body.

        Args:
            node: of the default domain.
            schema: of its operator in ``version``.
            version: opset of the node.

        Returns:
            The nodes of the body and the opset that they are of, which the caller brings to ``target``; None, and
            nothing changed but spelled out defaults, when there is no body that the node's types settle.
        """
        for name, attribute in schema.attributes.items():
            if name not in node.attributes and attribute.default_value.name:
                node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)
        proto = _body(node, schema, version)
        if proto is None:
            return None
        produced = {o for n in proto.node for o in n.output}
        wanted = [o for o in proto.output[: len(node.outputs)] if o in produced]
        if not wanted or len(wanted) < len([v for v in node.outputs if v.name]):
            return None  # onnx leaves a body empty whose form depends on an unknown type
        del proto.output[len(wanted) :]
        node.resize_outputs(len(wanted))
        self._count += 1
        proto.domain, proto.name = BODY_DOMAIN, f"{node.op_type}_{self._count}"
        imported = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), version)
        for opset in proto.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = self._target
        function = ir.serde.deserialize_function(proto)
        # the inliner is slow at finding a free name when all bodies use the same ones
        prefix = f"{node.name or node.op_type}/{self._count}"
        user = stands_for(node) if node.name else (node.outputs[0].name or "", node.op_type)
        inner = list(ir.traversal.RecursiveGraphIterator(function.graph))
        for index, part in enumerate(inner):
            part.name = f"{prefix}/{part.op_type}_{index}"
            part.meta[STANDS_FOR] = user
            for value in part.outputs:
                value.name = f"{prefix}/{value.name}" if value.name else value.name
        node.domain, node.op_type, node.version = BODY_DOMAIN, proto.name, None
        self._model.functions[function.identifier()] = function
        self._model.opset_imports[BODY_DOMAIN] = 1
        return inner, imported

    def inline(self) -> None:
        """Put the bodies in place of the calls."""
        if self._count:
            InlinePass(lambda function: function.domain == BODY_DOMAIN)(self._model)
            self._model.opset_imports.pop(BODY_DOMAIN, None)


def body_operators(node: ir.Node, schema: Any, version: int) -> set[str] | None:
    """The operators of a node's body; None when there is no body. The node is not modified."""
    proto = _body(node, schema, version)
    return None if proto is None or not proto.node else {n.op_type for n in proto.node}


def _body(node: ir.Node, schema: Any, version: int) -> onnx.FunctionProto | None:
    """The newest body of the operator that the source's opset may use."""
    fixed = [v for v in schema.function_opset_versions if v <= version]
    if fixed:
        return _parsed(schema.get_function_with_opset_version(max(fixed)))
    built = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    if not built:
        return None
    types = [b"" if v is None else ir.to_proto(v).type.SerializeToString() for v in node.inputs]
    content = ir.to_proto(node).SerializeToString()
    try:
        return _parsed(schema.get_context_dependent_function_with_opset_version(max(built), content, types))
    except Exception:  # onnx raises its own classes when a type that the body depends on is unknown
        return None


def _parsed(content: bytes) -> onnx.FunctionProto:
    proto = onnx.FunctionProto()
    proto.ParseFromString(content)
    return proto
