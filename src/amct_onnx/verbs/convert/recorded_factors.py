"""A float model plus a record becomes a Q/DQ model: a pair in front of each recorded layer's activation and weight.

What follows is the conversion of any QAT model: a record and Q/DQ nodes with the same factors give the same integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import FactorError
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.layers import LAYER_KINDS, Layout, layout_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.shapes import stored_shape

if TYPE_CHECKING:
    from amct_onnx.files.read_record import (  # imports msgspec, which a QAT model does not need
        FactorRecord,
        LayerFactors,
    )

WEIGHT = 1


def insert_recorded_quantizers(model: ir.Model, record: FactorRecord, place: str) -> None:
    """Rewrite the graph in place.

    Args:
        model: a float model, as read.
        record: the factors.
        place: path of the record, for messages.

    Raises:
        FactorError: A layer of the record is not in the model, is another operator, or has another number of channels.
    """
    nodes: Mapping[str, ir.Node] = {n.name or "": n for n in nodes_of(model)}
    editor = GraphEditor(model)
    for name, factors in record.layers.items():
        node = nodes.get(name)
        if node is None:
            raise FactorError(f"{place}: the model has no node '{name}'. Give the record of this model.")
        layout = layout_of(node)
        if layout is None:
            raise FactorError(
                f"{place}: layer '{name}' is a {node.op_type}; {', '.join(LAYER_KINDS)} can be int8. Remove it from "
                "the record."
            )
        _quantize(node, layout, factors, editor, place)
    if record.ignored:
        noun, verb = ("field", "has") if len(record.ignored) == 1 else ("fields", "have")
        warn(model, f"{place}: the {noun} {', '.join(record.ignored)} {verb} no meaning in this conversion.")


def _quantize(node: ir.Node, layout: Layout, factors: LayerFactors, editor: GraphEditor, place: str) -> None:
    scale_w = np.asarray(factors.scale_w, np.float32)
    axis = None
    if scale_w.size > 1:
        shape = stored_shape(node.inputs[WEIGHT])
        channels = layout.channels(shape) if shape is not None and len(shape) > 1 else None
        if channels != scale_w.size or shape is None:
            raise FactorError(
                f"{place}: layer '{node.name}' has {scale_w.size} scale_w, its weight "
                f"{'an unknown number of' if channels is None else channels} output channels. Give the record of this "
                "model."
            )
        axis = layout.channel_axis(len(shape))
    _pair(node, 0, np.asarray(factors.scale_d, np.float32), np.asarray(factors.offset_d, np.int8), None, editor)
    scales = scale_w if axis is not None else scale_w.reshape(())
    _pair(node, WEIGHT, scales, np.zeros(scales.shape, np.int8), axis, editor)


def _pair(node: ir.Node, index: int, scale: Array, zero: Array, axis: int | None, editor: GraphEditor) -> None:
    value = node.inputs[index]
    assert value is not None
    label = "weight" if index == WEIGHT else "input"
    inputs = [editor.constant(f"{node.name}/{label}/{n}", a) for n, a in (("scale", scale), ("zero_point", zero))]
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    integers = editor.node("QuantizeLinear", [value, *inputs], node, f"{label}/quantize", attributes)
    integers.type, integers.shape = ir.TensorType(ir.DataType.INT8), value.shape
    result = editor.node("DequantizeLinear", [integers, *inputs], node, f"{label}/dequantize", attributes, like=value)
    node.replace_input_with(index, result)
