"""Operators that training leaves behind: a Dropout that drops nothing goes, one that drops is warned about.

In inference a Dropout hands its input on, so it must not hide a quantizer from a layer. Where the model itself asks for
training mode, its outputs are random (Dropout) or depend on the other samples (BatchNormalization), and so they are
where it draws random numbers, as stochastic depth does: no comparison can hold such outputs to the source.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, exchange_names, nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.random_nodes import draw, drops, giving_numbers, named, random_nodes


def drop_inference_dropout(model: ir.Model) -> None:
    """Rewrite the graph in place; what makes outputs random stays, with one warning that names it."""
    constants = ConstantEvaluator(opset_of(model))
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.op_type == "Dropout" and node.domain == "" and node.inputs and node.inputs[0] is not None:
            if not drops(node, constants):
                editor = editor or GraphEditor(model)
                _write_mask(node, editor)
                _hand_on(node, editor)
    drawing = random_nodes(model)
    if drawing:
        warn(
            model,
            f"{draw(drawing)}: the model's outputs differ from run to run. Export the model in inference mode "
            "(model.eval()).",
        )
    batch = [n for n in nodes_of(model) if n.op_type == "BatchNormalization" and attribute(n, "training_mode", 0)]
    batch = giving_numbers(batch, model)
    if batch:
        warn(
            model,
            f"{named(batch)}: in training mode, with the statistics of the batch. Export the model in inference mode "
            "(model.eval()).",
        )


def _write_mask(node: ir.Node, editor: GraphEditor) -> None:
    """Give the readers of a node's mask, if it has any, the truths that it consists of."""
    if len(node.outputs) < 2 or not (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return
    mask = node.outputs[1]
    shape = editor.node("Shape", [node.inputs[0]], node, "shape")
    shape.type = ir.TensorType(ir.DataType.INT64)
    true = [ir.AttrTensor("value", ir.tensor(np.ones(1, bool)))]
    result = editor.node("ConstantOfShape", [shape], node, "mask", true, like=mask)
    exchange_names(result, mask)
    mask.name = None
    ir.convenience.replace_all_uses_with(mask, result, replace_graph_outputs=True)


def _hand_on(node: ir.Node, editor: GraphEditor) -> None:
    """Let the readers of a node's first output read its input; a graph output keeps its name."""
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None and node.graph is not None
    if output.is_graph_output():
        result = editor.node("Identity", [source], node, "identity", like=output)
        name, output.name = output.name, None
        result.name = name
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    else:
        ir.convenience.replace_all_uses_with(output, source)
    node.graph.remove(node, safe=True)
