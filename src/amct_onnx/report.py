"""What a conversion did: one entry for each candidate layer, and the files written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

from amct_onnx.acceptance.report import CheckReport

LEDGER_SCHEMA_VERSION = 1

CONVERTED = "converted"
REFUSED = "refused"


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

    def summary(self) -> str:
        """One line: how many layers became int8, how many stayed float and why."""
        text = f"{len(self.converted)} of {len(self.layers)} candidate layers are int8"
        reasons = Counter(e.reason for e in self.refused)
        if reasons:
            text += "; float: " + ", ".join(f"{n} x {r}" for r, n in sorted(reasons.items(), key=str))
        return text + "."

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values; the schema is docs/ledger.md."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        # asdict would copy every scale of every channel
        values["layers"] = [dict(vars(entry)) for entry in self.layers]
        values["residuals"] = [dict(vars(entry)) for entry in self.residuals]
        values["check"] = None if self.check is None else self.check.to_dict()
        return {"schema_version": LEDGER_SCHEMA_VERSION, **values, "summary": self.summary()}
