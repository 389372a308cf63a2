"""Split of a constant becomes a Slice for each part: constants, and weights behind them, are followed node by node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.opset import opset_of


def slice_split_constants(model: ir.Model) -> None:
    """Rewrite the graph in place."""
    constants = ConstantEvaluator(opset_of(model))
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.op_type == "Split" and node.domain == "" and constants.is_constant(node.inputs[0]):
            editor = editor or GraphEditor(model)
            _slice(node, constants, editor)


def _slice(node: ir.Node, constants: ConstantEvaluator, editor: GraphEditor) -> None:
    value = node.inputs[0]
    assert value is not None
    shape = constants.array(value).shape
    axis = attribute(node, "axis", 0) % max(1, len(shape))
    bounds = np.cumsum([0, *_sizes(node, shape[axis], constants)])
    results = []
    for index, output in enumerate(node.outputs):
        where = {"start": int(bounds[index]), "end": int(bounds[index + 1]), "axis": axis}
        ends = [editor.constant(f"{node.name}/{n}{index}", np.asarray([v], np.int64)) for n, v in where.items()]
        results.append(editor.node("Slice", [value, *ends], node, f"part{index}", like=output))
    editor.replace(node, results)


def _sizes(node: ir.Node, length: int, constants: ConstantEvaluator) -> list[int]:
    """Of the parts: as stated, or equal ones, the last of which may be smaller."""
    stated = node.inputs[1] if len(node.inputs) > 1 else None
    if stated is not None:
        return [int(n) for n in np.asarray(constants.array(stated)).reshape(-1)]
    listed = attribute(node, "split", ())
    if listed:
        return list(listed)
    count = len(node.outputs)
    size = -(-length // count)
    return [min(size, length - i * size) for i in range(count)]
