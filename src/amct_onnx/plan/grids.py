"""Which tensors lie on the grid of a quantizer: behind its pair, and on through everything that only moves elements.

Two facts carry this module. Quantization is idempotent: a tensor on the grid may be quantized again with the same
factors without changing a bit. It is monotone: it commutes with every operator that selects or orders elements. So a
quantizer moves freely through those operators, in both directions.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Float32
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.moves import data_inputs, fills
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, is_op
from amct_onnx.plan.factors import Quantizer
from amct_onnx.plan.quantizers import clip_bounds, constant_grid, quantizer_of

ULP = 2.0**-22
"""Relative: two units in the last place of a float32."""
GRID_SIZE = 256
"""Numbers of a grid of 8 bits."""
CONDITIONAL = frozenset({"Relu", "Clip", "Cast"})
"""Order-preserving operators that keep to the grid under conditions."""


def moved_inputs(node: ir.Node, quantizer: Quantizer, constants: ConstantEvaluator) -> tuple[int, ...]:
    """Positions of the inputs that must lie on the grid for all outputs to lie on it; () when the node leaves it."""
    kind = node.op_type
    if kind not in CONDITIONAL or node.domain != "":
        return () if fills(node) and not _fills_on_grid(node, quantizer, constants) else data_inputs(node)
    if kind == "Cast":
        keeps = _keeps_floats(node)
    elif kind == "Relu":
        keeps = on_grid(0.0, quantizer)
    else:
        keeps = _clips_on_grid(*_bounds(node, constants), quantizer)
    return (0,) if keeps else ()


def _ends(quantizer: Quantizer) -> tuple[np.float32, np.float32]:
    low, high = (
        np.float32(limit - quantizer.offset_d) * quantizer.scale_d for limit in (quantizer.low, quantizer.high)
    )
    return low, high


def on_grid(number: float, quantizer: Quantizer) -> bool:
    """Whether a number is exactly one of the quantizer's values."""
    lowest, highest = _ends(quantizer)
    if quantizer.small_float is not None:
        return number == 0.0
    if not lowest <= number <= highest:
        return False
    steps = np.rint(np.float32(number) / quantizer.scale_d)
    return bool(steps * quantizer.scale_d == np.float32(number))


def _clips_on_grid(lower: float, upper: float, quantizer: Quantizer) -> bool:
    """Whether each bound of the Clip is a value of the grid, or never takes effect."""
    lowest, highest = _ends(quantizer)
    return bool(lower <= lowest or on_grid(lower, quantizer)) and bool(upper >= highest or on_grid(upper, quantizer))


def clip_limits(node: ir.Node, quantizer: Quantizer, constants: ConstantEvaluator) -> Float32:
    """The bounds of a Clip that take effect on the quantizer's numbers; float32, one dimension."""
    lowest, highest = _ends(quantizer)
    lower, upper = _bounds(node, constants)
    return np.asarray([n for n, counts in ((lower, lower > lowest), (upper, upper < highest)) if counts], np.float32)


def _keeps_floats(node: ir.Node) -> bool:
    """Whether a Cast gives a float type of 11 bits at least: an 8-bit grid survives them when quantized again."""
    return ir.DataType(node.attributes["to"].as_int()) in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def _bounds(node: ir.Node, constants: ConstantEvaluator) -> tuple[float, float]:
    if not all(v is None or constants.is_constant(v) for v in node.inputs[1:]):
        return np.nan, np.nan
    return clip_bounds(node, constants)


def _fills_on_grid(node: ir.Node, quantizer: Quantizer, constants: ConstantEvaluator) -> bool:
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    if fill is None:
        return on_grid(0.0, quantizer)
    return constants.is_constant(fill) and on_grid(float(np.asarray(constants.array(fill)).reshape(-1)[0]), quantizer)


class Grids:
    """Finds, and remembers, the quantizer on whose grid a tensor lies."""

    def __init__(self, constants: ConstantEvaluator) -> None:
        self._constants = constants
        self._pairs: dict[ir.Node, tuple[ir.Value, Quantizer] | None] = {}
        self._quantizer_of: dict[ir.Value, Quantizer | None] = {}

    def pair(self, node: ir.Node | None) -> tuple[ir.Value, Quantizer] | None:
        """The float tensor and the factors of the Q/DQ pair that ends in a DequantizeLinear; else None.

        Raises:
            FactorError: See quantizer_of.
        """
        if node is None or not is_op(node, DEQUANTIZE):
            return None
        if node not in self._pairs:
            self._pairs[node] = quantizer_of(node, self._constants)
        return self._pairs[node]

    def of(self, value: ir.Value | None) -> Quantizer | None:
        """The per-tensor quantizer on whose grid the tensor lies, or None."""
        if value is None:
            return None
        stack = [value]
        while stack:
            current = stack[-1]
            node = current.producer()
            if current in self._quantizer_of:
                stack.pop()
                continue
            pair = self.pair(node)
            if pair is not None:
                self._quantizer_of[stack.pop()] = pair[1]
                continue
            candidates = self._candidates(node)
            pending = [v for v in candidates if v not in self._quantizer_of]
            if pending:
                # no cycle can occur: the graph is sorted
                stack.extend(pending)
                continue
            self._quantizer_of[stack.pop()] = self._common(node, candidates)
        return self._quantizer_of[value]

    def _candidates(self, node: ir.Node | None) -> list[ir.Value]:
        """The tensors from which the node's outputs may get their grid, before the factors are known."""
        if node is None:
            return []
        positions = (0,) if node.op_type in CONDITIONAL and node.domain == "" else data_inputs(node)
        return [v for i in positions if (v := node.inputs[i]) is not None]

    def _common(self, node: ir.Node | None, candidates: list[ir.Value]) -> Quantizer | None:
        """The one quantizer of all candidates; constants beside them count when all their numbers lie on its grid."""
        quantizers = [self._quantizer_of[v] for v in candidates]
        first = next((q for q in quantizers if q is not None), None)
        if first is None:  # a table of constants, of which the node takes some
            tables = (constant_grid(v.producer(), self._constants) for v in candidates)
            first = next((q for q in tables if q is not None), None)
        if node is None or first is None or first.axis is not None:
            return None
        for value, other in zip(candidates, quantizers, strict=True):
            if not (other.same_grid(first) if other is not None else self._constant_on_grid(value, first)):
                return None
        return first if moved_inputs(node, first, self._constants) else None

    def _constant_on_grid(self, value: ir.Value, quantizer: Quantizer) -> bool:
        if not self._constants.is_constant(value) or quantizer.small_float is not None:
            return False
        numbers = np.unique(np.asarray(self._constants.array(value)))
        if numbers.size > GRID_SIZE or numbers.dtype.kind != "f":
            return False
        lowest, highest = _ends(quantizer)
        nearest = np.rint(numbers.astype(np.float32) / quantizer.scale_d) * quantizer.scale_d
        # a grid value that was multiplied in float64 lies one unit in the last place beside the float32 product
        near = np.abs(nearest - numbers) <= ULP * np.abs(numbers)
        return bool(np.all(near & (nearest >= lowest) & (nearest <= highest)))
