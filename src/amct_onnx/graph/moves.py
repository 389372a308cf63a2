"""Operators that only select or order elements, so that they act on integers as on the floats behind them."""

from __future__ import annotations

import onnx_ir as ir

FIRST_INPUT = frozenset(
    {
        "Identity",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Gather",
        "GatherElements",
        "GatherND",
        "Expand",
        "Tile",
        "MaxPool",
        "GlobalMaxPool",
        "ReduceMax",
        "ReduceMin",
        "DepthToSpace",
        "SpaceToDepth",
        "ReverseSequence",
        "Compress",
        "Pad",
        "Resize",
    }
)
"""Operators that move the elements of their first input."""
ALL_INPUTS = frozenset({"Concat", "Max", "Min"})
"""Operators that select among the elements of all their inputs."""


def data_inputs(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs whose elements the outputs consist of; () for any other operator.

    A Pad that fills with a number adds it to them: the caller looks at it.
    """
    if node.domain != "" or not node.inputs or node.inputs[0] is None:
        return ()
    if node.op_type in ALL_INPUTS:
        return tuple(range(len(node.inputs)))
    if node.op_type == "Where":
        return (1, 2)
    if node.op_type in ("ScatterND", "ScatterElements"):
        return (0, 2) if _replaces(node) else ()
    if node.op_type not in FIRST_INPUT or (node.op_type == "MaxPool" and len(node.outputs) > 1):
        return ()
    if node.op_type == "Resize" and not _selects_nearest(node):
        return ()
    return (0,)


def _replaces(node: ir.Node) -> bool:
    """Whether a Scatter writes its updates as they are, and adds or multiplies nothing."""
    return "reduction" not in node.attributes or node.attributes["reduction"].as_string() == "none"


def fills(node: ir.Node) -> bool:
    """Whether a Pad fills with a number."""
    if node.op_type != "Pad":  # "mode" of other operators may be anything
        return False
    return "mode" not in node.attributes or node.attributes["mode"].as_string() == "constant"


def interpolates(node: ir.Node) -> bool:
    """Whether the elements of a Resize's output are weighted means of elements of its input."""
    return node.op_type == "Resize" and node.domain == "" and not _crops(node) and not _selects_nearest(node)


def _selects_nearest(node: ir.Node) -> bool:
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
    return mode == "nearest" and not _crops(node)


def _crops(node: ir.Node) -> bool:
    """Whether a Resize fills with a number outside its region."""
    transformation = node.attributes.get("coordinate_transformation_mode")
    return transformation is not None and transformation.as_string() == "tf_crop_and_resize"
