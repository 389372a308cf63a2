"""The scale in whose units the error of a tensor counts: that of the quantizer that reads it next."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.errors import FactorError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.quantizers import raw_factors

STOPS = frozenset({*LAYER_KINDS, "Shape", "Size", "ArgMax", "ArgMin"})
"""Operators whose results are not values of their input."""
KEEPS_SCALE = frozenset(
    "Flatten Identity MaxPool GlobalMaxPool Relu Reshape Slice Squeeze Transpose Unsqueeze Cast Clip Concat".split()
)
"""Operators that may stand between a DequantizeLinear and a graph output: they hand values on unchanged."""


def next_scale(value: ir.Value, constants: ConstantEvaluator) -> float | None:
    """The smallest scale of the quantizers that a tensor reaches without passing a layer; None when it reaches none.

    Args:
        value: a float tensor.
        constants: evaluator of the graph.
    """
    scales: list[float] = []
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for use in current.uses():
            if is_op(use.node, QUANTIZE):
                scales += [] if use.idx != 0 else _smallest(use.node, constants)
            elif use.node.op_type not in STOPS:
                waiting.extend(use.node.outputs)
    return min(scales, default=None)


def own_scale(value: ir.Value, constants: ConstantEvaluator) -> float | None:
    """The scale of the grid on which a tensor lies, looking back through what keeps values; None without one."""
    node = value.producer()
    while node is not None and node.op_type in KEEPS_SCALE and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or not is_op(node, DEQUANTIZE):
        return None
    return min(_smallest(node, constants), default=None)


def _smallest(node: ir.Node, constants: ConstantEvaluator) -> list[float]:
    try:
        return [float(raw_factors(node, constants)[0].min())]
    except FactorError:  # it belongs to nothing that is converted
        return []
