"""Multiply-accumulates of an operator in one run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from amct_onnx.verbs.convert.tensor_sizes import TensorSizes

EINSUM = "Einsum"
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
UNKNOWN_WORK = frozenset("Attention ConvInteger DeformConv MatMulInteger QLinearConv QLinearMatMul".split())
"""Operators that multiply, and of which no int8 form is known."""
ELLIPSIS = "..."
OURS = ("AscendQuant", "AscendDequant", "AscendAntiQuant")


def multiplies(node: ir.Node) -> bool:
    """Whether an operator multiplies tensors; of one outside of ONNX nobody knows, so it counts as one that does."""
    if node.domain not in ("", "ai.onnx"):
        return node.op_type not in OURS
    return node.op_type in LAYER_KINDS or node.op_type in RECURRENT | UNKNOWN_WORK | {EINSUM}


def macs_of(node: ir.Node, sizes: TensorSizes) -> int | None:
    """Products that an operator adds; None when they are unknown.

    Args:
        node: one that ``multiplies``.
        sizes: of its model.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in LAYER_KINDS:
        return _of_layer(node, sizes)
    if node.op_type in RECURRENT:
        return _of_recurrence(node, sizes)
    return _of_einsum(node, sizes) if node.op_type == EINSUM else None


def _of_layer(node: ir.Node, sizes: TensorSizes) -> int | None:
    """Those of a ConvTranspose are spread from its input."""
    shape = sizes.sizes(node.inputs[1]) if len(node.inputs) > 1 else None
    layout = Layout(LAYER_KINDS[node.op_type], attribute(node, "group", 1), bool(attribute(node, "transB", 0)))
    if shape is None or len(shape) < (2 if layout.kind.convolution else 1):  # no such layer runs
        return None
    if layout.kind.groups_on_inputs:
        spread, terms = sizes.elements(node.inputs[0]), math.prod(shape[1:])
    else:
        spread, terms = sizes.elements(node.outputs[0]), layout.terms(shape)
    return None if spread is None else spread * terms


def _of_recurrence(node: ir.Node, sizes: TensorSizes) -> int | None:
    """Each step multiplies W by the input and R by the state, for each row of the batch and each direction."""
    shapes = [sizes.sizes(v) for v in node.inputs[:3]]
    if len(shapes) < 3 or any(s is None or len(s) != 3 for s in shapes):
        return None
    (first, second, _), *weights = (s for s in shapes if s is not None)
    return first * second * sum(math.prod(w) for w in weights)


def _of_einsum(node: ir.Node, sizes: TensorSizes) -> int | None:
    """Operands are multiplied from left to right, as ONNX Runtime does it; one alone has no products.

    A step has one product for each index of the labels of both. Before it, each of them is summed over the labels that
    neither the other, nor a later operand, nor the result has.
    """
    terms, arrow, result = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    operands = _operands(terms.split(","), [sizes.sizes(v) for v in node.inputs])
    if operands is None:
        return None
    if not arrow:  # the result has the labels that stand once, behind those of an ellipsis
        result = ELLIPSIS + "".join(c for c in terms if c.isalpha() and terms.count(c) == 1)
    kept = _result_labels(operands, result)
    total, made = 0, operands[0]
    for index, operand in enumerate(operands[1:], 2):
        later = kept.union(*operands[index:])
        labels = later.union(made.keys() & operand.keys()) & (made.keys() | operand.keys())
        made = {label: _broadcast(made.get(label, 1), operand.get(label, 1)) for label in labels}
        total += math.prod(made.values())
    return total


def _broadcast(size: int, other: int) -> int:
    """Of an axis; one of no elements has no products."""
    return max(size, other) if size and other else 0


def _operands(terms: Sequence[str], shapes: Sequence[tuple[int, ...] | None]) -> list[dict[str, int]] | None:
    """The size of each label of each operand; None where shapes are unknown or do not fit the terms."""
    operands = []
    if len(terms) != len(shapes):
        return None
    for term, shape in zip(terms, shapes, strict=True):
        labels = None if shape is None else _labels(term, len(shape))
        if shape is None or labels is None:
            return None
        operands.append(dict(zip(labels, shape, strict=True)))
    return operands


def _result_labels(operands: Sequence[Mapping[str, int]], result: str) -> set[str]:
    ellipsis = {label for operand in operands for label in operand if label.startswith(ELLIPSIS)}
    return set(result.replace(ELLIPSIS, "")) | (ellipsis if ELLIPSIS in result else set())


def _labels(term: str, rank: int) -> list[str] | None:
    """One label for each axis; those of an ellipsis are counted from its end, as they broadcast."""
    front, ellipsis, back = term.partition(ELLIPSIS)
    count = rank - len(front) - len(back)
    if count < 0 or (count and not ellipsis):
        return None
    return [*front, *(f"{ELLIPSIS}{k}" for k in range(count, 0, -1)), *back]
