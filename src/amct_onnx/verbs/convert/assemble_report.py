"""The report of a conversion, from its plan and what was emitted."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from amct_onnx.plan.factors import Plan
from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.verbs.check.report import CheckReport
from amct_onnx.verbs.convert.cost import Cost
from amct_onnx.verbs.convert.datadump_graph import Graph
from amct_onnx.verbs.convert.emitted import Emitted
from amct_onnx.verbs.convert.overflow import overflow_warnings
from amct_onnx.verbs.convert.report import ConversionReport, Origin
from amct_onnx.verbs.convert.residuals import residual_entries


@dataclass(frozen=True)
class Targets:
    """The files to write: deploy model, fake-quant model and ledger; the record, if asked for."""

    paths: tuple[Path, ...]
    record: Path | None


def int8_weights(plan: Plan) -> frozenset[str]:
    """Names of the initializers that hold the layers' int8 weights."""
    return frozenset(s.weight.name for s in plan.sites if s.weight is not None)


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
        layers=layer_rows(plan, deploy.nodes, fake_quant.nodes),
        residuals=residual_entries(plan, tensors),
        float_operators=plan.float_operators,
        warnings=warnings,
        check=deploy.verdict[0],
        graph=deploy.verdict[1],
        origin=origin,
        cost=deploy.verdict[2],
    )


def layer_rows(
    plan: Plan, deploy: Mapping[str, tuple[str, ...]], fake_quant: Mapping[str, tuple[str, ...]]
) -> tuple[LayerEntry, ...]:
    """The ledger's layers, with the names of their nodes in both models."""
    return tuple(
        replace(
            entry,
            deploy_nodes=deploy[entry.name] or _part(entry, plan),
            fake_quant_nodes=fake_quant[entry.name] or _part(entry, plan),
        )
        for entry in plan.entries
    )


def _part(entry: LayerEntry, plan: Plan) -> tuple[str, ...]:
    """The node of a float layer that has not the entry's name."""
    return (plan.parts[entry.name],) if entry.name in plan.parts else ()
