"""What the quantizers behind a tensor let through: beyond their range all values are one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.errors import FactorError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.quantizer_nodes import QUANTIZE, integer_type, is_op
from amct_onnx.plan.output_scales import KEEPS_SCALE, STOPS
from amct_onnx.plan.quantizers import RANGES, raw_factors

MOVES = KEEPS_SCALE - {"Clip", "Cast"}
"""Operators that hand values on unchanged, or no larger."""


@dataclass(frozen=True)
class Passage:
    """What passes from a tensor to the quantizers that it reaches without passing a layer.

    Attributes:
        low, high: of the tensor's values, those between them; infinite when something but moves stands in between.
        width: of a difference of two values, the most.
    """

    low: float
    high: float
    width: float


def passage_of(value: ir.Value, constants: ConstantEvaluator) -> Passage | None:
    """None when a tensor reaches no quantizer.

    Args:
        value: a float tensor.
        constants: evaluator of the graph.
    """
    found: list[Passage] = []
    seen: set[tuple[ir.Value, bool, bool]] = set()
    waiting = [(value, True, False)]  # tensor, whether only moves stand before it, whether a Relu does
    while waiting:
        state = current, moved, positive = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        for use in current.uses():
            kind = use.node.op_type
            if is_op(use.node, QUANTIZE):
                limits = _limits(use.node, constants) if use.idx == 0 else None
                if limits is not None:
                    low, high = limits
                    least = max(low, 0.0) if positive else low
                    passed = (least, max(least, high)) if moved else (-math.inf, math.inf)
                    found.append(Passage(*passed, high - low))
            elif kind not in STOPS:
                kept = moved and kind in MOVES
                waiting += [(v, kept, kept and (positive or kind == "Relu")) for v in use.node.outputs]
    if not found:
        return None
    return Passage(min(p.low for p in found), max(p.high for p in found), max(p.width for p in found))


def _limits(node: ir.Node, constants: ConstantEvaluator) -> tuple[float, float] | None:
    """Smallest and largest float that a QuantizeLinear gives back; None when they cannot be told."""
    try:
        kind = integer_type(node, constants)
        scale, zero, _ = raw_factors(node, constants)
    except FactorError:  # it belongs to nothing that is converted
        return None
    if kind not in RANGES:
        return None
    smallest, largest, shift, _ = RANGES[kind]
    return float(((smallest + shift - zero) * scale).min()), float(((largest + shift - zero) * scale).max())
