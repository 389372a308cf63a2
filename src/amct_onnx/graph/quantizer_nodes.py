"""QuantizeLinear and DequantizeLinear as nodes: which they are, and their integer type."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator

QUANTIZE = "QuantizeLinear"


DEQUANTIZE = "DequantizeLinear"


BETWEEN = ("Identity", "Cast", "Clip")
"""What may stand between the two on integers."""


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of the operators, in the default domain or as Q/DQ of com.microsoft."""
    return node is not None and node.op_type in op_types and node.domain in ("", "ai.onnx", "com.microsoft")


def integer_type(node: ir.Node, constants: ConstantEvaluator) -> ir.DataType:
    """The integer type that a Q yields or a DQ reads."""
    if node.op_type == QUANTIZE and "output_dtype" in node.attributes and node.attributes["output_dtype"].as_int():
        return ir.DataType(node.attributes["output_dtype"].as_int())
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None:
        tensor = constants.tensor(zero)
        return tensor.dtype if tensor is not None else ir.DataType.from_numpy(constants.array(zero).dtype)
    if node.op_type == QUANTIZE:
        return ir.DataType.UINT8
    value = node.inputs[0]
    assert value is not None
    tensor = constants.tensor(value)
    if tensor is not None:
        return tensor.dtype
    producer = value.producer()
    while is_op(producer, *BETWEEN) and producer is not None and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is not None and producer.op_type == QUANTIZE:
        return integer_type(producer, constants)
    return value.dtype or ir.DataType.INT8
