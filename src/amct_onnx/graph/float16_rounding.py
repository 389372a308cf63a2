"""Let every float16 node round its own result: computed in float32, cast to float16.

ONNX Runtime computes a float16 operator without a CPU kernel in float32 between two casts of its own. Where one of
these meets another Cast it drops both, with the rounding; two that stand in the model it keeps. So all nodes that read
or make float16 are rewritten, also those whose own results need no rounding.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import FLOAT16_MAX
from amct_onnx.graph.edit import GraphEditor, bodies_of, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.shapes import infer_shapes

OWN_TYPE = frozenset(
    "BlackmanWindow Bernoulli Cast CastLike Constant ConstantOfShape DequantizeLinear EyeLike HammingWindow HannWindow "
    "MelWeightMatrix QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)
"""Operators whose result type differs from their inputs'; their own kernels round."""
CLIP_WITH_INPUTS = 11
"""The opset since which the bounds of Clip are inputs; before, the missing ones are float32's for every type."""


def holds_float16(model: ir.Model) -> bool:
    """Whether any input, constant or operator may bring in a float16 tensor."""
    if any(v.dtype == ir.DataType.FLOAT16 for v in [*model.graph.inputs, *model.graph.initializers.values()]):
        return True
    for node in nodes_of(model):
        if not node.attributes:
            continue
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.name in ("to", "dtype", "output_datatype") and attribute.value == int(ir.DataType.FLOAT16):
                return True
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT16:
                return True
        for body in bodies_of(node):
            if any(v.dtype == ir.DataType.FLOAT16 for v in body.initializers.values()):
                return True
    return False


def round_float16_nodes(model: ir.Model, keep: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Rewrite the float16 nodes of all graphs in place; one whose types are not known stays as it is.

    Tensors and nodes keep their names; a rounded tensor is the Cast's.

    Args:
        model: without functions, or these stay as they are.
        keep: names of nodes that stay as they are as well.

    Returns:
        For each rewritten node by name the nodes between its first input and its first output, itself among them.
    """
    if not holds_float16(model):
        return {}
    infer_shapes(model, strict=False)
    editor = GraphEditor(model)
    rewritten = {}
    for node in nodes_of(model):
        if node.domain or node.op_type in OWN_TYPE or node.name in keep or bodies_of(node):
            continue
        values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name]
        if any(map(_is_float16, values)) and all(isinstance(v.type, ir.TensorType) for v in values):
            if node.op_type == "Clip" and opset_of(model) >= CLIP_WITH_INPUTS:
                _bounded(node, editor)
            rewritten[node.name or ""] = _round(node, editor)
    return rewritten


def _is_float16(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT16


def _bounded(clip: ir.Node, editor: GraphEditor) -> None:
    """Give a Clip its missing bounds: the ends of float16, not those of float32."""
    for index, end in ((1, -FLOAT16_MAX), (2, FLOAT16_MAX)):
        if len(clip.inputs) <= index:
            clip.resize_inputs(index + 1)
        if clip.inputs[index] is None:
            clip.replace_input_with(index, editor.constant(f"{clip.name}/{end:.0f}", np.asarray(end, np.float32)))


def _round(node: ir.Node, editor: GraphEditor) -> tuple[str, ...]:
    """Replace the node by one on float32 between Casts; return the names from the first input to the first output."""

    def cast(value: ir.Value, to: ir.DataType) -> ir.Value:
        cast_node = editor.node("Cast", [value], node, f"to_{to.name.lower()}", [ir.AttrInt64("to", int(to))])
        cast_node.type, cast_node.shape = ir.TensorType(to), value.shape
        return cast_node

    wide = {v: cast(v, ir.DataType.FLOAT) for v in dict.fromkeys(node.inputs) if v is not None and _is_float16(v)}
    inputs = [wide.get(v, v) if v is not None else None for v in node.inputs]
    first = editor.node(node.op_type, inputs, node, attributes=node.attributes.values(), outputs=len(node.outputs))
    wide_node = first.producer()
    assert wide_node is not None
    results = []
    for old, new in zip(node.outputs, wide_node.outputs, strict=True):
        new.type, new.shape = old.type, old.shape
        if _is_float16(old):
            new.type = ir.TensorType(ir.DataType.FLOAT)
            new = cast(new, ir.DataType.FLOAT16)
        results.append(new)
    path = [v.producer() for v in (*inputs[:1], first, *results[:1]) if v is not None and v not in node.inputs]
    editor.replace(node, results)
    return tuple(dict.fromkeys(n.name or "" for n in path if n is not None))
