"""Attributes of a node as ATC's plugins take them: one of another type counts as missing."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx_ir as ir

from amct_onnx.arithmetic import INT8_MAX, INT8_MIN
from amct_onnx.errors import UnsupportedModelError

Stored = TypeVar("Stored", float, int, str)
_STORED_AS = {float: ir.AttributeType.FLOAT, int: ir.AttributeType.INT, str: ir.AttributeType.STRING}


def attribute(node: ir.Node, name: str, default: Stored) -> Stored:
    """The value of an attribute that is stored in the type of ``default`` (float, int or str), else ``default``."""
    found = node.attributes.get(name)
    if found is None or found.is_ref() or found.type != _STORED_AS[type(default)]:
        return default
    value = found.value
    return value if isinstance(value, type(default)) else default


def quantizer_factors(node: ir.Node) -> tuple[float, int]:
    """Attributes scale and offset of AscendQuant or AscendAntiQuant; ATC reads 0 for what is missing or no FLOAT.

    Raises:
        UnsupportedModelError: One of them would be read as 0 or is out of range.
    """
    numbers = []
    for name in ("scale", "offset"):
        found = node.attributes.get(name)
        if found is None or found.type != ir.AttributeType.FLOAT:
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): attribute '{name}' is missing or no FLOAT, ATC would read 0. "
                "Write it as a FLOAT."
            )
        numbers.append(found.as_float())
    scale, offset = numbers
    if not (np.isfinite(scale) and scale > 0):
        raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}): scale {scale} is not positive and finite.")
    if not (float(offset).is_integer() and INT8_MIN <= offset <= INT8_MAX):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): offset {offset} is no integer in [-128, 127], as ATC needs it."
        )
    return scale, int(offset)
