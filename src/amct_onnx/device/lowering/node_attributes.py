"""Scale and offset of AscendQuant and AscendAntiQuant as ATC's plugins take them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT8_MAX, INT8_MIN
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute


def quantizer_factors(node: ir.Node) -> tuple[float, int]:
    """Attributes scale and offset of AscendQuant or AscendAntiQuant; an offset that ATC does not take is 0.

    Raises:
        UnsupportedModelError: ATC does not take the scale either, which makes the result constant, or a value is out of
            range.
    """
    scale, offset = attribute(node, "scale", 0.0), attribute(node, "offset", 0.0)
    if _kept_by_atc(node, "scale") is not True:
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): attribute 'scale' is missing or not a FLOAT; ATC would read 0 and "
            "make the result constant. Write it as a FLOAT."
        )
    if not (np.isfinite(scale) and scale > 0):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): scale {scale} is not positive and finite. Write the model again."
        )
    if not (float(offset).is_integer() and INT8_MIN <= offset <= INT8_MAX):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): offset {offset} is not an integer in [-128, 127], which ATC "
            "requires. Write the model again."
        )
    return scale, int(offset)


def lost_offset(node: ir.Node) -> list[str]:
    """A warning when ATC ignores the node's offset; a missing offset means 0."""
    if _kept_by_atc(node, "offset") is not False:
        return []
    kind = node.attributes["offset"].type.name
    return [f"{node.op_type} '{node.name}': its offset is stored as {kind}; ATC reads 0, and so does the simulation"]


def _kept_by_atc(node: ir.Node, name: str) -> bool | None:
    """Whether a number is stored as FLOAT; None when it is missing."""
    entry = node.attributes.get(name)
    return None if entry is None else entry.type == ir.AttributeType.FLOAT and not entry.is_ref()
