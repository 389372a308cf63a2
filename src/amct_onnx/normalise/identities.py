"""What changes nothing goes, so that no quantizer hides behind it: Identity, x * 1, a Cast to the type of its input.

x + 0 stays: it turns -0 into 0.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.scalar_factors import keeps_shape

NEUTRAL = {"Mul": 1, "Div": 1, "Pow": 1, "Sub": 0}
"""Operator -> the second input with which it gives the first one; Mul takes it first as well."""
POOLS = ("AveragePool", "MaxPool")


def drop_identities(model: ir.Model) -> None:
    """Rewrite the graph in place; what names a graph output, of a body too, stays."""
    constants = ConstantEvaluator(opset_of(model))
    for node in nodes_of(model):
        source = _given_back(node, constants) if node.domain == "" else None
        if source is None or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _given_back(node: ir.Node, constants: ConstantEvaluator) -> ir.Value | None:
    """The tensor that a node of the default domain gives back as it is, or None."""
    if len(node.inputs) == 1:
        source = node.inputs[0]
        return source if source is not None and _changes_nothing(node, source) else None
    if node.op_type not in NEUTRAL or len(node.inputs) != 2:
        return None
    value, other = node.inputs
    if node.op_type == "Mul" and constants.is_constant(value):
        value, other = other, value
    if value is None or other is None or not constants.is_constant(other):
        return None
    tensor = constants.tensor(other)
    if tensor is None or tensor.size != 1 or not keeps_shape(tuple(tensor.shape.numpy()), value):
        return None
    return value if tensor.numpy().reshape(()) == NEUTRAL[node.op_type] else None


def _changes_nothing(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Cast":
        return source.dtype is not None and int(source.dtype) == node.attributes["to"].as_int()
    if node.op_type == "Transpose" and "perm" in node.attributes:
        perm = node.attributes["perm"].as_ints()
        return list(perm) == list(range(len(perm)))
    if node.op_type in POOLS and len(node.outputs) == 1:
        sizes = [*attribute(node, "kernel_shape", (0,)), *attribute(node, "strides", (1,))]
        return not any(attribute(node, "pads", (0,))) and all(size == 1 for size in sizes)
    return node.op_type in ("Identity", "Concat", "Max", "Min", "Sum")  # of one input
