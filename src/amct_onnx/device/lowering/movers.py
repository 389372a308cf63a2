"""Operators between the quantizers and the layers: they move int8, add a bias or average."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from amct_onnx.device.facts import EXACT_IN_FLOAT32, bias_bound
from amct_onnx.device.lowering.state import Accumulator, Int8Tensor, IntegerLayer, LoweringState
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute

AVERAGES = frozenset({"AveragePool", "GlobalAveragePool"})
MOVES = frozenset(
    "DepthToSpace Expand Flatten Gather GatherElements GatherND Identity MaxPool GlobalMaxPool Reshape Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze".split()
)
"""Operators that only select elements of their first input; float32 in place of int8 changes nothing."""


def lower_int8_reader(state: LoweringState, node: ir.Node, tensor: Int8Tensor) -> bool:
    """Lower an operator that reads int8 and is not a layer; False when it is unknown and needs the integers."""
    op_type = node.op_type
    if op_type in AVERAGES:
        _average(state, node, tensor)
    elif op_type in MOVES or (op_type == "Resize" and attribute(node, "mode", "nearest") == "nearest"):
        _move(state, node, [0], tensor)
    elif op_type == "Pad":
        return _pad(state, node, tensor)
    elif op_type == "Concat" and _equal_offsets(state, node):
        _move(state, node, range(len(node.inputs)), tensor)
    else:
        return False
    return True


def lower_int32_reader(state: LoweringState, node: ir.Node) -> bool:
    """Lower an operator that reads an accumulator; False when it is not known and needs the integers."""
    first = state.int32.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    if node.op_type == "Add" and any(v in state.int32 for v in node.inputs):
        _add(state, node)
    elif node.op_type in MOVES and first is not None:
        node.replace_input_with(0, first.value)
        axis = first.axis if node.op_type == "Identity" else None
        state.int32[node.outputs[0]] = replace(first, value=node.outputs[0], axis=axis, integer=None)
    else:
        return False
    return True


def _move(state: LoweringState, node: ir.Node, indices: Iterable[int], tensor: Int8Tensor) -> None:
    for index in indices:
        value = node.inputs[index]
        assert value is not None
        node.replace_input_with(index, state.int8[value].value)
    outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
    for output in outputs:
        moved = (*tensor.moved, node.name or node.op_type)
        state.int8[output] = Int8Tensor(output, tensor.offset, tensor.quantizer, moved)


def _equal_offsets(state: LoweringState, node: ir.Node) -> bool:
    offsets = {state.int8[v].offset if v in state.int8 else None for v in node.inputs if v is not None}
    return len(offsets) == 1 and None not in offsets


def _pad(state: LoweringState, node: ir.Node, tensor: Int8Tensor) -> bool:
    """The border gets the node's value as an int8, not the offset: only layers pad with the offset."""
    if attribute(node, "mode", "constant") == "constant":
        fill = node.inputs[2] if len(node.inputs) > 2 else None
        if fill is not None and not state.constants.is_constant(fill):
            return False
        number = 0 if fill is None else int(state.constants.array(fill).reshape(-1)[0])
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, state.edit.number(number - tensor.offset))
    _move(state, node, [0], tensor)
    return True


def _add(state: LoweringState, node: ir.Node) -> None:
    """The bias of a MatMul: an int32 constant behind its accumulator, in float32 while that stays exact."""
    index = 0 if node.inputs[0] in state.int32 else 1
    value, other = node.inputs[index], node.inputs[1 - index]
    assert value is not None
    tensor = state.int32[value]
    out = node.outputs[0]
    if other is not None and state.constants.is_constant(other) and tensor.layer is not None and tensor.integral:
        bias = state.constants.array(other)
        if bias.dtype != np.int32:
            raise UnsupportedModelError(
                f"Node '{node.name}': adds {bias.dtype} to the int32 accumulator of '{tensor.layer.node.name}'. "
                "Write the model again."
            )
        tensor.layer.bias = tensor.layer.bias + bias_bound(bias, tensor.layer.sums, by_channel=tensor.axis == -1)
        bound = tensor.layer.bound()
        if tensor.in_float and bound is not None and bound <= EXACT_IN_FLOAT32:
            node.replace_input_with(index, tensor.value)
            node.replace_input_with(1 - index, state.edit.constant(bias.astype(np.float32)))
            state.int32[out] = replace(tensor, value=out, integer=None)
            return
        if tensor.in_float:
            # the layer without this bias stays exact in float32: one part, summed in int32
            tensor.layer.kernel = "split"
    state.give_integers(node)
    state.int32[out] = Accumulator(out, False, tensor.layer, tensor.axis)


def _average(state: LoweringState, node: ir.Node, tensor: Int8Tensor) -> None:
    node.replace_input_with(0, tensor.value)
    text = "how a device averages int8 is not public: the average of the integers is taken in float32"
    layer = IntegerLayer(node, tensor, None, np.zeros(1, np.int64), "average", 0, [text])
    state.layers.append(layer)
    state.int32[node.outputs[0]] = Accumulator(node.outputs[0], True, layer, None, integral=False)
