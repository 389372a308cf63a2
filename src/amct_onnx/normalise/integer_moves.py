"""Q -> (Reshape, Split, Pad, ...) on integers becomes Q -> DQ -> (Reshape, Split, Pad, ...) -> Q.

Data movement commutes with the element-wise DequantizeLinear, so every pair becomes adjacent without changing a bit;
the pairs that are now doubled are removed by the plan, which knows that quantizing again changes nothing. A Resize that
interpolates integers is written in the same way: it stands for the interpolation of the numbers that they mean, rounded
to the nearest integer (ONNX does not say how an interpolated integer is rounded; onnxruntime cuts the fraction off).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, known_as, nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.moves import data_inputs, fills, interpolates
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import integer_type
from amct_onnx.normalise.integer_readers import Factors, IntegerReaders
from amct_onnx.normalise.small_types import is_small

PASSED_BY = ("Identity", "Clip", "Cast")
"""Operators that may stand between Q and DQ: the plan looks through them."""


def move_quantizers_behind_integer_moves(model: ir.Model) -> None:
    """Rewrite the graph in place; per-tensor quantizers only (a per-channel axis would move as well)."""
    constants = ConstantEvaluator(opset_of(model))
    editor = GraphEditor(model)
    factors: dict[ir.Value, Factors] = {}
    readers = IntegerReaders(model, editor, constants, factors)
    for node in nodes_of(model):
        value = node.inputs[0] if node.inputs else None
        if node.op_type == "QuantizeLinear" and node.domain == "" and value is not None:
            pair = _per_tensor(node, constants, editor)
            if pair is not None and not constants.is_constant(value):
                factors[node.outputs[0]] = pair
        elif not any(v in factors for v in node.inputs):
            continue
        elif value in factors and (passed := _passed_by(node, value, factors[value])) is not None:
            factors[node.outputs[0]] = passed
            if node.outputs[0].is_graph_output():
                _hand_out(node, factors, editor, readers)
        elif node.op_type != "DequantizeLinear" and not _move(node, factors, constants, editor):
            if not any(is_small(v) for v in node.inputs):  # of these, a later rule names the node
                readers.rewrite(node)


def _hand_out(node: ir.Node, known: dict[ir.Value, Factors], editor: GraphEditor, readers: IntegerReaders) -> None:
    """Let integers that leave the graph come from a QuantizeLinear, or from what computes them of floats."""
    if node.op_type != "Identity":
        readers.rewrite(node)
        return
    factors = known[node.outputs[0]]
    inputs = [node.inputs[0], factors.scale, factors.zero]
    floats = editor.node("DequantizeLinear", inputs, node, "dequantize")
    floats.type = ir.TensorType(factors.scale.dtype or ir.DataType.FLOAT)
    again = [floats, factors.scale, factors.zero]
    integers = editor.node("QuantizeLinear", again, node, "", like=node.outputs[0])
    known[integers] = factors
    editor.replace(node, [integers])


def _passed_by(node: ir.Node, value: ir.Value | None, factors: Factors) -> Factors | None:
    """The factors behind a node that may stand between Q and DQ, else None: a Cast to floats, or one that may wrap."""
    if node.op_type not in PASSED_BY or node.domain != "" or value is None:
        return None
    if node.op_type != "Cast":
        return factors
    to = ir.DataType(node.attributes["to"].as_int())
    if not to.is_integer() or to.bitwidth < 8 or not np.can_cast(factors.numbers[2], to.numpy()):
        return None
    return factors if to.numpy() == factors.numbers[2] else factors.cast(value, to)


def _per_tensor(node: ir.Node, constants: ConstantEvaluator, editor: GraphEditor) -> Factors | None:
    scale = node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if scale is None or not constants.is_constant(scale) or np.asarray(constants.array(scale)).size != 1:
        return None
    if zero is not None and (not constants.is_constant(zero) or np.asarray(constants.array(zero)).size != 1):
        return None
    number = float(np.asarray(constants.array(scale)).reshape(-1)[0])
    kind = integer_type(node, constants)
    offset = 0 if zero is None else int(np.asarray(constants.array(zero)).reshape(-1)[0])
    if zero is None and kind != ir.DataType.UINT8:  # the quantizers that are written have no attribute for it
        zero = editor.constant(f"{node.name}/zero_point", np.zeros((), kind.numpy()))
    return Factors(scale, zero, (number, offset, kind.numpy()))


def _move(node: ir.Node, factors: dict[ir.Value, Factors], constants: ConstantEvaluator, editor: GraphEditor) -> bool:
    """Whether the node only moves integers of one quantizer, and moves their floats now."""
    positions = (0,) if interpolates(node) else data_inputs(node)
    known = [factors[v] for i in positions if (v := node.inputs[i]) is not None and v in factors]
    if not known or len(known) != len(positions) or any(f.numbers != known[0].numbers for f in known):
        return False
    if known[0].uncast is not None:
        return False  # what leaves the graph, or is added to, stays of the wider type
    scale, zero, numbers = known[0].scale, known[0].zero, known[0].numbers
    inputs = list(node.inputs)
    dequantized: dict[ir.Value, ir.Value] = {}
    for position in positions:
        value = inputs[position]
        assert value is not None
        if value not in dequantized:
            dequantized[value] = editor.node("DequantizeLinear", [value, scale, zero], node, "dequantize")
            dequantized[value].type, dequantized[value].shape = (
                ir.TensorType(scale.dtype or ir.DataType.FLOAT),
                value.shape,
            )
        inputs[position] = dequantized[value]
    if fills(node):
        fill = _fill(node, numbers, constants)
        if fill is None:
            return False
        inputs[2:3] = [editor.constant(f"{node.name}/fill", np.asarray(fill, constants.array(scale).dtype))]
    first = editor.node(node.op_type, inputs, node, "float", node.attributes.values(), outputs=len(node.outputs))
    mover = first.producer()
    assert mover is not None
    if interpolates(node):
        warn(
            editor.model,
            f"Node '{known_as(node)}' ({node.op_type}) interpolates the integers of a quantizer: the outputs round to "
            "the nearest one, ONNX Runtime cuts the fraction off, so numbers come out one step apart. Let it read the "
            "DequantizeLinear's result.",
        )
    results = []
    for moved, old in zip(mover.outputs, node.outputs, strict=True):
        moved.type, moved.shape = ir.TensorType(scale.dtype or ir.DataType.FLOAT), old.shape
        result = editor.node("QuantizeLinear", [moved, scale, zero], node, "quantize", like=old)
        factors[result] = known[0]
        results.append(result)
    editor.replace(node, results)
    return True


def _fill(
    node: ir.Node, numbers: tuple[float, int, np.dtype[np.generic]], constants: ConstantEvaluator
) -> float | None:
    """The float that the integer of a Pad stands for; None when it is not constant."""
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    if fill is not None and not constants.is_constant(fill):
        return None
    integer = 0.0 if fill is None else float(np.asarray(constants.array(fill)).reshape(-1)[0])
    return float(np.float32(integer - numbers[1]) * np.float32(numbers[0]))
