"""Write every attribute of Conv and ConvTranspose, and padding in numbers: ATC takes the attributes literally.

ATC guesses the rank of a Conv without kernel_shape, and a ConvTranspose with output_shape or auto_pad changes how the
compiler reads the other ones of the file. The formulas of auto_pad and output_shape are those of the ONNX operators.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.edit import known_as, nodes_of
from amct_onnx.graph.layers import CONVOLUTIONS
from amct_onnx.graph.shapes import stored_shape

SAME = ("SAME_UPPER", "SAME_LOWER")
PER_AXIS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 2, "output_padding": 1}
"""Lists of a convolution, and how many numbers they hold for each spatial axis."""
AT_LEAST_1 = ("strides", "dilations")
FIX_SIZE = (
    "Export the model with explicit pads, or fix the sizes of its inputs "
    "(python -m onnxruntime.tools.make_dynamic_shape_fixed)."
)


def spell_out_convolutions(model: ir.Model) -> None:
    """Rewrite attributes in place; auto_pad of one or two axes stays where the input's size is unknown.

    Raises:
        UnsupportedModelError: Lists that fit neither each other nor the weight, or a form that depends on an unknown
            size and that ATC stops at or compiles into something else.
    """
    for node in nodes_of(model):
        if not _is_convolution(node):
            continue
        kernel = _kernel(node)
        if kernel:
            _check_lists(node, kernel)
            _spell_out(node, kernel)
        _refuse_misread(node, kernel)


def lacks_size(node: ir.Node) -> bool:
    """Whether a convolution's attributes follow from a shape that is not declared."""
    if not _is_convolution(node):
        return False
    return _kernel(node) is None or (_needs_input_size(node) and _spatial_size(node) is None)


def _is_convolution(node: ir.Node) -> bool:
    return node.op_type in CONVOLUTIONS and node.domain == ""


def _check_lists(node: ir.Node, kernel: list[int]) -> None:
    weight = _weight_sizes(node)
    if weight is not None and weight != kernel:
        raise _error(node, f"its kernel_shape is {kernel}, that of its weight {weight}. Export the model again.")
    counts = {name: {times * len(kernel)} for name, times in PER_AXIS.items()}
    counts["output_shape"] = {len(kernel), len(kernel) + 2}
    for name, allowed in counts.items():
        stored = _ints(node, name, None)
        if stored is not None and len(stored) not in allowed:
            raise _error(node, f"{name} = {stored} does not fit {len(kernel)} spatial axes. Export the model again.")
        if name in AT_LEAST_1 and stored is not None and min(stored) < 1:
            raise _error(node, f"{name} = {stored}, and no number of it may be below 1. Export the model again.")


def _refuse_misread(node: ir.Node, kernel: list[int] | None) -> None:
    """Refuse a node that ATC rejects or misreads, quantized or not: it would spoil the whole deploy model."""
    if not kernel:
        if node.op_type == "ConvTranspose" or not PER_AXIS.keys() & node.attributes.keys():
            raise _error(
                node,
                "the size of its kernel is declared neither by kernel_shape nor by a weight of 3 to 5 axes, and ATC "
                "stops at it. Export the model with kernel_shape.",
            )
    elif "output_shape" in node.attributes:
        raise _error(
            node,
            f"the padding that output_shape = {_ints(node, 'output_shape', None)} stands for depends on the size of "
            "its input, which the model leaves open; as it is, ATC would compile this and every later ConvTranspose "
            f"as SAME_LOWER. {FIX_SIZE}",
        )
    elif _mode(node) in SAME and len(kernel) > 2:
        raise _error(
            node,
            "its auto_pad depends on the size of its input, which the model leaves open, and ATC takes no auto_pad "
            f"over {len(kernel)} axes. {FIX_SIZE}",
        )


def _error(node: ir.Node, text: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"Node '{known_as(node)}' ({node.op_type}): {text}")


def _spell_out(node: ir.Node, kernel: list[int]) -> None:
    spatial = len(kernel)
    strides = _ints(node, "strides", None) or [1] * spatial
    dilations = _ints(node, "dilations", None) or [1] * spatial
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
    node.attributes["strides"] = ir.AttrInt64s("strides", strides)
    node.attributes["dilations"] = ir.AttrInt64s("dilations", dilations)
    if "group" not in node.attributes:
        node.attributes["group"] = ir.AttrInt64("group", 1)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    resolve = _transpose_padding if node.op_type == "ConvTranspose" else _conv_padding
    resolved = resolve(node, extents, strides)
    if resolved is None:
        return
    pads, output_padding = resolved
    node.attributes.pop("auto_pad", None)
    node.attributes.pop("output_shape", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    if output_padding is not None:
        node.attributes["output_padding"] = ir.AttrInt64s("output_padding", output_padding)


def _conv_padding(node: ir.Node, extents: list[int], strides: list[int]) -> tuple[list[int], None] | None:
    """Pads [begins, ends]: SAME keeps ceil(input / stride) outputs, the odd one at the end for SAME_UPPER."""
    mode = _mode(node)
    if mode not in SAME:
        pads = _ints(node, "pads", [0] * 2 * len(extents)) if mode == "NOTSET" else [0] * 2 * len(extents)
        return None if pads is None else (pads, None)
    # with stride 1 the padding does not depend on the input's size
    size = _spatial_size(node) or ([1] * len(extents) if all(s == 1 for s in strides) else None)
    if size is None:
        return None
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, strides, extents, strict=True)]
    return _halves(totals, upper=mode == "SAME_UPPER"), None


def _transpose_padding(
    node: ir.Node, extents: list[int], strides: list[int]
) -> tuple[list[int], list[int] | None] | None:
    """Pads and output_padding for output_shape: total = stride * (input - 1) + output_padding + extent - output."""
    mode, wanted = _mode(node), _ints(node, "output_shape", None)
    extra = _ints(node, "output_padding", [0] * len(extents)) or [0] * len(extents)
    given = extra if "output_padding" in node.attributes else None
    if wanted is None and mode not in SAME:
        pads = _ints(node, "pads", [0] * 2 * len(extents)) if mode == "NOTSET" else [0] * 2 * len(extents)
        return None if pads is None else (pads, given)
    if wanted is None:
        # SAME gives input * stride for any input size; onnxruntime does not extend an output that is shorter
        totals = [max(x + e - s, 0) for e, s, x in zip(extents, strides, extra, strict=True)]
        return _halves(totals, upper=mode == "SAME_UPPER"), given
    size = _spatial_size(node)
    if size is None:
        return None
    full = zip(size, strides, extents, extra, wanted[-len(extents) :], strict=True)
    totals = [s * (n - 1) + x + e - w for n, s, e, x, w in full]
    if any(t < 0 for t in totals):
        given = [x + max(-t, 0) for x, t in zip(extra, totals, strict=True)]
    return _halves([max(t, 0) for t in totals], upper=mode == "SAME_UPPER"), given


def _halves(totals: list[int], *, upper: bool) -> list[int]:
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return small + large if upper else large + small


def _mode(node: ir.Node) -> str:
    return node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"


def _ints(node: ir.Node, name: str, default: Any) -> list[int] | None:
    return [int(i) for i in node.attributes[name].as_ints()] if name in node.attributes else default


def _kernel(node: ir.Node) -> list[int] | None:
    if "kernel_shape" in node.attributes:
        return _ints(node, "kernel_shape", None)
    return _weight_sizes(node)


def _weight_sizes(node: ir.Node) -> list[int] | None:
    """Spatial sizes of the weight; None where nothing tells them."""
    shape = stored_shape(node.inputs[1] if len(node.inputs) > 1 else None)
    return list(shape[2:]) if shape is not None and len(shape) > 2 else None


def _needs_input_size(node: ir.Node) -> bool:
    return _mode(node) in SAME or "output_shape" in node.attributes


def _spatial_size(node: ir.Node) -> list[int] | None:
    return _sizes(node.inputs[0])


def _sizes(value: ir.Value | None) -> list[int] | None:
    """The axes from the third on, when every one of them is known."""
    if value is None or value.shape is None or len(value.shape) < 3:
        return None
    sizes = [d for d in value.shape[2:] if isinstance(d, int)]
    return sizes if len(sizes) == len(value.shape) - 2 else None
