"""QuantizeLinear and DequantizeLinear per channel, in operators of an opset that has them per tensor only."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE

AXIS_SINCE = 13
"""Opset from which on both operators know an axis."""


def write_out_channel_quantizers(model: ir.Model) -> None:
    """Below opset 13, replace both operators per channel by operators that give the same numbers, in place.

    The result keeps the names of the node and its tensor. Where the rank of the tensor is unknown, the node stays.
    """
    if opset_of(model) >= AXIS_SINCE:
        return
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.op_type not in (QUANTIZE, DEQUANTIZE) or node.domain not in ("", "ai.onnx"):
            continue
        scale = node.inputs[1] if len(node.inputs) > 1 else None
        if scale is None or scale.shape is None or "axis" not in node.attributes:
            continue
        if scale.shape.rank() == 0 or scale.shape == (1,):
            del node.attributes["axis"]
            continue
        editor = editor or GraphEditor(model)
        _write_out(node, editor)


def _write_out(node: ir.Node, editor: GraphEditor) -> None:
    x, scale, zero = (*node.inputs, None)[:3]
    assert x is not None and scale is not None
    axis = attribute(node, "axis", 1)
    if x.shape is None and axis >= 0:
        return
    rest = -axis - 1 if axis < 0 else len(x.shape or ()) - axis - 1
    kind = scale.dtype or ir.DataType.FLOAT
    laid = editor.constant(f"{node.name}/laid", np.array([-1] + [1] * rest, np.int64))

    def factor(value: ir.Value, label: str) -> ir.Value:
        return editor.node("Reshape", [value, laid], node, label)

    def cast(value: ir.Value, to: ir.DataType, label: str) -> ir.Value:
        return editor.node("Cast", [value], node, label, [ir.AttrInt64("to", int(to))])

    wide = factor(scale, "scale")
    moved = None if zero is None else factor(cast(zero, kind, "float_zero"), "zero")
    if node.op_type == DEQUANTIZE:
        value = cast(x, kind, "float")
        value = value if moved is None else editor.node("Sub", [value, moved], node, "centred")
        value = editor.node("Mul", [value, wide], node)
    else:
        integer = (zero.dtype if zero is not None else None) or node.outputs[0].dtype or ir.DataType.UINT8
        value = editor.node("Round", [editor.node("Div", [x, wide], node, "div")], node, "round")
        value = value if moved is None else editor.node("Add", [value, moved], node, "moved")
        limits = np.iinfo(integer.numpy())
        bounds = [
            editor.constant(f"{node.name}/{name}", np.asarray(limit, kind.numpy()))
            for name, limit in (("low", limits.min), ("high", limits.max))
        ]
        value = editor.node("Clip", [value, *bounds], node, "clip")
        value = editor.node("Cast", [value], node, attributes=[ir.AttrInt64("to", int(integer))])
    editor.replace(node, [value])
