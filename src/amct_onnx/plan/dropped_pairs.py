"""Pairs that feed no int8 layer go when the user asks for it; a saturation that stands for a Relu or a Clip stays.

An exporter may remove a Relu or a Clip in front of a quantizer whose range ends there: the quantizer saturates instead.
Where the range begins or ends at 0 and what is quantized may lie beyond, or where it is narrower than that of its
integers, a Clip to the range takes the place of the pair. Other ranges are those of calibration.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.quantizer_nodes import is_op
from amct_onnx.plan.factors import Pair, Quantizer
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.quantizers import RANGES, clip_bounds

NOT_NEGATIVE = frozenset("Relu Sigmoid HardSigmoid Softmax Softplus Abs Exp Sqrt ReduceL2 ReduceSumSquare".split())
"""Operators whose results are never below 0."""
KEEPS_SIGN = frozenset("Add Mul Cast AveragePool GlobalAveragePool ReduceMean ReduceSum".split())
"""Operators whose results are not below 0 when their inputs are not; beside those that move elements."""
FULL_RANGES = frozenset((low, high) for low, high, _, _ in RANGES.values()) | {(-127, 127), (-32767, 32767)}


class DroppedPairs:
    """Drops pairs of one model.

    Args:
        grids: of the model.
        constants: of the model.
        fed: what the int8 layers quantize: names of the tensors and factors.
    """

    def __init__(self, grids: Grids, constants: ConstantEvaluator, fed: Collection[tuple[str, Quantizer]]) -> None:
        self._grids, self._constants, self._fed = grids, constants, fed

    def drop(self, pair: Pair, value: ir.Value) -> Pair:
        """The pair, or what becomes of it when it is dropped.

        Args:
            pair: of the plan.
            value: output of its DequantizeLinear; for a pair that has moved, the tensor that it quantizes.
        """
        quantizer = pair.quantizer
        if pair.elided or quantizer is None or not pair.source:
            return pair
        if any(source == pair.source and quantizer.same_grid(of) for source, of in self._fed):
            return pair
        made = self._grids.pair(value.producer())
        source = pair.source
        if made is not None:
            if pair.read_scale is not None and pair.read_scale != float(quantizer.scale_d):
                # its readers want the numbers behind the factor that the pair took along
                source = made[0].name or ""
            value, quantizer = made
        clip = self._saturation(value, quantizer)
        return replace(pair, source=source, quantizer=quantizer, read_scale=None, dropped=True, clip=clip)

    def _saturation(self, value: ir.Value, quantizer: Quantizer) -> tuple[float, float] | None:
        """The bounds of the Clip that a quantizer stands for; None for none."""
        if quantizer.small_float is not None:
            return None
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
                if np.any(np.asarray(pair[1].zero_point) > pair[1].low):
                    return False
            elif is_op(node, "Clip") and all(v is None or self._constants.is_constant(v) for v in node.inputs[1:]):
                if clip_bounds(node, self._constants)[0] < 0:
                    return False
            elif node.op_type in NOT_NEGATIVE:
                continue
            elif node.op_type in KEEPS_SIGN or data_inputs(node):
                positions = data_inputs(node) or ((0, 1) if node.op_type in ("Add", "Mul") else (0,))
                waiting += [v for i in positions if (v := node.inputs[i]) is not None]
            else:
                return False
        return True
