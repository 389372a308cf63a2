"""Pairs that feed no int8 layer go when the user asks for it; a saturation that stands for a Relu or a Clip stays.

An exporter may remove a Relu or a Clip in front of a quantizer whose range ends there: the quantizer saturates instead.
Where the range begins or ends at 0 and what is quantized may lie beyond, or where it is narrower than that of its
integers, a Clip to the range takes the place of the pair. Other ranges are those of calibration.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.moves import data_inputs, fills
from amct_onnx.graph.quantizer_nodes import is_op
from amct_onnx.plan.factors import Pair, Quantizer
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.quantizers import RANGES, clip_bounds

NOT_NEGATIVE = frozenset("Relu Sigmoid HardSigmoid Softmax Softplus Abs Exp Sqrt ReduceL2 ReduceSumSquare".split())
"""Operators whose results are never below 0."""
KEEPS_SIGN = frozenset("Cast AveragePool GlobalAveragePool ReduceMean ReduceSum".split())
"""Operators whose results are not below 0 when their first input is not; beside those that move elements."""
FULL_RANGES = frozenset((low, high) for low, high, _, _ in RANGES.values()) | {(-127, 127), (-32767, 32767)}


class DroppedPairs:
    """Says what is left of dropped pairs of one model.

    Args:
        grids: of the model.
        constants: of the model.
    """

    def __init__(self, grids: Grids, constants: ConstantEvaluator) -> None:
        self._grids, self._constants = grids, constants

    def drop(self, pair: Pair, value: ir.Value, *, decided: bool) -> Pair:
        """The pair, or what becomes of it when it is dropped.

        Args:
            pair: of the plan.
            value: output of its DequantizeLinear.
            decided: whether ``plan_pairs`` has decided on it. The others cannot become AscendQuant and feed no layer.
        """
        made = self._grids.pair(value.producer())
        if made is None or not (pair.dropped or not decided):
            return pair
        return replace(pair, dropped=True, clip=self._saturation(*made))

    def _saturation(self, value: ir.Value, quantizer: Quantizer) -> tuple[float, float] | None:
        """The bounds of the Clip that a quantizer stands for; None for none."""
        held = self._grids.of(value)
        if quantizer.small_float is not None or (held is not None and held.same_grid(quantizer)):
            return None  # what lies on its grid has passed a pair of its range
        scale, zero = np.asarray(quantizer.scale), np.asarray(quantizer.zero_point)
        narrowed = (quantizer.low, quantizer.high) not in FULL_RANGES
        from_zero = bool(np.all(zero == quantizer.low)) and not self._is_not_negative(value)
        to_zero = bool(np.all(zero == quantizer.high))
        if not (narrowed or from_zero or to_zero):
            return None
        low, high = scale * (quantizer.low - zero), scale * (quantizer.high - zero)
        if scale.size == 1:
            return float(low[0]), float(high[0])
        if from_zero or to_zero:
            return (0.0, np.inf) if from_zero else (-np.inf, 0.0)
        return None  # one range for each channel: no Clip has it

    def _is_not_negative(self, value: ir.Value) -> bool:
        """Whether no number of a tensor can lie below 0, by the operators that make it."""
        waiting, seen = [value], set[ir.Value]()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if self._constants.is_constant(current):
                if np.any(np.asarray(self._constants.array(current)) < 0):
                    return False
                continue
            node = current.producer()
            if node is None or node.domain not in ("", "ai.onnx"):
                return False
            pair = self._grids.pair(node)
            if pair is not None:
                # kept or dropped, it lets none through: a pair that is left out instead has no reader but its like
                if pair[1].small_float is not None or np.any(np.asarray(pair[1].zero_point) > pair[1].low):
                    return False
            elif is_op(node, "Clip") and all(v is None or self._constants.is_constant(v) for v in node.inputs[1:]):
                if clip_bounds(node, self._constants)[0] < 0:
                    return False
            elif node.op_type not in NOT_NEGATIVE:
                inputs = self._sign_of(node)
                if not inputs:
                    return False
                waiting += inputs
        return True

    def _sign_of(self, node: ir.Node) -> list[ir.Value]:
        """The tensors without whose negative numbers a node makes none; none where it may make them by itself."""
        if node.op_type in ("Add", "Mul"):
            positions: tuple[int, ...] = (0, 1)
        elif fills(node):
            positions = (0, 2)
        elif node.op_type == "Div" and node.inputs[1] is not None and self._is_above_zero(node.inputs[1]):
            positions = (0,)
        elif node.op_type == "Cast" and not ir.DataType(node.attributes["to"].as_int()).is_floating_point():
            return []  # an integer type may wrap around
        else:
            positions = (0,) if node.op_type in KEEPS_SIGN else data_inputs(node)
        return [v for i in positions if i < len(node.inputs) and (v := node.inputs[i]) is not None]

    def _is_above_zero(self, value: ir.Value) -> bool:
        return self._constants.is_constant(value) and bool(np.all(np.asarray(self._constants.array(value)) > 0))
