"""The float type of a tensor, also where the exporter wrote no value_info."""

from __future__ import annotations

import onnx_ir as ir

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def float_type_of(value: ir.Value) -> ir.DataType:
    """FLOAT, FLOAT16, BFLOAT16 or DOUBLE: as declared, else by the producers, else FLOAT."""
    stack, seen = [value], set[ir.Value]()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.dtype in FLOATS:
            return current.dtype
        node = current.producer()
        if node is None:
            continue
        if node.op_type == "Cast":
            to = ir.DataType(node.attributes["to"].as_int())
            if to in FLOATS:
                return to
            continue
        if node.op_type == "QuantizeLinear" or current.dtype is not None:
            continue
        # DequantizeLinear has the type of its scale, every other operator that of an input
        inputs = node.inputs[1:2] if node.op_type == "DequantizeLinear" else node.inputs
        stack.extend(v for v in reversed(inputs) if v is not None)
    return ir.DataType.FLOAT
