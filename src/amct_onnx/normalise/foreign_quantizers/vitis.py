"""VitisQuantizeLinear and ExtendedQuantizeLinear, with their counterparts: what Vitis and Quark export."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.common.small_floats import SMALL_FLOATS
from amct_onnx.normalise.foreign_quantizers.grid import TYPES
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter, Rule


def pair(writer: QuantizerWriter, node: ir.Node) -> None:
    """Vitis' and Quark's own pair: the default domain's, where the zero point is of a type that this has, too."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    kind = None if zero is None else zero.dtype
    if kind is None and writer.constants.is_constant(zero) and zero is not None:
        kind = ir.DataType.from_numpy(writer.constants.array(zero).dtype)
    if kind in TYPES or (kind is not None and kind.name in SMALL_FLOATS):
        node.op_type = "DequantizeLinear" if "Dequantize" in node.op_type else "QuantizeLinear"
        for name in [n for n in node.attributes if n != "axis"]:
            del node.attributes[name]
        node.domain = ""


RULES: dict[str, Rule] = {
    f"{maker}{op_type}": pair for maker in ("Vitis", "Extended") for op_type in ("QuantizeLinear", "DequantizeLinear")
}
"""Operators of whose names there is one definition only: com.vai.quantize's and com.amd.quark's."""
