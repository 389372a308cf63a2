"""OpenVINO's FakeQuantize (source: OpenVINO operation set 1)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.errors import FactorError
from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.normalise.foreign_quantizers.factors import check_range, factor_of
from amct_onnx.normalise.foreign_quantizers.grid import Grid, integral
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter, Rule


def fake_quantize(writer: QuantizerWriter, node: ir.Node) -> None:
    """FakeQuantize: x, input low and high, output low and high; levels."""
    levels = checked_attribute(node, "levels", 0)
    if levels < 2:
        raise FactorError(f"Node '{node.name}': levels is {levels}. Export the model again with at least 2.")
    ends = [factor_of(node, index, writer.constants) for index in range(1, 5)]
    pairs = []
    for low, high in (ends[:2], ends[2:]):
        check_range(node, low, high)
        step = (high - low) / (levels - 1)
        pairs.append((step.astype(np.float32), integral(-low / step)))
    (scale, zero), (out_scale, out_zero) = pairs
    writer.write(node, Grid(scale, zero, 0, levels - 1, out_scale, out_zero))


RULES: dict[str, Rule] = {"FakeQuantize": fake_quantize}
