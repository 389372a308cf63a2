"""The report as a table on the screen."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amct_onnx.report import CONVERTED, ConversionReport

PLAIN_WIDTH = 10_000
"""Columns when the output is no terminal, so that names stay whole."""


def print_report(report: ConversionReport, file: TextIO) -> None:
    """Print one row per candidate layer, the remaining quantizers, warnings and the summary line."""
    console = Console(file=file, width=None if file.isatty() else PLAIN_WIDTH, highlight=False)
    table = Table("Layer", "Operator", "Granularity", "scale_d", "offset_d", "Verdict")
    for entry in report.layers:
        converted = entry.verdict == CONVERTED
        table.add_row(
            Text(entry.name, overflow="fold"),
            entry.op_type,
            entry.granularity or "-",
            f"{entry.scale_d:.9g}" if entry.scale_d is not None else "-",
            str(entry.offset_d) if entry.offset_d is not None else "-",
            Text("int8" if converted else f"float: {entry.reason}", style="green" if converted else "yellow"),
        )
    console.print(table)
    for entry in report.refused:
        console.print(Text(f"{entry.name}: {entry.detail}. {entry.remedy}"), soft_wrap=True)
    actions = Counter(r.action for r in report.residuals)
    if actions:
        console.print("Other quantizers: " + ", ".join(f"{n} {a}" for a, n in sorted(actions.items())))
    for warning in report.warnings:
        console.print(Text(f"Warning: {warning}"), soft_wrap=True)
    if report.check is not None:
        console.print(Text(report.check.summary()), soft_wrap=True)
    console.print(Text(report.summary()), soft_wrap=True)
