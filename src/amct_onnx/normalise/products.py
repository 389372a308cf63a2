"""Products that are written otherwise than as a MatMul whose second operand is a matrix.

An Einsum of two operands, one of them constant, is a MatMul where the summed axes and the kept ones can be brought
together by a Transpose and a Reshape: x[P, C] times w[C, N] gives y[P, N]. An axis that both operands and the result
have (a batch) stays as it is. A MatMul by a quantized matrix from the left is the Einsum mk,...kn->...mn; a weight with
axes of 1 in front loses them.
"""

from __future__ import annotations

import math
import re

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.shapes import stored_shape
from amct_onnx.normalise.fused_parts import Parts
from amct_onnx.normalise.repeated_sums import has_repeated_sum
from amct_onnx.normalise.weight_first import weight_first

TERM = re.compile(r"([a-zA-Z]+),([a-zA-Z]+)->([a-zA-Z]+)")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_products_as_matmul(model: ir.Model) -> None:
    """Rewrite the graph in place."""
    opset = opset_of(model)
    constants = ConstantEvaluator(opset)
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.domain != "" or not (len(node.inputs) == 2 or node.op_type == "Gemm"):
            continue
        parts = _parts(node, constants) if node.op_type == "Einsum" else weight_first(node, constants)
        if parts is not None:
            editor = editor or GraphEditor(model)
            _einsum(node, *parts, editor)
        elif node.op_type == "MatMul" and _has_idle_axes(node, constants):
            editor = editor or GraphEditor(model)
            _drop_idle_axes(node, editor, constants, opset)


def _parts(node: ir.Node, constants: ConstantEvaluator) -> tuple[int, str, str, str] | None:
    """Index of the activation, its axes, those of the constant and of the result; None for another product."""
    constant = [constants.is_constant(v) for v in node.inputs]
    if constant.count(True) != 1:
        return None
    index = constant.index(False)
    match = TERM.fullmatch(_spelled_out(node, index))
    if match is None:
        return None
    x, w, y = match[1 + index], match[2 - index], match[3]
    summed, kept, new = set(x) & set(w), set(x) - set(w), set(w) - set(x)
    unique = all(len(set(t)) == len(t) for t in (x, w, y))
    # an axis of both that the result keeps is a batch; an axis of one that the result lacks is a sum of its own
    if not unique or not summed or summed & set(y) or set(y) != kept | new or not new:
        return None
    if stored_shape(node.inputs[1 - index]) is None or has_repeated_sum(
        node, match[1], match[2], "".join(sorted(summed))
    ):
        return None
    return index, x, w, y


def _spelled_out(node: ir.Node, index: int) -> str:
    """The equation with its result, where that is implied, and letters for the ellipsis of the activation.

    Args:
        node: an Einsum of two inputs.
        index: which of them is the activation.
    """
    equation = attribute(node, "equation", "").replace(" ", "")
    if "->" not in equation:
        once = sorted(a for a in set(equation) if a.isalpha() and equation.count(a) == 1)
        equation = f"{equation}->{'...' if '...' in equation else ''}{''.join(once)}"
    value = node.inputs[index]
    terms = equation.split("->")[0].split(",")
    if "..." not in equation or len(terms) != 2 or value is None or value.shape is None:
        return equation
    count = len(value.shape) - len(terms[index].replace("...", ""))
    free = "".join(a for a in LETTERS if a not in equation)
    return equation if "..." in terms[1 - index] or not 0 <= count else equation.replace("...", free[:count])


def _einsum(node: ir.Node, index: int, x: str, w: str, y: str, editor: GraphEditor) -> None:
    value, weight = node.inputs[index], node.inputs[1 - index]
    shape = stored_shape(weight)
    assert value is not None and weight is not None and shape is not None
    size = dict(zip(w, shape, strict=True))
    summed = "".join(a for a in w if a in x)
    kept, new = "".join(a for a in y if a in x), "".join(a for a in y if a in w)

    def transposed(operand: ir.Value, axes: str, wanted: str, label: str) -> ir.Value:
        if axes == wanted:
            return operand
        perm = [ir.AttrInt64s("perm", [axes.index(a) for a in wanted])]
        return editor.node("Transpose", [operand], node, f"{label}/transpose", perm)

    def reshaped(operand: ir.Value, shape: list[int], label: str) -> ir.Value:
        target = editor.constant(f"{node.name}/{label}/shape", np.asarray(shape, np.int64))
        return editor.node("Reshape", [operand, target], node, f"{label}/reshape")

    value = transposed(value, x, kept + summed, "x")
    if len(summed) > 1:
        value = reshaped(value, [0] * len(kept) + [math.prod(size[a] for a in summed)], "x")
    if not kept:
        value = reshaped(value, [1, -1], "x")
    weight = transposed(weight, w, summed + new, "w")
    if len(summed) > 1 or len(new) > 1:
        weight = reshaped(weight, [math.prod(size[a] for a in summed), math.prod(size[a] for a in new)], "w")
    result = editor.node("MatMul", [value, weight], node)
    if not kept or len(new) > 1:
        result = reshaped(result, [0] * len(kept) + [size[a] for a in new], "y")
    result = transposed(result, kept + new, y, "y")
    if len(node.inputs) > 2:  # of a Gemm
        result = editor.node("Add", [result, node.inputs[2]], node, "add")
    result.type, result.shape = node.outputs[0].type, node.outputs[0].shape
    editor.replace(node, [result])


def _has_idle_axes(node: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether the weight is a batch of one matrix."""
    value, shape = node.inputs[0], stored_shape(node.inputs[1])
    if value is None or value.shape is None or shape is None or len(shape) < 3 or set(shape[:-2]) != {1}:
        return False
    return len(value.shape) > 1 and constants.is_constant(node.inputs[1])


def _drop_idle_axes(node: ir.Node, editor: GraphEditor, constants: ConstantEvaluator, opset: int) -> None:
    weight = node.inputs[1]
    shape = stored_shape(weight)
    assert weight is not None and shape is not None
    target = editor.constant(f"{node.name}/matrix", np.asarray(shape[-2:], np.int64))
    matrix = editor.node("Reshape", [weight, target], node, "matrix")
    matrix.type = weight.type
    value = node.inputs[0]
    assert value is not None and value.shape is not None
    missing = len(shape) - len(value.shape)
    if missing <= 0:
        node.replace_input_with(1, matrix)
        return
    result = editor.node("MatMul", [value, matrix], node)
    result.type = node.outputs[0].type
    # the result has the axes of the weight in front
    editor.replace(node, [Parts(editor, constants, opset).unsqueezed(node, result, range(missing), "axes")])
