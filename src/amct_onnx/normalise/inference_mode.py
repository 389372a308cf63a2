"""Operators that training leaves behind: a Dropout that drops nothing goes, one that drops is warned about.

In inference a Dropout hands its input on, so it must not hide a quantizer from a layer. Where the model itself asks for
training mode, its outputs are random (Dropout) or depend on the other samples (BatchNormalization): the outputs keep
that, and no comparison can hold them to the source.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.opset import opset_of


def drop_inference_dropout(model: ir.Model) -> None:
    """Rewrite the graph in place; nodes in training mode stay, with a warning that names them."""
    constants = ConstantEvaluator(opset_of(model))
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.domain != "" or not node.inputs or node.inputs[0] is None:
            continue
        if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
            warn(
                model,
                f"Node '{node.name}' (BatchNormalization) is in training mode: it uses the statistics of the batch. "
                "Export the model in inference mode (model.eval()).",
            )
        if node.op_type != "Dropout":
            continue
        if _drops(node, constants):
            warn(
                model,
                f"Node '{node.name}' (Dropout) is in training mode: the model's outputs are random, and no two runs "
                "agree. Export the model in inference mode (model.eval()).",
            )
        else:
            editor = editor or GraphEditor(model)
            _write_mask(node, editor)
            _hand_on(node, editor)


def _drops(node: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether training_mode is true, or unknown, and the ratio is not 0."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None:
        return False  # below opset 12 there is no such input, and models are raised from there in inference mode
    if constants.is_constant(mode) and not np.any(constants.array(mode)):
        return False
    ratio = node.inputs[1]
    return ratio is None or not constants.is_constant(ratio) or bool(np.any(constants.array(ratio)))


def _write_mask(node: ir.Node, editor: GraphEditor) -> None:
    """Give the readers of a node's mask, if it has any, the truths that it consists of."""
    if len(node.outputs) < 2 or not (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return
    mask = node.outputs[1]
    shape = editor.node("Shape", [node.inputs[0]], node, "shape")
    shape.type = ir.TensorType(ir.DataType.INT64)
    true = [ir.AttrTensor("value", ir.tensor(np.ones(1, bool)))]
    result = editor.node("ConstantOfShape", [shape], node, "mask", true, like=mask)
    result.name, mask.name = mask.name, None
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
