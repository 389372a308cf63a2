"""Convolutions on float32 in onnxruntime's channel-blocked layout, which costs less than its ordinary kernel.

onnxruntime's own optimizer brings a graph into this layout and with it changes the rounding of float layers. Here only
Conv nodes are brought into it whose sums float32 holds exactly, so the order in which they are added up cannot matter.
Tensors stay NCHW outside of the node: reordering its input and output is counted in the gain.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from amct_onnx.device.lowering.emitter import Emitter
from amct_onnx.device.lowering.node_attributes import attribute

DOMAIN = "com.microsoft.nchwc"
"""Of ReorderInput, Conv and ReorderOutput."""
PROBED = 64
"""Channels of a tensor whose order shows the size of a block; more than any block has."""


@lru_cache(maxsize=1)
def block_size() -> int | None:
    """Channels in a block on this CPU; None where this onnxruntime has no such layout."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, PROBED, 1, 2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "probe", [x], [y]), opset_imports=opsets, ir_version=8
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    order = np.arange(2 * PROBED, dtype=np.float32).reshape(1, PROBED, 1, 2)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = np.asarray(session.run(None, {"x": order})[0]).reshape(-1)
    except Exception:  # onnxruntime's classes share no base; it has no such operator, or not for this CPU
        return None
    for size in (8, 16, 32):
        if np.array_equal(found, order.reshape(-1, size, 2).transpose(0, 2, 1).reshape(-1)):
            return size
    return None


def blocked_weight(node: ir.Node, weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8] | None:
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
    outputs, inputs, height, width = weight.shape
    group = attribute(node, "group", 1)
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
    emit: Emitter, node: ir.Node, x: ir.Value, weight: ir.Value, channels: tuple[int, int], bias: ir.Value | None
) -> ir.Value:
    """Insert the Conv with the layout's changes before and behind it.

    Args:
        emit: inserts nodes.
        node: the Conv.
        x: float32 [n, input channels, height, width].
        weight: float32, from ``blocked_weight``.
        channels: how many the input and the output have.
        bias: float32 [output channels].
    """
    inputs, outputs = channels
    if inputs >= (block_size() or 0):
        x = emit.node("ReorderInput", [x], domain=DOMAIN)
    y = emit.node("Conv", [x, weight, *([] if bias is None else [bias])], node.attributes.values(), domain=DOMAIN)
    return emit.node("ReorderOutput", [y], [ir.AttrInt64("channels", outputs)], domain=DOMAIN)
