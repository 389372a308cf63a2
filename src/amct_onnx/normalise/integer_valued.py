"""Which float tensors hold whole numbers between known bounds, whatever operators round and clip them.

Exporters write fake quantization in many ways: sign(x) * floor(|x| / s + 0.5) * s, a Cast to an integer and back,
Floor, Ceil, integers of a graph input. What they have in common is integers times one scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.moves import data_inputs, fills, interpolates
from amct_onnx.graph.shapes import stored_shape

MAX_DEPTH = 24
"""Operators that are followed from a tensor towards its source."""
MAX_ELEMENTS = 1 << 16
"""Constants of more elements are weights, and not looked into."""
MAX_EXACT = 2048.0
"""Up to here float16 holds every integer."""


@dataclass(frozen=True)
class Span:
    """Every element lies in low..high; ``whole`` when all of them are integers."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    def clipped(self, low: float, high: float, whole: bool) -> Span:
        """Behind a Clip to bounds of which ``whole`` says whether they are integers."""
        ends = (min(max(self.low, low), high), max(min(self.high, high), low))
        return Span(*ends, self.whole and whole)


ANY = Span()
ROUND = {"Round": np.rint, "Floor": np.floor, "Ceil": np.ceil}


class IntegerValues:
    """Spans of the tensors of one model.

    Args:
        constants: of the model.
    """

    def __init__(self, constants: ConstantEvaluator) -> None:
        self._constants = constants
        self._known: dict[ir.Value, Span] = {}

    def of(self, value: ir.Value | None, depth: int = MAX_DEPTH) -> Span:
        """What is known of a tensor; nothing where more than MAX_DEPTH operators would have to be followed."""
        if value is None:
            return ANY
        if value not in self._known:
            span = self._constant(value) if self._constants.is_constant(value) else self._computed(value, depth)
            if span == ANY and not depth:
                return ANY
            self._known[value] = span
        return self._known[value]

    def _constant(self, value: ir.Value) -> Span:
        shape = stored_shape(value)
        if shape is None or math.prod(shape) > MAX_ELEMENTS:
            return ANY
        array = np.asarray(self._constants.array(value))
        if array.dtype.kind not in "fiu" or not array.size or not np.all(np.isfinite(array)):
            return ANY
        return Span(float(array.min()), float(array.max()), bool(np.all(array == np.rint(array))))

    def _computed(self, value: ir.Value, depth: int) -> Span:
        node = value.producer()
        known = _of_type(value)
        if node is None or node.domain or not depth or not node.inputs or node.outputs[0] is not value:
            return known
        rule = RULES.get(node.op_type)
        inputs = [self.of(v, depth - 1) for v in node.inputs]
        if rule is not None:
            span = rule(node, inputs)
        elif node.op_type == "Cast":
            span = _cast(node, inputs[0])
        elif data_inputs(node) and not fills(node) and not interpolates(node):
            span = _union([inputs[i] for i in data_inputs(node)])
        else:
            return known
        return known if span == ANY or math.isnan(span.low) or math.isnan(span.high) else span


def _of_type(value: ir.Value) -> Span:
    if value.dtype is None or not value.dtype.is_integer() or not 8 <= value.dtype.bitwidth <= 16:
        return Span(whole=value.dtype is not None and value.dtype.is_integer())
    info = np.iinfo(value.dtype.numpy())
    return Span(float(info.min), float(info.max), True)


def _union(spans: list[Span]) -> Span:
    return Span(min(s.low for s in spans), max(s.high for s in spans), all(s.whole for s in spans))


def _cast(node: ir.Node, span: Span) -> Span:
    """A Cast to integers cuts off the fraction, and may wrap what its type does not hold."""
    to = ir.DataType(node.attributes["to"].as_int())
    if to.is_integer():
        if to.bitwidth < 8:
            return ANY
        info = np.iinfo(to.numpy())
        fits = info.min <= span.low and span.high <= info.max
        return Span(math.trunc(span.low), math.trunc(span.high), True) if fits else Span(info.min, info.max, True)
    exact = to in (ir.DataType.FLOAT, ir.DataType.DOUBLE) or max(abs(span.low), abs(span.high)) <= MAX_EXACT
    return span if to.is_floating_point() and exact else ANY


def _rounded(node: ir.Node, inputs: list[Span]) -> Span:
    low, high = (float(ROUND[node.op_type](end)) for end in (inputs[0].low, inputs[0].high))
    return Span(low, high, True)


def _sign(node: ir.Node, inputs: list[Span]) -> Span:
    return Span(-1.0, 1.0, True)


def _absolute(node: ir.Node, inputs: list[Span]) -> Span:
    span = inputs[0]
    low = 0.0 if span.low <= 0 <= span.high else min(abs(span.low), abs(span.high))
    return Span(low, max(abs(span.low), abs(span.high)), span.whole)


def _negated(node: ir.Node, inputs: list[Span]) -> Span:
    return Span(-inputs[0].high, -inputs[0].low, inputs[0].whole)


def _relu(node: ir.Node, inputs: list[Span]) -> Span:
    return inputs[0].clipped(0.0, math.inf, True)


def _clip(node: ir.Node, inputs: list[Span]) -> Span:
    low, high = -math.inf, math.inf
    whole = True
    for index, name in ((1, "min"), (2, "max")):
        if len(inputs) > index and node.inputs[index] is not None:
            bound = inputs[index]
            if bound.low != bound.high:
                return ANY
        elif name in node.attributes:
            number = node.attributes[name].as_float()
            bound = Span(number, number, float(number).is_integer())
        else:
            continue
        whole = whole and bound.whole
        low, high = (bound.low, high) if index == 1 else (low, bound.low)
    return inputs[0].clipped(low, high, whole) if low <= high else ANY


def _largest(node: ir.Node, inputs: list[Span]) -> Span:
    return Span(max(s.low for s in inputs), max(s.high for s in inputs), all(s.whole for s in inputs))


def _smallest(node: ir.Node, inputs: list[Span]) -> Span:
    return Span(min(s.low for s in inputs), min(s.high for s in inputs), all(s.whole for s in inputs))


def _sum(node: ir.Node, inputs: list[Span]) -> Span:
    first, second = inputs[0], inputs[1] if node.op_type == "Add" else _negated(node, inputs[1:])
    return Span(first.low + second.low, first.high + second.high, first.whole and second.whole)


def _multiplied(node: ir.Node, inputs: list[Span]) -> Span:
    return product(*inputs)


def product(first: Span, second: Span) -> Span:
    """What the product of two tensors holds."""
    ends = [0.0 if 0.0 in (a, b) else a * b for a in (first.low, first.high) for b in (second.low, second.high)]
    return Span(min(ends), max(ends), first.whole and second.whole)


def _quotient(node: ir.Node, inputs: list[Span]) -> Span:
    first, second = inputs
    if second.low <= 0 <= second.high or not math.isfinite(second.low) or not math.isfinite(second.high):
        return ANY
    ends = [a / b for a in (first.low, first.high) for b in (second.low, second.high)]
    return Span(min(ends), max(ends))


def _selected(node: ir.Node, inputs: list[Span]) -> Span:
    return _union(inputs[1:])


RULES = {
    **dict.fromkeys(("Round", "Floor", "Ceil"), _rounded),
    "Sign": _sign,
    "Abs": _absolute,
    "Neg": _negated,
    "Relu": _relu,
    "Clip": _clip,
    "Max": _largest,
    "Min": _smallest,
    **dict.fromkeys(("Add", "Sub"), _sum),
    "Mul": _multiplied,
    "Div": _quotient,
    "Where": _selected,
}
"""Operator -> what its first output holds, from what its inputs hold."""
