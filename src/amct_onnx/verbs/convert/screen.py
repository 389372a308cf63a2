"""The report as a table on the screen."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from rich.table import Table

from amct_onnx.common.console import Text, console_for
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.convert.report import ConversionReport

WIDE = 100
"""Columns from which on a row has room for all digits of a scale and for the granularity."""


def print_report(report: ConversionReport, file: TextIO) -> None:
    """Print one row per candidate layer, the remaining quantizers, warnings and the summary line."""
    console = console_for(file)
    console.print(_layers(report, wide=console.width >= WIDE))
    for entry in report.refused:
        console.print(Text(f"{entry.name}: {entry.detail}. {entry.remedy}"), soft_wrap=True)
    actions = Counter(r.action for r in report.residuals)
    if actions:
        console.print("Other quantizers: " + ", ".join(f"{n} {a}" for a, n in sorted(actions.items())), soft_wrap=True)
    kinds = Counter(f.op_type for f in report.float_operators)
    if kinds:
        console.print("Float operators that read quantized numbers: " + ", ".join(f"{n} {k}" for k, n in kinds.items()))
    if report.bias_matters:
        worst = ", ".join(f"{e.name} ({e.bias_error.max_lsb:.2f} LSB)" for e in report.bias_matters if e.bias_error)
        console.print(
            Text(f"Bias rounding matters in {worst}. 'amct_onnx bias' writes the source with the rounded biases."),
            soft_wrap=True,
        )
    for warning in report.warnings:
        console.print(Text(f"Warning: {warning}"), soft_wrap=True)
    if report.check is not None:
        console.print(Text(report.check.summary()), soft_wrap=True)
        rules = Counter(f.rule for s in (ERROR, WARNING) for f in report.check.of(s))
        if rules:
            console.print("Findings of the check: " + ", ".join(f"{n} x {r}" for r, n in rules.items()), soft_wrap=True)
    console.print(Text(report.summary()), soft_wrap=True)


def _layers(report: ConversionReport, *, wide: bool) -> Table:
    """One row per candidate layer; a verdict is never cut, or two would look alike."""
    table = Table("Layer", "Operator", *(["Granularity"] if wide else []), "scale_d", "offset_d")
    table.add_column("Verdict", no_wrap=True)
    for entry in report.layers:
        converted = entry.verdict == CONVERTED
        table.add_row(
            Text(entry.name, overflow="fold"),
            entry.op_type,
            *([entry.granularity or "-"] if wide else []),
            "-" if entry.scale_d is None else f"{entry.scale_d:.9g}" if wide else f"{entry.scale_d:.4g}",
            str(entry.offset_d) if entry.offset_d is not None else "-",
            Text("int8" if converted else f"float: {entry.reason}", style="green" if converted else "yellow"),
        )
    return table
