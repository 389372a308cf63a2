"""What a conversion did: one entry for each candidate layer, and the files written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from amct_onnx.acceptance.report import CheckReport

LEDGER_SCHEMA_VERSION = 1

CONVERTED = "converted"
REFUSED = "refused"
REASONS = frozenset(
    "activation-not-quantized activation-per-channel activation-16-bit activation-scale-range activation-zero-point "
    "activation-by-activation float-type dynamic-quantization quantizer-not-integer weight-not-constant "
    "weight-not-quantized weight-type weight-asymmetric weight-blockwise weight-factors-differ weight-axis "
    "weight-scale-length matmul-weight-rank bias-not-constant bias-shape bias-overflow gemm-alpha gemm-per-channel "
    "deq-scale-range padding-unknown conv-transpose-3d conv-rank".split()
)
"""Why a layer stays float; docs/ledger.md lists them."""

BIAS_MATTERS = 0.125
"""From how many LSB of the layer's output on a bias error is named.

A quarter of the half LSB that the next quantizer's own rounding may err: below it fewer than one value in eight moves.
"""


@dataclass(frozen=True)
class BiasError:
    """What rounding a bias to int32 costs: |round(b / s) * s - b| with s = scale_d * scale_w.

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
        name: Node name, the same in the source and in both output models.
        op_type: ONNX operator type.
        verdict: ``"converted"`` or ``"refused"``.
        granularity: ``"per-tensor"`` or ``"per-channel"``; None when refused.
        scale_d: Activation scale (float32 value); None when refused.
        offset_d: Activation zero point in int8 range; None when refused.
        scale_w: Weight scales (float32 values), length 1 or the number of output channels.
        reason: Reason code of a refusal, for example ``"activation-not-quantized"``; else None.
        detail: One sentence: what was done, or the tensor or attribute at fault.
        remedy: What would make a refused layer convertible; empty when converted.
        deploy_nodes: Names of the layer's nodes in the deploy model.
        fake_quant_nodes: Names of the layer's nodes in the fake-quant model.
        source_input: Float tensor of the (normalised) source that the layer's quantizer reads; "" when refused.
        source_output: Float tensor that the layer and what was folded into it make.
        output_scale: Scale of the quantizer that reads source_output next; None when none does.
        bias_error: What rounding the bias costs; None without a bias or when refused.
    """

    name: str
    op_type: str
    verdict: str
    granularity: str | None = None
    scale_d: float | None = None
    offset_d: int | None = None
    scale_w: tuple[float, ...] = ()
    reason: str | None = None
    detail: str = ""
    remedy: str = ""
    deploy_nodes: tuple[str, ...] = ()
    fake_quant_nodes: tuple[str, ...] = ()
    source_input: str = ""
    source_output: str = ""
    output_scale: float | None = None
    bias_error: BiasError | None = None


@dataclass(frozen=True)
class ResidualEntry:
    """A quantizer that belongs to no converted layer, and what became of it.

    Attributes:
        tensor: Name of the float tensor that is quantized.
        action: ``"anti-quant"`` (AscendQuant + AscendAntiQuant), ``"quant"`` (AscendQuant at a graph
            output) or ``"float-chain"`` (Mul, Round, Clip in float: factors that int8 cannot hold).
        detail: One sentence.
    """

    tensor: str
    action: str
    detail: str = ""


def summary_of(layers: Sequence[LayerEntry]) -> str:
    """One line: how many layers became int8, how many stayed float and why."""
    text = f"{sum(e.verdict == CONVERTED for e in layers)} of {len(layers)} candidate layers are int8"
    reasons = Counter(e.reason for e in layers if e.verdict == REFUSED)
    if reasons:
        text += "; float: " + ", ".join(f"{n} x {r}" for r, n in sorted(reasons.items(), key=str))
    return text + "."


@dataclass(frozen=True)
class ConversionReport:
    """The result of one conversion; ``to_dict`` is the ledger file's content.

    ``check`` is what ``amct_onnx check`` finds in the deploy model, for every product.
    """

    model_file: str
    deploy_model: str
    fake_quant_model: str
    ledger_file: str
    record_file: str | None
    layers: tuple[LayerEntry, ...]
    residuals: tuple[ResidualEntry, ...]
    warnings: tuple[str, ...] = ()
    check: CheckReport | None = None

    @property
    def converted(self) -> tuple[LayerEntry, ...]:
        """The layers that became int8."""
        return tuple(e for e in self.layers if e.verdict == CONVERTED)

    @property
    def refused(self) -> tuple[LayerEntry, ...]:
        """The layers that stayed float, each with its reason."""
        return tuple(e for e in self.layers if e.verdict == REFUSED)

    @property
    def bias_matters(self) -> tuple[LayerEntry, ...]:
        """The layers whose bias rounding moves a noticeable share of the next quantizer's integers, worst first."""
        found = [e for e in self.layers if e.bias_error is not None and e.bias_error.matters]
        return tuple(sorted(found, key=lambda e: -(e.bias_error.max_lsb or 0) if e.bias_error else 0))

    def summary(self) -> str:
        """One line: how many layers became int8, how many stayed float and why."""
        return summary_of(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values; the schema is docs/ledger.md."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        # asdict would copy every scale of every channel
        values["layers"] = [
            {**vars(entry), "bias_error": None if entry.bias_error is None else dict(vars(entry.bias_error))}
            for entry in self.layers
        ]
        values["residuals"] = [dict(vars(entry)) for entry in self.residuals]
        values["check"] = None if self.check is None else self.check.to_dict()
        return {"schema_version": LEDGER_SCHEMA_VERSION, **values, "summary": self.summary()}
