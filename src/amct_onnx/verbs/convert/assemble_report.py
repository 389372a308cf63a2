"""The report of a conversion, from its plan and what was emitted."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from amct_onnx.plan.factors import Pair, Plan, Quantizer
from amct_onnx.plan.ledger import ResidualEntry
from amct_onnx.verbs.check.report import CheckReport
from amct_onnx.verbs.convert.cost import Cost
from amct_onnx.verbs.convert.datadump_graph import Graph
from amct_onnx.verbs.convert.emitted import Emitted
from amct_onnx.verbs.convert.overflow import overflow_warnings
from amct_onnx.verbs.convert.report import ConversionReport, Origin


@dataclass(frozen=True)
class Targets:
    """The files to write: deploy model, fake-quant model and ledger; the record, if asked for."""

    paths: tuple[Path, ...]
    record: Path | None


def int8_weights(plan: Plan) -> frozenset[str]:
    """Names of the initializers that hold the layers' int8 weights."""
    return frozenset(s.weight.name for s in plan.sites)


def assemble_report(
    model_file: str,
    targets: Targets,
    plan: Plan,
    origin: Origin | None,
    deploy: Emitted[tuple[CheckReport, tuple[Graph, ...], Cost]],
    fake_quant: Emitted[None],
    tensors: Set[str],
) -> ConversionReport:
    """The report of one conversion.

    Args:
        model_file: the source, as the user named it.
        targets: the files that will be written.
        plan: of the conversion.
        origin: what a later conversion of the same source is recognised by; None when the source alone does not give
            the outputs again.
        deploy: the deploy model, with the check's findings, its graph for the vendor's dump comparison, and its cost.
        fake_quant: the fake-quant model.
        tensors: names of the source's tensors.
    """
    warnings = plan.warnings + overflow_warnings(plan)
    if int8_weights(plan) & deploy.composition.external_names:
        warnings += (
            "The int8 weights exceed what one ONNX file can hold: they are in "
            f"'{deploy.composition.data_path.name}', which must be in the folder of the deploy model "
            "when ATC compiles it.",
        )
    paths, record = targets.paths, targets.record
    return ConversionReport(
        model_file=model_file,
        deploy_model=str(paths[0]),
        fake_quant_model=str(paths[1]),
        ledger_file=str(paths[2]),
        record_file=None if record is None else str(record),
        layers=tuple(
            replace(
                entry,
                deploy_nodes=deploy.nodes[entry.name],
                fake_quant_nodes=fake_quant.nodes[entry.name],
            )
            for entry in plan.entries
        ),
        residuals=_residuals(plan, tensors),
        float_operators=plan.float_operators,
        warnings=warnings,
        check=deploy.verdict[0],
        graph=deploy.verdict[1],
        origin=origin,
        cost=deploy.verdict[2],
    )


def _residuals(plan: Plan, tensors: Set[str]) -> tuple[ResidualEntry, ...]:
    """One entry for each quantizer that is left, under the name of a tensor that the user's file holds."""

    def known(*names: str) -> str:
        return next((n for n in names if n in tensors), next((n for n in names if n), ""))

    consumed = {s.source for s in plan.sites}
    # a pair that only the conversion made, and removed again, is none of the user's
    left = [p for p in plan.pairs if not p.elided or not tensors.isdisjoint(p.names)]
    entries = [_residual(p, consumed, known(*p.names)) for p in (*left, *plan.moved)]
    for name, source, quantizer in plan.outputs:
        entry = ResidualEntry(known(source, name), "quant", f"graph output '{name}'")
        entries.append(_with_factors(entry, quantizer))
    return tuple(entries)


def _residual(pair: Pair, consumed: Collection[str], tensor: str) -> ResidualEntry:
    """What became of one pair.

    Args:
        pair: of the plan.
        consumed: names of the tensors that int8 layers quantize.
        tensor: under which the user knows it.
    """
    quantizer = pair.quantizer
    assert quantizer is not None
    if pair.elided:
        detail = "what reads it needs no other numbers than those in front of it give: removing it is exact"
        entry = ResidualEntry(tensor, "elided", detail)
    elif pair.dropped:
        detail = "it feeds no int8 layer: its readers get unrounded numbers"
        if pair.clip is not None:
            detail += ", in its range" if np.isfinite(pair.clip).all() else ", cut at 0"
        entry = ResidualEntry(tensor, "dropped", detail)
    elif quantizer.per_tensor_int8 and pair.source:
        entry = ResidualEntry(tensor, "anti-quant", "shared with an int8 layer" * (pair.source in consumed))
    else:
        small = quantizer.small_float
        detail = f"it rounds to {small.name}" if small is not None else "its factors do not fit one AscendQuant"
        entry = ResidualEntry(tensor, "float-chain", detail)
    read = pair.read_scale
    rescaled = read is not None and np.float32(read) != quantizer.scale_d
    return replace(_with_factors(entry, quantizer), read_scale=read if rescaled else None)


def _with_factors(entry: ResidualEntry, quantizer: Quantizer) -> ResidualEntry:
    """The entry with step and range of its quantizer."""
    step = min(quantizer.scale)
    if len(quantizer.scale) > 1 or quantizer.small_float is not None:
        return replace(entry, scale=step)
    low, high = (step * (limit - quantizer.offset_d) for limit in (quantizer.low, quantizer.high))
    return replace(entry, scale=step, low=low, high=high)
