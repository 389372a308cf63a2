"""On which quantizer's grid each tensor of the source lies: what the other models may leave unrounded there.

Where every reader quantizes a tensor again with the same factors, the conversion leaves the pair before it out. The
tensor then holds other numbers there, which are the source's once they are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Bool
from amct_onnx.errors import FactorError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import QUANTIZE, is_op
from amct_onnx.plan.factors import Quantizer
from amct_onnx.plan.grids import Grids, moved_inputs

NEAR_TIE, NEAR_TIE16 = 2.0**-22, 2.0**-10
"""Of a quotient: how near a tie two roundings of it, in float32 or float16, may fall on two sides."""


@dataclass(frozen=True)
class Grid:
    """One per-tensor quantizer.

    Attributes:
        scale, offset, low, high: of it; the tensor's integers.
        read: name of the float tensor that it reads when it stands directly in front of the tensor, or "".
    """

    scale: float
    offset: int
    low: int
    high: int
    read: str = ""

    def round(self, values: Array) -> Array:
        """Quantized by the reciprocal of the scale, as AscendQuant does, and dequantized; float32."""
        factor = np.float32(self.scale)
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.rint(values.astype(np.float32) * (np.float32(1) / factor))
            return np.asarray(np.clip(steps, self.low - self.offset, self.high - self.offset) * factor)

    def near_ties(self, values: Array, *, half: bool) -> Bool:
        """Where two ways to compute the quotient may round to two sides."""
        with np.errstate(invalid="ignore", over="ignore"):
            quotient = np.abs(values.astype(np.float64) / self.scale)
            width = (NEAR_TIE16 if half else NEAR_TIE) * np.maximum(quotient, 1)
            return np.asarray(np.abs(quotient - np.floor(quotient) - 0.5) <= width)


def source_grids(source: ir.Model, shown: ir.Model) -> dict[str, Grid]:
    """The grid of each tensor that has one, by its name in ``shown``.

    Args:
        source: normalised.
        shown: the source in the form that runs; nodes of the same name give the same tensor.
    """
    constants = ConstantEvaluator(opset_of(source))
    grids = Grids(constants)
    alike = _rounded_alike(source, grids, constants)
    found = {}
    names = {(n.name or "", i): v.name or "" for n in shown.graph for i, v in enumerate(n.outputs)}
    for node in source.graph:
        for index, value in enumerate(node.outputs):
            try:
                quantizer, pair = grids.of(value) or alike.get(value), grids.pair(node)
            except FactorError:  # it belongs to nothing that is converted
                continue
            if quantizer is not None and quantizer.axis is None and quantizer.small_float is None:
                grid = _grid(quantizer, (pair[0].name or "") if pair is not None else "")
                found[value.name or ""] = grid
                found[names.get((node.name or "", index), "")] = grid
    return found


def _rounded_alike(source: ir.Model, grids: Grids, constants: ConstantEvaluator) -> dict[ir.Value, Quantizer]:
    """Tensors that moves bring together of several grids, and that all readers round to one of these."""
    found: dict[ir.Value, Quantizer] = {}
    moved = [(n, v) for n in source.graph if data_inputs(n) for v in n.outputs if not v.is_graph_output()]
    try:
        for _, value in reversed(moved):
            behind = [_rounds(use.node, use.idx, found, grids, constants) for use in value.uses()]
            if grids.of(value) is None and behind and behind[0] is not None and len(set(behind)) == 1:
                found[value] = behind[0]
        for node, value in moved:
            # what none of them rounded before is compared as it is
            if value in found and not any(
                v in found or (v is not None and found[value] == grids.of(v))
                for v in (node.inputs[i] for i in data_inputs(node))
            ):
                del found[value]
    except FactorError:  # a quantizer that belongs to nothing that is converted
        return {}
    return found


def _rounds(
    node: ir.Node, index: int, behind: Mapping[ir.Value, Quantizer], grids: Grids, constants: ConstantEvaluator
) -> Quantizer | None:
    """The one quantizer that rounds all that a reader gets; None where something else is done with it."""
    if is_op(node, QUANTIZE) and index == 0:
        pairs = {p[1] if (p := grids.pair(use.node)) is not None else None for use in node.outputs[0].uses()}
    else:
        pairs = {behind.get(v) for v in node.outputs}
    quantizer = next(iter(pairs), None)
    if quantizer is None or len(pairs) > 1 or is_op(node, QUANTIZE):
        return quantizer if len(pairs) == 1 else None
    return quantizer if index in moved_inputs(node, quantizer, constants) else None


def _grid(quantizer: Quantizer, read: str) -> Grid:
    return Grid(float(quantizer.scale[0]), int(quantizer.zero_point[0]), quantizer.low, quantizer.high, read)
