"""Convolutions on float32 in onnxruntime's channel-blocked layout, which costs less than its ordinary kernel.

onnxruntime's own optimizer brings a graph into this layout and with it changes the rounding of float layers. Here only
Conv nodes are brought into it whose sums float32 holds exactly, so the order in which they are added up cannot matter.
Tensors stay NCHW outside of the node: reordering its input and output is counted in the gain.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Int8
from amct_onnx.common.onnxruntime_session import open_session, session_options
from amct_onnx.device.lowering.editor import LoweringEditor
from amct_onnx.graph.attributes import attribute

DOMAIN = "com.microsoft.nchwc"
"""Domain of ReorderInput, Conv and ReorderOutput."""
SIZES = (8, 16, 32)
"""Channels that a block may have."""


@lru_cache(maxsize=1)
def block_size() -> int | None:
    """Channels in a block on this CPU; None where this onnxruntime has no such layout, or another one than is known."""
    channels = 2 * max(SIZES)
    order = np.arange(2 * channels, dtype=np.float32).reshape(1, channels, 1, 2)
    node = onnx.helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)
    try:
        (laid_out,) = _run([node], {"x": order}, ["y"])
        for size in SIZES:
            expected = order.reshape(-1, size, 2).transpose(0, 2, 1)
            if np.array_equal(laid_out.reshape(-1), expected.reshape(-1)):
                return size if _agrees(size) else None
    except Exception:  # onnxruntime's classes share no base; it has no such operators, or not for this CPU
        pass
    return None


def _agrees(size: int) -> bool:
    """Whether the blocked kernel of each form gives the integers of the ordinary one: its weights are in its order."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {}
    pairs = []
    for number, (group, inputs) in enumerate(((1, 2 * size), (1, 3), (size, 1))):
        x, w, ordered, plain, blocked = (f"{name}{number}" for name in ("x", "w", "ordered", "plain", "blocked"))
        constants[x] = (np.arange(group * inputs * 42, dtype=np.float32) % 251 - 125).reshape(1, -1, 7, 6)
        weight = (np.arange(size * inputs * 6) % 13 - 6).astype(np.int8).reshape(size, inputs, 3, 2)
        reordered = _ordered(weight, group, size)
        if reordered is None:
            return False
        constants[w], constants[ordered] = weight.astype(np.float32), reordered.astype(np.float32)
        source = x
        if group * inputs >= size:
            source = f"reordered{number}"
            nodes.append(onnx.helper.make_node("ReorderInput", [x], [source], domain=DOMAIN))
        settings: dict[str, Any] = {"group": group, "pads": [1, 0, 0, 1]}
        nodes += [
            onnx.helper.make_node("Conv", [x, w], [plain], **settings),
            onnx.helper.make_node("Conv", [source, ordered], [f"inner{number}"], domain=DOMAIN, **settings),
            onnx.helper.make_node("ReorderOutput", [f"inner{number}"], [blocked], domain=DOMAIN, channels=size),
        ]
        pairs += [plain, blocked]
    results = _run(nodes, constants, pairs)
    return all(np.array_equal(a, b) for a, b in zip(results[::2], results[1::2], strict=True))


def _run(nodes: list[onnx.NodeProto], constants: dict[str, Array], outputs: list[str]) -> list[Array]:
    """Results of a few nodes on float32 constants."""
    graph = onnx.helper.make_graph(
        nodes,
        "probe",
        [],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid(DOMAIN, 1)]
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    session = open_session(content, session_options(threads=1))
    return [np.asarray(array) for array in session.run(outputs, {})]


def blocked_weight(node: ir.Node, weight: Int8) -> Int8 | None:
    """The weight of a Conv in the order of the blocked kernel, its shape as before.

    Args:
        node: Conv.
        weight: [output channels, input channels / group, height, width].

    Returns:
        None where the layer does not fit the layout, or gains nothing by it (a 1x1 kernel is a matrix product already).
    """
    size = block_size()
    if size is None or node.op_type != "Conv" or weight.ndim != 4 or weight.shape[2:] == (1, 1):
        return None
    return _ordered(weight, attribute(node, "group", 1), size)


def _ordered(weight: Int8, group: int, size: int) -> Int8 | None:
    """See ``blocked_weight``; None where the channels do not fit blocks."""
    outputs, inputs, height, width = weight.shape
    if group < 1 or outputs % group or (outputs // group if inputs > 1 or group == 1 else outputs) % size:
        return None
    if inputs % size == 0:
        split = weight.reshape(outputs // size, size, inputs // size, size, height, width)
        ordered = split.transpose(0, 2, 4, 5, 3, 1)
    elif (group == 1 and inputs < size) or (inputs == 1 and group == outputs):  # few input channels; depthwise
        ordered = weight.reshape(outputs // size, size, inputs, height, width).transpose(0, 2, 3, 4, 1)
    else:
        return None
    return np.ascontiguousarray(ordered).reshape(weight.shape)


def blocked_convolution(
    edit: LoweringEditor, node: ir.Node, x: ir.Value, weight: ir.Value, channels: tuple[int, int], bias: ir.Value | None
) -> ir.Value:
    """Insert the Conv, with the change of layout before and behind it.

    Args:
        edit: inserts nodes.
        node: the Conv.
        x: float32 [n, input channels, height, width].
        weight: float32, from ``blocked_weight``.
        channels: how many the input and the output have.
        bias: float32 [output channels].
    """
    inputs, outputs = channels
    if inputs >= (block_size() or 0):
        x = edit.node("ReorderInput", [x], domain=DOMAIN)
    y = edit.node("Conv", [x, weight, *([] if bias is None else [bias])], node.attributes.values(), domain=DOMAIN)
    return edit.node("ReorderOutput", [y], [ir.AttrInt64("channels", outputs)], domain=DOMAIN)
