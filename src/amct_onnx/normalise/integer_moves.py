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
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.moves import data_inputs, fills, interpolates
from amct_onnx.graph.opset import opset_of

Factors = tuple[ir.Value, ir.Value | None]
PASSED_BY = ("Identity", "Clip", "Cast")
"""Operators that may stand between Q and DQ: the plan looks through them."""


def move_quantizers_behind_integer_moves(model: ir.Model) -> None:
    """Rewrite the graph in place; per-tensor quantizers only (a per-channel axis would move too)."""
    constants = ConstantEvaluator(opset_of(model))
    editor = GraphEditor(model)
    factors: dict[ir.Value, Factors] = {}
    for node in nodes_of(model):
        value = node.inputs[0] if node.inputs else None
        if node.op_type == "QuantizeLinear" and node.domain == "" and value is not None:
            pair = _per_tensor(node, constants)
            if pair is not None and not constants.is_constant(value):
                factors[node.outputs[0]] = pair
        elif node.op_type in PASSED_BY and node.domain == "" and value in factors:
            assert value is not None
            factors[node.outputs[0]] = factors[value]
        else:
            _move(node, factors, constants, editor)


def _per_tensor(node: ir.Node, constants: ConstantEvaluator) -> Factors | None:
    scale = node.inputs[1]
    if scale is None or not constants.is_constant(scale) or np.asarray(constants.array(scale)).size != 1:
        return None
    return scale, node.inputs[2] if len(node.inputs) > 2 else None


def _move(node: ir.Node, factors: dict[ir.Value, Factors], constants: ConstantEvaluator, editor: GraphEditor) -> None:
    positions = (0,) if interpolates(node) else data_inputs(node)
    values = [node.inputs[i] for i in positions]
    if not values or not all(v in factors for v in values):
        return
    scale, zero = factors[values[0]]  # type: ignore[index]
    known = [_numbers(factors[v], constants) for v in values]  # type: ignore[index]
    if any(numbers != known[0] for numbers in known[1:]):
        return
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
        fill = _fill(node, known[0], constants)
        if fill is None:
            return
        inputs[2:3] = [editor.constant(f"{node.name}/fill", np.asarray(fill, constants.array(scale).dtype))]
    first = editor.node(node.op_type, inputs, node, "float", node.attributes.values(), outputs=len(node.outputs))
    mover = first.producer()
    assert mover is not None
    results = []
    for moved, old in zip(mover.outputs, node.outputs, strict=True):
        moved.type, moved.shape = ir.TensorType(scale.dtype or ir.DataType.FLOAT), old.shape
        result = editor.node("QuantizeLinear", [moved, scale, zero], node, "quantize", like=old)
        factors[result] = (scale, zero)
        results.append(result)
    editor.replace(node, results)


def _numbers(factors: Factors, constants: ConstantEvaluator) -> tuple[float, int, str]:
    scale, zero = factors
    number = float(np.asarray(constants.array(scale)).reshape(-1)[0])
    if zero is None or not constants.is_constant(zero):
        return number, 0, "" if zero is None else str(zero.name)
    array = np.asarray(constants.array(zero))
    return number, int(array.reshape(-1)[0]), str(array.dtype)


def _fill(node: ir.Node, numbers: tuple[float, int, str], constants: ConstantEvaluator) -> float | None:
    """The float value of the integer that a Pad fills with; None when it is not constant."""
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    if fill is not None and not constants.is_constant(fill):
        return None
    integer = 0 if fill is None else int(np.asarray(constants.array(fill)).reshape(-1)[0])
    return float(np.float32(integer - numbers[1]) * np.float32(numbers[0]))
