"""How much of a layer's error quantization explains: a bound of the mean, from what enters the layer.

For one output channel, E|dy| <= sum_k |w_k| E|dx_k| + |bias error|, whatever the signs do. dx is what the layer's
quantizer makes of the error in front of it: rounding to a grid turns a small error into a whole step as rarely as the
error is small (E|Q(x + d) - Q(x)| = E|d| for x at a random place between two grid points), so its mean stays; values
that lie exactly between two grid points may move by a whole step however small the error is, so the share of ties comes
on top. A device adds what its float16 and its cut scales round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Float64
from amct_onnx.device.facts import weight_sums
from amct_onnx.device.profiles import PROFILES
from amct_onnx.graph.layers import layout_of
from amct_onnx.plan.ledger import CONVERTED, LayerEntry
from amct_onnx.verbs.compare.job import FAKE_QUANT

HALF_ULP16 = 2.0**-11
"""Relative rounding of float16."""
QUANTIZED_FLOAT16 = 2 * 127 * HALF_ULP16
"""In steps: AscendQuant rounds x and the product x * scale, at most 127 steps, to float16."""
OUTPUT_FLOAT16 = 4 * HALF_ULP16
"""Relative: the scale loses 13 bits (S19) or becomes float16, the product is rounded."""
FLOAT32_NOISE = 2.0**-18
"""Relative to the layer's RMS: float32 sums of up to some thousand products in another order."""


@dataclass(frozen=True)
class Noise:
    """Mean absolute error of a layer's output that is explained, in the output's unit.

    Attributes:
        inherited: by the error of the layer's input.
        ties: by values exactly between two integers.
        bias: by rounding the bias.
        device: by float16 and S19.
        rounding: by float32.
    """

    inherited: float = 0.0
    ties: float = 0.0
    bias: float = 0.0
    device: float = 0.0
    rounding: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.inherited + self.ties + self.bias + self.device + self.rounding


def gains(layers: tuple[LayerEntry, ...], deploy: ir.Model) -> dict[str, Float64]:
    """Sum |w| of each output channel, by layer: by how much a layer may enlarge its input's mean error."""
    nodes = {n.name or "": n for n in ir.traversal.RecursiveGraphIterator(deploy.graph)}
    found: dict[str, Float64] = {}
    for entry in layers:
        node = nodes.get(entry.name)
        if entry.verdict != CONVERTED or node is None or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        tensor = node.inputs[1].const_value
        if tensor is None:
            continue
        layout = layout_of(node)
        if layout is None:
            continue
        sums = weight_sums(layout, tensor.numpy())
        found[entry.name] = (sums.positive + sums.negative).astype(np.float64) * np.asarray(entry.scale_w, np.float64)
    return found


def explained(
    entry: LayerEntry,
    gain: float,
    model: str,
    *,
    input_error: float,
    tie_share: float,
    output_rms: float,
    bias_error: float,
) -> Noise:
    """What quantization explains of one converted layer's mean error.

    Args:
        entry: of the ledger.
        gain: mean of ``gains`` over the channels.
        model: key of the model.
        input_error: mean absolute error in front of the layer's quantizer.
        tie_share: of the quantizer's values.
        output_rms: of the source's tensor.
        bias_error: mean over the channels of |rounded bias - bias|.
    """
    scale = entry.read_scale or 0.0
    # an error in front of the quantizer counts in its units, what the layer makes of it in those that it reads
    gain_of_input = gain * scale / entry.scale_d if entry.scale_d else 0.0
    device = 0.0
    if model != FAKE_QUANT:
        profile = PROFILES[model.partition("@")[2]]
        if profile.half:
            device += gain * scale * QUANTIZED_FLOAT16
        if not profile.exact_dequantize:
            device += output_rms * OUTPUT_FLOAT16
    return Noise(gain_of_input * input_error, gain * scale * tie_share, bias_error, device, output_rms * FLOAT32_NOISE)
