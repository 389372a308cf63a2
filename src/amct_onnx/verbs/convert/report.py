"""The report of a conversion: one entry for each candidate layer, and the files written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amct_onnx.common.shown_report import ShownReport
from amct_onnx.emit.fake_quant import FakeQuantWeights
from amct_onnx.plan.ledger import CONVERTED, REFUSED, FloatOperator, LayerEntry, ResidualEntry
from amct_onnx.plan.settings import ActMatMul, AsymmetricWeights, GemmPerChannel, ResidualQuantizers
from amct_onnx.verbs.check.report import CheckReport
from amct_onnx.verbs.convert.cost import Cost


def summary_of(layers: Sequence[LayerEntry]) -> str:
    """One line: how many layers became int8, how many stayed float and why."""
    if not layers:
        return "No layer is int8: the model's quantizers belong to no Conv, ConvTranspose, Gemm or MatMul."
    text = f"{sum(e.verdict == CONVERTED for e in layers)} of {len(layers)} candidate layers are int8"
    reasons = Counter(e.reason for e in layers if e.verdict == REFUSED)
    if reasons:
        text += "; float: " + ", ".join(f"{n} x {r}" for r, n in sorted(reasons.items(), key=str))
    return text + "."


@dataclass(frozen=True)
class Origin:
    """What the outputs were made from, and how: ``compare`` makes the same once more.

    Attributes:
        version, code: of this package, and a digest of its source: two checkouts may share a version.
        source_digest: SHA-256 of the source's graph and weights as read, see ``model_digest``.
        grid_weights, gemm_per_channel, keep_conv1d, asymmetric_weights, residual_quantizers, act_matmul,
            fake_quant_weights: the options, see ``convert_qat_model``.
        record: text of the record of factors that the float source was quantized with; None for a QAT model.
    """

    version: str
    code: str
    source_digest: str
    grid_weights: bool
    gemm_per_channel: GemmPerChannel
    keep_conv1d: bool
    asymmetric_weights: AsymmetricWeights
    residual_quantizers: ResidualQuantizers
    act_matmul: ActMatMul
    fake_quant_weights: FakeQuantWeights
    record: str | None = None


@dataclass(frozen=True, repr=False)
class ConversionReport(ShownReport):
    """The result of one conversion; ``to_dict`` is the ledger file's content.

    Attributes:
        model_file: path of the source.
        deploy_model: path of the model for ATC.
        fake_quant_model: path of the model for ONNX Runtime.
        ledger_file: path of the ledger.
        record_file: path of the record of factors; None when none was asked for.
        layers: one entry for each candidate layer, in graph order.
        residuals: quantizers that belong to no int8 layer.
        float_operators: other operators that read quantized numbers as floats.
        warnings: one sentence each.
        check: what ``amct_onnx check`` finds in the deploy model, for every chip.
        graph: the deploy model's nodes, as the vendor's accuracy comparison reads them.
        origin: what the outputs were made from; None for a report that no conversion made.
        cost: what the deploy model costs on a device.
    """

    SCHEMA_VERSION = 1
    SCREEN = "amct_onnx.verbs.convert.screen"
    JSON_ALSO = ("summary",)

    model_file: str
    deploy_model: str
    fake_quant_model: str
    ledger_file: str
    record_file: str | None
    layers: tuple[LayerEntry, ...]
    residuals: tuple[ResidualEntry, ...]
    float_operators: tuple[FloatOperator, ...] = ()
    warnings: tuple[str, ...] = ()
    check: CheckReport | None = None
    graph: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    origin: Origin | None = None
    cost: Cost | None = None

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
        affected = [e for e in self.layers if e.bias_error is not None and e.bias_error.matters]
        return tuple(sorted(affected, key=lambda e: -(e.bias_error.max_lsb or 0) if e.bias_error else 0))

    def summary(self) -> str:
        """One line: how many layers became int8, how many stayed float and why."""
        return summary_of(self.layers)
