"""Normalisations and Softmax as ONNX Runtime fuses them: LayerNormalization with a sum, GroupNorm, BiasSoftmax."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.graph.edit import exchange_names
from amct_onnx.normalise.fused_parts import Parts, given, plus, required

LAYER_NORMALIZATION_OPSET = 17
SOFTMAX_ONE_AXIS_OPSET = 13
"""From which on Softmax looks along one axis; before, along all from its axis on."""


def skip_layer_normalization(parts: Parts, node: ir.Node) -> ir.Value | None:
    """SkipLayerNormalization: input, skip, gamma, beta, bias; the sum may be an output of its own."""
    total = _skip_sum(parts, node, bias=4)
    if total is None:
        return None
    return layer_normalization(parts, node, total, required(node, 2), given(node, 3))


def layer_normalization(
    parts: Parts, node: ir.Node, total: ir.Value, gamma: ir.Value, beta: ir.Value | None
) -> ir.Value:
    """LayerNormalization along the last axis; before opset 17 its formula."""
    if parts.opset >= LAYER_NORMALIZATION_OPSET:
        attributes = [ir.AttrInt64("axis", -1), ir.AttrFloat32("epsilon", checked_attribute(node, "epsilon", 1e-12))]
        inputs = [total, gamma] if beta is None else [total, gamma, beta]
        return parts.op(node, "LayerNormalization", inputs, "", attributes)
    centred = parts.op(node, "Sub", [total, parts.mean(node, total, "mean")], "centred")
    return plus(parts, node, _over_root_of_mean_square(parts, node, centred, gamma, 1e-12), beta)


def skip_simplified(parts: Parts, node: ir.Node) -> ir.Value | None:
    """SkipSimplifiedLayerNormalization: input, skip, gamma, bias."""
    total = _skip_sum(parts, node, bias=3)
    return None if total is None else _over_root_of_mean_square(parts, node, total, required(node, 2), 1e-12)


def simplified(parts: Parts, node: ir.Node) -> ir.Value | None:
    """SimplifiedLayerNormalization: x, scale; along the last axis."""
    rank = parts.rank(required(node, 0))
    axis = checked_attribute(node, "axis", -1)
    if not _only_first_is_read(node) or (axis != -1 and (rank is None or axis != rank - 1)):
        return None
    return _over_root_of_mean_square(parts, node, required(node, 0), required(node, 1), 1e-5)


def _skip_sum(parts: Parts, node: ir.Node, bias: int) -> ir.Value | None:
    """Input + skip + bias, which readers of output 3 get; None where the training pass' outputs are read."""
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:3]):
        return None
    total = parts.op(node, "Add", [required(node, 0), required(node, 1)], "skip")
    if given(node, bias) is not None:
        total = parts.op(node, "Add", [total, required(node, bias)], "bias")
    if len(node.outputs) > 3:
        old = node.outputs[3]
        if old.name:
            exchange_names(total, old)
        old.name = None
        total.type, total.shape = old.type, old.shape
        ir.convenience.replace_all_uses_with(old, total, replace_graph_outputs=True)
    return total


def _over_root_of_mean_square(parts: Parts, node: ir.Node, x: ir.Value, gamma: ir.Value, epsilon: float) -> ir.Value:
    """X / sqrt(mean(x^2) + epsilon) * gamma."""
    value = parts.mean(node, parts.op(node, "Mul", [x, x], "square"), "variance")
    value = parts.binary(node, "Add", value, checked_attribute(node, "epsilon", epsilon), "epsilon")
    value = parts.op(node, "Div", [x, parts.op(node, "Sqrt", [value], "root")], "normalised")
    return parts.op(node, "Mul", [value, gamma], "gamma")


def bias_softmax(parts: Parts, node: ir.Node) -> ir.Value | None:
    """BiasSoftmax: softmax(x + bias) over all axes from ``axis`` on, as one."""
    x, bias = required(node, 0), required(node, 1)
    rank, axis = parts.rank(x), checked_attribute(node, "axis", 1)
    inner, bias_rank = checked_attribute(node, "is_inner_broadcast", 0), parts.rank(bias)
    if rank is None or bias_rank is None or not -rank <= axis < rank or (inner and bias_rank != rank):
        return None  # where the bias is broadcast along follows from both shapes
    value = parts.op(node, "Add", [x, bias], "bias")
    if axis % rank == rank - 1 or parts.opset < SOFTMAX_ONE_AXIS_OPSET:
        return parts.op(node, "Softmax", [value], "", [ir.AttrInt64("axis", axis % rank)])
    shape = parts.op(node, "Shape", [value], "shape", kind=ir.DataType.INT64)
    value = parts.op(node, "Flatten", [value], "flatten", [ir.AttrInt64("axis", axis % rank)])
    return parts.op(
        node, "Reshape", [parts.op(node, "Softmax", [value], "", [ir.AttrInt64("axis", -1)]), shape], "back"
    )


def group_norm(parts: Parts, node: ir.Node) -> ir.Value | None:
    """GroupNorm of four axes: normalised in each group, times gamma plus beta, then maybe x * sigmoid(x)."""
    groups, last = checked_attribute(node, "groups", 0), checked_attribute(node, "channels_last", 1)
    activation = checked_attribute(node, "activation", 0)
    if len(node.inputs) != 3 or groups < 1 or activation not in (0, 1):
        return None
    value = required(node, 0)
    if last:
        value = parts.op(node, "Transpose", [value], "channels_first", [ir.AttrInt64s("perm", [0, 3, 1, 2])])
    shape = parts.op(node, "Shape", [value], "shape", kind=ir.DataType.INT64)
    value = parts.op(node, "Reshape", [value, parts.integers(node, "groups", [0, groups, -1])], "groups")
    factors = [parts.like(node, name, np.full(groups, number)) for name, number in (("one", 1.0), ("zero", 0.0))]
    epsilon = [ir.AttrFloat32("epsilon", checked_attribute(node, "epsilon", 1e-5))]
    value = parts.op(node, "InstanceNormalization", [value, *factors], "", epsilon)
    value = parts.op(node, "Reshape", [value, shape], "back")
    for op_type, index in (("Mul", 1), ("Add", 2)):
        factor = parts.unsqueezed(node, required(node, index), [1, 2], f"{op_type.lower()}.spread")
        value = parts.op(node, op_type, [value, factor], op_type.lower())
    if activation:
        value = parts.op(node, "Mul", [value, parts.op(node, "Sigmoid", [value], "sigmoid")], "swish")
    if last:
        value = parts.op(node, "Transpose", [value], "channels_last", [ir.AttrInt64s("perm", [0, 2, 3, 1])])
    return value


def _only_first_is_read(node: ir.Node) -> bool:
    return not any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
