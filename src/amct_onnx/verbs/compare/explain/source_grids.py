"""On which quantizer's grid each tensor of the source lies: what the other models may leave unrounded there.

Where every reader quantizes a tensor again with the same factors, the conversion leaves the pair before it out. The
tensor then holds other numbers there, which are the source's once they are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Bool
from amct_onnx.errors import FactorError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.opset import opset_of
from amct_onnx.plan.factors import Quantizer
from amct_onnx.plan.grids import Grids

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
    grids = Grids(ConstantEvaluator(opset_of(source)))
    found = {}
    names = {(n.name or "", i): v.name or "" for n in shown.graph for i, v in enumerate(n.outputs)}
    for node in source.graph:
        for index, value in enumerate(node.outputs):
            try:
                quantizer, pair = grids.of(value), grids.pair(node)
            except FactorError:  # it belongs to nothing that is converted
                continue
            if quantizer is not None and quantizer.axis is None and quantizer.small_float is None:
                grid = _grid(quantizer, (pair[0].name or "") if pair is not None else "")
                found[value.name or ""] = grid
                found[names.get((node.name or "", index), "")] = grid
    return found


def _grid(quantizer: Quantizer, read: str) -> Grid:
    return Grid(float(quantizer.scale[0]), int(quantizer.zero_point[0]), quantizer.low, quantizer.high, read)
