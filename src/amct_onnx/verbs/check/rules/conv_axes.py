"""Rules on how many axes ATC's plugin takes a Conv to have: it looks at the lengths of lists, not at the weight."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import CONV_PLUGIN

GEOMETRY = ("kernel_shape", "strides", "pads", "dilations")
LAYOUTS = {1: "NCHW", 2: "NCHW", 3: "NCDHW"}
"""data_format by the number of axes; a 1-D Conv becomes a 2-D one."""


@rule(
    id="conv-geometry",
    severity=ERROR,
    title="Conv without any geometry",
    why="The plugin stops unless at least one of kernel_shape, strides, pads and dilations is written.",
    source=CONV_PLUGIN,
    remedy="Write kernel_shape, strides, pads, dilations and group.",
)
def conv_without_geometry(view: ModelView) -> Iterator[Hit]:
    """Conv with none of kernel_shape, strides, pads, dilations."""
    for node in view.nodes("Conv"):
        if not any(name in node.attributes for name in GEOMETRY):
            yield Hit("it has none of kernel_shape, strides, pads, dilations", view.names[node])


@rule(
    id="conv-kernel-shape",
    severity=WARNING,
    title="Conv without kernel_shape",
    why="The plugin then tells 2-D from 3-D by the lengths of the other lists, and 1-D by a list of one element.",
    source=CONV_PLUGIN,
    remedy="Write kernel_shape.",
)
def conv_kernel_shape(view: ModelView) -> Iterator[Hit]:
    """Conv without kernel_shape, but with another list."""
    for node in view.nodes("Conv"):
        if "kernel_shape" not in node.attributes and any(name in node.attributes for name in GEOMETRY):
            yield Hit("it has no kernel_shape", view.names[node])


@rule(
    id="conv-axes",
    severity=ERROR,
    title="Conv compiled over other axes",
    why="The plugin counts the axes by the lengths of the lists, in the order in which they stand: strides or "
    "dilations of one element or two pads behind kernel_shape make the Conv 1-D, a kernel_shape of three or more "
    "elements makes it 3-D, and a 3-D one without strides, pads and dilations of its own gets the layout NCHW. "
    "Nothing is reported.",
    source=f"{CONV_PLUGIN} (SetAttrToOp, GetConvAttr)",
    remedy="Write kernel_shape, strides, pads, dilations and group in full, as `amct_onnx convert` does.",
)
def conv_axes(view: ModelView) -> Iterator[Hit]:
    """A Conv that the plugin takes for one of another number of axes, or gives another layout."""
    for node in view.nodes("Conv"):
        axes = spatial_axes(node)
        if axes is None or not any(name in node.attributes for name in GEOMETRY):
            continue
        taken, layout = plugin_reading(node)
        if taken != axes:
            yield Hit(f"it has {axes} spatial axes, the plugin compiles it over {taken}", view.names[node])
        elif layout != LAYOUTS.get(axes):
            yield Hit(f"it has {axes} spatial axes, the plugin gives it the layout {layout}", view.names[node])


def spatial_axes(node: ir.Node) -> int | None:
    """Number of spatial axes of a convolution: by the weight or the input, else by kernel_shape; None when unknown."""
    for index in (1, 0):
        value = node.inputs[index] if len(node.inputs) > index else None
        tensor = value.const_value if value is not None else None
        shape = tensor.shape if tensor is not None else value.shape if value is not None else None
        if shape is not None and len(shape) > 2:
            return len(shape) - 2
    return len(attribute(node, "kernel_shape", ())) or None


def plugin_reading(node: ir.Node) -> tuple[int, str]:
    """How many axes the plugin gives a Conv, and the layout, as its source computes them."""
    strides, dilations, pads = 2, 2, 0  # lengths of the lists that the plugin collects
    one_axis = volume = with_kernel = False
    for name in node.attributes:
        length = len(attribute(node, name, ()))
        if name == "kernel_shape":
            with_kernel, one_axis, volume = True, length < 2, length > 2
        elif name in ("strides", "dilations", "pads"):
            short = 2 if name == "pads" else 1
            one_axis = one_axis or length == short
            collected = length + short if length == short else length
            if name == "strides":
                strides += collected
            elif name == "dilations":
                dilations += collected
            else:
                pads += collected
    in_volume = strides == 5 or pads == 6 or dilations == 5
    if not with_kernel:
        volume = in_volume
    return 3 if volume else 1 if one_axis else 2, "NCDHW" if in_volume else "NCHW"
