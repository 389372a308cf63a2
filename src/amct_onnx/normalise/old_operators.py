"""Operators whose meaning changed before opset 13 although onnx's converter leaves them as they are.

Resize of opset 10, and Upsample, place element i at i / scale, which opset 11 calls asymmetric; its own default is
half_pixel. Where that falls between two elements, "nearest" is the lower one when the axis grows and the upper one when
it shrinks: opset 10 does not say so, onnxruntime and torch's exporter do. Hardmax of opset 12 flattens what is behind
its axis, from opset 13 on it looks along one axis. The pads of a Pad are an attribute below opset 11, an input from
there on; the converter moves those of a constant Pad only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.float_types import float_type_of

PADS_AS_INPUTS = 11
"""Opset from which on a Pad has them."""


def keep_meaning(node: ir.Node, version: int, constants: ConstantEvaluator) -> str:
    """Rewrite a node of an older opset, that version, with its old meaning; return why not, or nothing."""
    changed, rule = RULES.get(node.op_type, (0, None))
    return rule(node, constants) if rule is not None and version < changed else ""


def give_pads_as_inputs(model: ir.Model) -> None:
    """Rewrite every Pad whose pads are an attribute, in place."""
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.op_type != "Pad" or node.domain != "" or not node.inputs:
            continue
        if "pads" not in node.attributes:
            node.attributes.pop("value", None)  # of a Pad that fills with none, the converter moves the pads alone
            continue
        editor = editor or GraphEditor(model)
        pads = editor.constant(f"{node.name}/pads", np.asarray(node.attributes["pads"].as_ints(), np.int64))
        inputs = [node.inputs[0], pads]
        if attribute(node, "mode", "constant") == "constant":
            kind = float_type_of(node.inputs[0]) if node.inputs[0] is not None else ir.DataType.FLOAT
            fill = np.asarray(attribute(node, "value", 0.0), kind.numpy())
            inputs.append(editor.constant(f"{node.name}/value", fill))
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)
        for name in ("pads", "value"):
            node.attributes.pop(name, None)


def _resize(node: ir.Node, constants: ConstantEvaluator) -> str:
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    if "mode" in node.attributes and node.attributes["mode"].as_string() != "nearest":
        return ""
    scales = node.inputs[2]
    shrinks = grows = False
    if scales is not None and constants.is_constant(scales):
        factors = np.asarray(constants.array(scales))
        shrinks, grows = bool((factors < 1).any()), bool((factors > 1).any())
    if shrinks and grows:
        return "it enlarges one axis and reduces another, which needs two ways of rounding"
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if shrinks else "floor")
    return ""


def _hardmax(node: ir.Node, constants: ConstantEvaluator) -> str:
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if axis != -1 and (shape is None or axis != len(shape) - 1):
        return "it takes all axes from its axis on as one"
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    return ""


RULES: dict[str, tuple[int, Callable[[ir.Node, ConstantEvaluator], str] | None]] = {
    "Hardmax": (13, _hardmax),
    "Resize": (11, _resize),
}
"""Operator -> the opset with its new meaning, and what keeps the old one there."""
