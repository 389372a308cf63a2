"""Gemm and Einsum of two activations with symmetric quantizers become MatMul, which ATC compiles in int8.

An Einsum x[B, M, K], w[B, K, N] -> y[B, M, N] in any order of its axes is a MatMul between Transposes. A Gemm whose
factors are 1 is one with an Add behind it.
"""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, integer_type, is_op
from amct_onnx.normalise.repeated_sums import has_repeated_sum

EQUATION = re.compile(r"([a-zA-Z]+),([a-zA-Z]+)->([a-zA-Z]+)")
CENTRES = {ir.DataType.UINT8: 128}
"""Type -> the zero point of a symmetric quantizer, where that is not 0."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_activation_products_as_matmul(model: ir.Model) -> None:
    """Rewrite the graph in place."""
    constants = ConstantEvaluator(opset_of(model))
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.domain != "" or node.op_type not in ("Gemm", "Einsum"):
            continue
        operands = node.inputs[:2]
        if len(operands) < 2 or not all(_is_symmetric(v, constants) for v in operands):
            continue
        terms = _terms(node) if node.op_type == "Einsum" else None
        if terms is not None:
            editor = editor or GraphEditor(model)
            _einsum(node, *terms, editor)
        elif node.op_type == "Gemm" and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0:
            editor = editor or GraphEditor(model)
            _gemm(node, editor)


def _is_symmetric(value: ir.Value | None, constants: ConstantEvaluator) -> bool:
    """Whether an activation comes from a symmetric DequantizeLinear, with nothing but movement between."""
    if constants.is_constant(value):
        return False
    while value is not None:
        node = value.producer()
        if node is None:
            return False
        if is_op(node, DEQUANTIZE):
            zero = node.inputs[2] if len(node.inputs) > 2 else None
            centre = CENTRES.get(integer_type(node, constants), 0)
            return centre == 0 if zero is None else bool(np.all(constants.array(zero) == centre))
        value = node.inputs[0] if data_inputs(node) == (0,) else None
    return False


def _terms(node: ir.Node) -> tuple[str, str, str] | None:
    """The axes of both operands and of the result of an Einsum that is a MatMul; None for another."""
    equation = attribute(node, "equation", "").replace(" ", "")
    if "->" not in equation and "..." not in equation:
        equation = f"{equation}->{''.join(a for a in sorted(set(equation)) if a.isalpha() and equation.count(a) == 1)}"
    match = EQUATION.fullmatch(_with_letters(equation, node))
    if match is None:
        return None
    x, w, y = match.groups()
    batch, summed = [a for a in x if a in w and a in y], set(x) & set(w) - set(y)
    rows, columns = set(x) - set(w), set(w) - set(x)
    if any(len(set(t)) != len(t) for t in (x, w, y)) or any(len(axes) != 1 for axes in (summed, rows, columns)):
        return None
    if set(y) != {*batch, *rows, *columns} or has_repeated_sum(node, x, w, "".join(summed)):
        return None
    return x, w, y


def _with_letters(equation: str, node: ir.Node) -> str:
    """The equation with letters for an ellipsis that stands for as many axes in all terms."""
    terms = re.split(",|->", equation)
    if len(terms) != 3 or not all(t.count("...") == 1 for t in terms) or "->" not in equation:
        return equation
    ranks = [None if v is None or v.shape is None else len(v.shape) for v in node.inputs]
    counts = {rank - len(t.replace("...", "")) for rank, t in zip(ranks, terms, strict=False) if rank is not None}
    if None in ranks or len(counts) != 1 or min(counts) < 0:
        return equation
    free = "".join(a for a in LETTERS if a not in equation)
    return equation.replace("...", free[: counts.pop()])


def _einsum(node: ir.Node, x: str, w: str, y: str, editor: GraphEditor) -> None:
    batch = "".join(a for a in y if a in x and a in w)
    summed = "".join(a for a in x if a in w and a not in y)
    rows, columns = ("".join(a for a in one if a not in other) for one, other in ((x, w), (w, x)))
    first, second = node.inputs
    assert first is not None and second is not None
    first = _ordered(first, x, batch + rows + summed, node, "x", editor)
    second = _ordered(second, w, batch + summed + columns, node, "w", editor)
    result = editor.node("MatMul", [first, second], node)
    result = _ordered(result, batch + rows + columns, y, node, "y", editor)
    result.type, result.shape = node.outputs[0].type, node.outputs[0].shape
    editor.replace(node, [result])


def _ordered(value: ir.Value, axes: str, wanted: str, node: ir.Node, label: str, editor: GraphEditor) -> ir.Value:
    """A tensor with its axes in another order."""
    if axes == wanted:
        return value
    perm = [axes.index(a) for a in wanted]
    result = editor.node("Transpose", [value], node, f"{label}/transpose", [ir.AttrInt64s("perm", perm)])
    result.type = value.type
    if value.shape is not None:
        result.shape = ir.Shape([value.shape[axis] for axis in perm])
    return result


def _gemm(node: ir.Node, editor: GraphEditor) -> None:
    operands = []
    for value, name in zip(node.inputs[:2], ("transA", "transB"), strict=True):
        assert value is not None
        operands.append(_ordered(value, "mk", "km" if attribute(node, name, 0) else "mk", node, name, editor))
    result = editor.node("MatMul", operands, node)
    addend = node.inputs[2] if len(node.inputs) > 2 else None
    if addend is not None:
        result.type, result.shape = node.outputs[0].type, node.outputs[0].shape
        result = editor.node("Add", [result, addend], node, "add")
    result.type, result.shape = node.outputs[0].type, node.outputs[0].shape
    editor.replace(node, [result])
