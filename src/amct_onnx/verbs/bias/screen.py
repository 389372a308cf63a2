"""The biases as a table on the screen."""

from __future__ import annotations

from typing import TextIO

from rich.table import Table

from amct_onnx.common.console import Text, console_for
from amct_onnx.plan.ledger import BiasError
from amct_onnx.verbs.bias.report import FLOAT, ROUNDED, UNREACHABLE, BiasReport

STYLES = {ROUNDED: "green", FLOAT: "dim", UNREACHABLE: "bold red"}


def print_biases(report: BiasReport, file: TextIO) -> None:
    """Print one row per candidate layer and the summary line."""
    console = console_for(file)
    table = Table("Layer", "Operator", "Bias", "Before (LSB)", "Before (steps)", "Channel", "After (steps)")
    for entry in report.layers:
        before = entry.before
        table.add_row(
            Text(entry.name, overflow="fold"),
            entry.op_type,
            Text(entry.action, style=STYLES.get(entry.action, "")),
            "-" if before is None or before.max_lsb is None else f"{before.max_lsb:.3f}",
            _steps(before),
            "-" if before is None else str(before.worst_channel),
            _steps(entry.after),
        )
    console.print(table)
    console.print(
        "Error of the bias in the worst channel. LSB: unit of the layer's output. Steps: units of scale_d * scale_w.",
        soft_wrap=True,
    )
    for entry in report.layers:
        if entry.detail:
            console.print(Text(f"{entry.name}: {entry.detail}"), soft_wrap=True)
    console.print(Text(report.summary()), soft_wrap=True)


def _steps(error: BiasError | None) -> str:
    return "-" if error is None else f"{error.max_steps:.3g}"
