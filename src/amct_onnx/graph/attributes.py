"""Attributes of operators outside the specification: no schema has checked their types when the model was read."""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError

Kind = TypeVar("Kind", int, float, str)
TYPES = {int: ir.AttributeType.INT, float: ir.AttributeType.FLOAT, str: ir.AttributeType.STRING}


def attribute_of(node: ir.Node, name: str, default: Kind) -> Kind:
    """The value of an attribute, of the type of its default.

    Raises:
        UnsupportedModelError: It is of another type.
    """
    if name not in node.attributes:
        return default
    attribute = node.attributes[name]
    kind = type(default)
    if attribute.type != TYPES[kind]:
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): attribute '{name}' is of type {attribute.type.name}, not "
            f"{TYPES[kind].name}. Export the model again."
        )
    return kind(attribute.value)
