"""What a conversion wrote, made once more in memory: the form that the files beside a ledger must have."""

from __future__ import annotations

from dataclasses import dataclass, fields

import onnx_ir as ir

from amct_onnx.emit.deploy import DeployEmitter
from amct_onnx.emit.fake_quant import FakeQuantEmitter
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Pair, Reader
from amct_onnx.plan.ledger import ResidualEntry
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.verbs.convert.report import Origin
from amct_onnx.verbs.convert.residuals import residual_entries, tensor_names


@dataclass(frozen=True)
class Written:
    """What a conversion writes.

    Attributes:
        source: normalised.
        fake_quant, deploy: the models.
        left_out: the pairs that both models do not have, where any was dropped, so that they compute other numbers than
            the source; else empty.
        residuals: the ledger's rows of them.
        quantized: the inputs of int8 layers, which are quantized without these pairs.
    """

    source: ir.Model
    fake_quant: ir.Model
    deploy: ir.Model
    left_out: tuple[Pair, ...]
    quantized: frozenset[Reader]
    residuals: tuple[ResidualEntry, ...]


def written_again(model: ir.Model, origin: Origin) -> Written:
    """What the conversion of a source with the options of a ledger writes.

    Args:
        model: the source as it was read; it is used up.
        origin: of the ledger, which tells the options.

    Raises:
        AmctError: One of its subclasses: the source cannot be converted.
    """
    tensors = tensor_names(model)
    source = normalise(model)
    settings = PlanSettings(**{f.name: getattr(origin, f.name) for f in fields(PlanSettings)})
    plan = make_plan(source, settings)
    deploy = DeployEmitter(source, plan).rewrite()
    fake_quant = FakeQuantEmitter(source, plan, origin.fake_quant_weights).rewrite()
    pairs = (*plan.pairs, *plan.moved)
    left_out = tuple(p for p in pairs if p.elided or p.dropped) if any(p.dropped for p in pairs) else ()
    quantized = frozenset(r for s in plan.sites for r in s.quantized)
    return Written(source, fake_quant, deploy, left_out, quantized, residual_entries(plan, tensors))
