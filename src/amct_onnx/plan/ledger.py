"""The verdict on every candidate layer and every other quantizer, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from amct_onnx.graph.reasons import Reason

LayerVerdict = Literal["converted", "refused"]
CONVERTED, REFUSED = get_args(LayerVerdict)
Granularity = Literal["per-tensor", "per-channel"]
ResidualAction = Literal["elided", "anti-quant", "quant", "float-chain", "dropped"]

BIAS_MATTERS = 0.125
"""Smallest bias error that is named, in LSB of the layer's output.

A quarter of the half LSB that the next quantizer's own rounding may err: below it fewer than one value in eight moves.
"""


def is_part(name: str) -> bool:
    """Whether an entry is a part of one of the user's nodes, see ``graph.edit.known_as``."""
    return name.endswith(")") and " (" in name


@dataclass(frozen=True)
class BiasError:
    """The error of rounding a bias to int32: |round(b / s) * s - b| with s = scale_d * scale_w.

    Attributes:
        max_steps: worst channel in units of s; at most 0.5 unless the quotient leaves float32's integers.
        max_lsb, mean_lsb: worst channel and mean in units of the layer's output scale; None when nothing quantizes it.
        worst_channel: the channel of max_lsb, or of max_steps when that is None.
    """

    max_steps: float
    max_lsb: float | None
    mean_lsb: float | None
    worst_channel: int

    @property
    def matters(self) -> bool:
        """Whether it moves a noticeable share of the layer's integers."""
        return self.max_lsb is not None and self.max_lsb >= BIAS_MATTERS


@dataclass(frozen=True)
class LayerEntry:
    """The verdict on one candidate layer.

    Attributes:
        name: Node name, the same in the source and in both output models. Of a node that was made in the place of one
            of the user's, that one's and the part in brackets: ``attention (scores)``.
        op_type: ONNX operator type.
        verdict: ``"converted"`` or ``"refused"``.
        granularity: ``"per-tensor"`` or ``"per-channel"``; None when refused.
        scale_d: Scale with which the activation is quantized (float32 value); None when refused.
        read_scale: Scale that the layer takes the integers to have; another than scale_d where a quantizer with
            scale_d stands in front of the layer's own and makes the same integers. None when refused.
        offset_d: Activation zero point in int8 range; None when refused.
        scale_w: Weight scales (float32 values), length 1 or the number of output channels. Of a MatMul of two
            activations, the scale that it takes the integers of its second input to have.
        reason: Reason code of a refusal, for example ``"activation-not-quantized"``, see docs/reasons.md; else None.
        detail: One sentence: what was done, or the tensor or attribute at fault.
        remedy: What would make a refused layer convertible; empty when converted.
        deploy_nodes: Names of the layer's nodes in the deploy model; empty when refused, unless it is several nodes.
        fake_quant_nodes: Names of the layer's nodes in the fake-quant model.
        source_input: Float tensor of the (normalised) source that the layer's quantizer reads; "" when refused.
        second_input: Float tensor that the quantizer of a second activation reads; "" without one.
        second_scale_d: Scale with which that activation is quantized, with the zero point 0; None without one.
        source_output: Float tensor that the layer and what was folded into it make.
        output_scale: Scale of the quantizer that reads source_output next; None when none does.
        bias_error: Error of rounding the bias; None without a bias or when refused.
    """

    name: str
    op_type: str
    verdict: LayerVerdict
    granularity: Granularity | None = None
    scale_d: float | None = None
    read_scale: float | None = None
    offset_d: int | None = None
    scale_w: tuple[float, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    remedy: str = ""
    deploy_nodes: tuple[str, ...] = ()
    fake_quant_nodes: tuple[str, ...] = ()
    source_input: str = ""
    second_input: str = ""
    second_scale_d: float | None = None
    source_output: str = ""
    output_scale: float | None = None
    bias_error: BiasError | None = None


@dataclass(frozen=True)
class FloatOperator:
    """An operator that reads quantized numbers as floats.

    Attributes:
        name: node name.
        op_type: ONNX operator type.
        tensor: what it reads.
    """

    name: str
    op_type: str
    tensor: str


@dataclass(frozen=True)
class ResidualEntry:
    """A quantizer that belongs to no converted layer, and what became of it.

    Attributes:
        tensor: Name of the float tensor that is quantized.
        action: ``"anti-quant"`` (AscendQuant + AscendAntiQuant), ``"quant"`` (AscendQuant at a graph
            output), ``"float-chain"`` (Mul, Round, Clip in float: factors that int8 cannot hold), ``"elided"`` (exact)
            or ``"dropped"`` (asked for: its readers get unrounded numbers).
        detail: One sentence.
        scale: Its step: the smallest one, when it has several. None where no factors are known.
        read_scale: Step of the floats that AscendAntiQuant makes, when it is another.
        low, high: Range that it lets through, as floats; None where it has several scales.
    """

    tensor: str
    action: ResidualAction
    detail: str = ""
    scale: float | None = None
    read_scale: float | None = None
    low: float | None = None
    high: float | None = None
