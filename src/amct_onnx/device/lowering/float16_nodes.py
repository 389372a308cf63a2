"""Float nodes on float16 become float32 nodes with each result rounded to float16.

ONNX Runtime computes a float16 operator without a CPU kernel in float32 between two casts of its own, and drops those
casts between two such nodes, with the rounding; casts that stand in the model it keeps.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.device.lowering.emitter import Emitter
from amct_onnx.normalise.graph_edit import bodies_of
from amct_onnx.normalise.shape_inference import infer_shapes

LEFT_ALONE = frozenset(
    "Cast CastLike Constant ConstantOfShape DequantizeLinear EyeLike QuantizeLinear RandomNormal RandomNormalLike "
    "RandomUniform RandomUniformLike".split()
)
"""Operators whose result's type is not that of their inputs, and their own kernels round."""


def round_float16_nodes(model: ir.Model, emit: Emitter) -> None:
    """Rewrite the float16 nodes of all graphs in place; one whose types are not known stays as it is."""
    infer_shapes(model, strict=False)
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        values = [v for v in (*node.inputs, *node.outputs) if v is not None]
        if node.domain or node.op_type in LEFT_ALONE or bodies_of(node) or not any(map(_is_float16, values)):
            continue
        if not all(v.type is None or isinstance(v.type, ir.TensorType) for v in values):
            continue
        emit.before(node)
        for index, value in enumerate(node.inputs):
            if value is not None and _is_float16(value):
                node.replace_input_with(index, emit.cast(value, ir.DataType.FLOAT))
        emit.after(node)
        for output in node.outputs:
            if _is_float16(output):
                _round(emit, output)


def _is_float16(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT16


def _round(emit: Emitter, value: ir.Value) -> None:
    """Let a float32 result be read as float16 under its own name."""
    readers = list(value.uses())
    rounded = emit.cast(value, ir.DataType.FLOAT16)
    for node, index in readers:
        node.replace_input_with(index, rounded)
    graph = value.graph
    assert graph is not None
    name, value.name = value.name, emit.unique(f"{value.name}:float32")
    rounded.name, rounded.type, rounded.shape = name, value.type, value.shape
    value.type = ir.TensorType(ir.DataType.FLOAT)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = rounded
