"""The report as a table on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

import rich.text
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from amct_onnx.acceptance.report import ERROR, WARNING
from amct_onnx.plain_text import escaped, shown
from amct_onnx.report import CONVERTED, ConversionReport

if TYPE_CHECKING:
    from amct_onnx.device.simulate import Simulation

PLAIN_WIDTH = 10_000
"""Columns when the output is no terminal, so that names stay whole."""


class Text(rich.text.Text):
    """What a model's author, or another stranger, wrote: nothing in it commands the terminal."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(shown(text), *arguments, **options)


class _SafeConsole(Console):
    """Escapes what is no ``Text``, too, if only after the layout."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))


def console_for(file: TextIO) -> Console:
    """Where a report is printed, without markup."""
    return _SafeConsole(
        file=file, width=None if file.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False
    )


def print_report(report: ConversionReport, file: TextIO) -> None:
    """Print one row per candidate layer, the remaining quantizers, warnings and the summary line."""
    console = console_for(file)
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
            console.print("Of the check: " + ", ".join(f"{n} x {r}" for r, n in rules.items()), soft_wrap=True)
    console.print(Text(report.summary()), soft_wrap=True)


def print_simulation(result: Simulation, file: TextIO) -> None:
    """Print one row per integer layer, warnings, and what stays undecided about the device."""
    console = console_for(file)
    columns = ("Layer", "Operator", "Kernel", "Largest sum", "Worst case", "Saturated", "Ties", "Largest met")
    table = Table(*columns)
    counts = {c.name: c for c in result.counts}

    def share(part: int | None, whole: int | None) -> str:
        return f"{part / whole:.3%}" if part is not None and whole else "-"

    for layer in result.layers:
        count = counts.get(layer.name)
        table.add_row(
            Text(layer.name, overflow="fold"),
            layer.op_type,
            layer.kernel,
            *("-" if n is None else f"{n:,}" for n in (layer.largest_sum, layer.worst_accumulator)),
            share(count.saturated, count.values) if count else "-",
            share(count.ties, count.values) if count else "-",
            f"{count.largest_accumulator:,}" if count else "-",
        )
    console.print(table)
    for warning in result.warnings:
        console.print(Text(f"Warning: {warning}"), soft_wrap=True)
    for sentence in result.undecided:
        console.print(Text(f"Not public: {sentence}"), soft_wrap=True)
    noun = "feed" if result.feeds == 1 else "feeds"
    console.print(Text(f"{result.feeds} {noun} on '{result.device}', results in {result.folder}"), soft_wrap=True)
