"""Nodes behind a layer that are affine per output channel: its bias Add, and BatchNormalization with its neighbours.

y = a * (acc * deq_scale) + c per channel. A positive a goes into the dequantization scale, the sign of a negative one
into the integers of that channel's weight, and c into the int32 bias. Against the source this rounds c to a multiple
of a * deq_scale (half a unit at most, as every bias) and a * deq_scale to float32 (2^-24 relative); nothing else
changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Float64
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.layers import LAYER_KINDS


@dataclass(frozen=True)
class Tail:
    """An affine map per output channel.

    Attributes:
        factor: a, float64 [1] or [channels].
        addend: c without the layer's own bias, float64 [channels]; None when nothing is added.
        nodes: the nodes that the map replaces, in order.
        bias: the one tensor added when the tail is a single Add of a constant; else None.
    """

    factor: Float64
    addend: Float64 | None
    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None = None


EMPTY = Tail(np.ones(1), None, ())


def tails_of(node: ir.Node, channels: int, rank: int | None, constants: ConstantEvaluator) -> list[Tail]:
    """The tails that a layer may absorb, the longest first and the empty one last.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        channels: number of its output channels.
        rank: rank of its output; None when it is unknown (MatMul only).
        constants: evaluator of the graph.
    """
    # rank 1 stands for an unknown rank: only the last axis, that of the channels, is known
    axis = 1 if LAYER_KINDS[node.op_type].bias_input is not None else (rank or 1) - 1
    rank = rank or 1
    candidates = [EMPTY]
    factor, addend, nodes = np.ones(1), np.zeros(1), tuple[ir.Node, ...]()
    current = node
    while True:
        follower = _only_reader(current)
        if follower is None:
            break
        step = _batch_norm(follower, channels, axis, rank, constants) or _arithmetic(
            follower, current.outputs[0], channels, axis, rank, constants
        )
        if step is None:
            break
        factor, addend = factor * step[0], addend * step[0] + step[1]
        nodes = (*nodes, follower)
        current = follower
        if follower.op_type == "BatchNormalization":
            candidates.insert(0, Tail(factor, np.broadcast_to(addend, (channels,)), nodes))
        elif len(nodes) == 1 and follower.op_type == "Add":
            bias = next(v for v in follower.inputs if v is not None and v is not node.outputs[0])
            candidates.insert(0, Tail(np.ones(1), np.broadcast_to(addend, (channels,)), nodes, bias))
    return candidates


def _only_reader(node: ir.Node) -> ir.Node | None:
    output = node.outputs[0]
    users = list(output.uses())
    if len(users) != 1 or output.is_graph_output() or users[0].node.graph is not node.graph:
        return None
    return users[0].node


def _batch_norm(
    node: ir.Node, channels: int, axis: int, rank: int, constants: ConstantEvaluator
) -> tuple[Float64, Float64] | None:
    if node.op_type != "BatchNormalization" or node.domain != "" or axis != 1 or rank < 2:
        return None
    training = node.attributes.get("training_mode")
    if (training is not None and training.as_int()) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    if not all(constants.is_constant(v) for v in node.inputs[1:5]) or len(node.inputs) < 5:
        return None
    gamma, beta, mean, variance = (_array(v, constants).reshape(-1) for v in node.inputs[1:5])
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    if any(a.size != channels for a in (gamma, beta, mean, variance)) or np.any(variance + epsilon <= 0):
        return None
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor


def _arithmetic(
    node: ir.Node, value: ir.Value, channels: int, axis: int, rank: int, constants: ConstantEvaluator
) -> tuple[Float64, Float64] | None:
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or node.domain != "" or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    other = second if first is value else first
    if first is second or (node.op_type in ("Sub", "Div") and first is not value):
        return None
    if other is None or not constants.is_constant(other):
        return None
    array = _array(other, constants)
    layout = [1] * (rank - array.ndim) + list(array.shape)
    # an operand with more axes than the layer's result would raise the rank
    if array.ndim > rank or any(n != 1 and (a != axis or n != channels) for a, n in enumerate(layout)):
        return None
    flat = array.reshape(-1)
    if node.op_type == "Add":
        return np.ones(1), flat
    if node.op_type == "Sub":
        return np.ones(1), -flat
    if node.op_type == "Mul":
        return flat, np.zeros(1)
    return (1.0 / flat, np.zeros(1)) if np.all(flat != 0) else None


def _array(value: ir.Value | None, constants: ConstantEvaluator) -> Array:
    assert value is not None
    return np.asarray(constants.array(value)).astype(np.float64)


def addend_of(tail: Tail) -> ir.Value | None:
    """The tensor that names the bias of an absorbed BatchNormalization."""
    norms = [n for n in tail.nodes if n.op_type == "BatchNormalization"]
    return norms[-1].inputs[2] if norms else None
