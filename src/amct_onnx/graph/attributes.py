"""Attributes of a node, by the type in which they must be stored."""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.edit import known_as

Stored = TypeVar("Stored", int, float, str, tuple[int, ...])
STORED_AS: dict[type, ir.AttributeType] = {
    int: ir.AttributeType.INT,
    float: ir.AttributeType.FLOAT,
    str: ir.AttributeType.STRING,
    tuple: ir.AttributeType.INTS,
}


def attribute(node: ir.Node, name: str, default: Stored) -> Stored:
    """The value of an attribute as ATC's plugins take it: default when it is absent or stored as another type.

    A model that was read has passed its operators' schemas: there, an attribute of another type does not occur.

    Args:
        node: the node.
        name: name of the attribute.
        default: its type (int, float, str, or a tuple of int) is the one in which the attribute must be stored.
    """
    entry = node.attributes.get(name)
    if entry is None or entry.is_ref() or entry.type != STORED_AS[type(default)]:
        return default
    value = tuple(entry.value) if isinstance(default, tuple) else entry.value
    return value if isinstance(value, type(default)) else default


def checked_attribute(node: ir.Node, name: str, default: Stored) -> Stored:
    """The value of an attribute of an operator outside the specification, whose type no schema has checked.

    Raises:
        UnsupportedModelError: It is stored as another type.
    """
    entry = node.attributes.get(name)
    if entry is not None and entry.type != STORED_AS[type(default)]:
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}): attribute '{name}' is of type {entry.type.name}, not "
            f"{STORED_AS[type(default)].name}. Export the model again."
        )
    return attribute(node, name, default)
