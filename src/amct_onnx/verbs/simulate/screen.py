"""A simulation as a table on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.table import Table

from amct_onnx.common.console import Text, console_for, rows_that_matter

if TYPE_CHECKING:
    from amct_onnx.device.facts import LayerFacts
    from amct_onnx.verbs.simulate.simulate import Simulation


def print_simulation(result: Simulation, file: TextIO, *, everything: bool = False) -> None:
    """Print the integer layers, or those that saturate most, warnings, and what is not public about the device."""
    console = console_for(file)
    columns = ("Layer", "Operator", "Kernel", "Largest sum", "Worst case", "Saturated", "Ties", "Largest met")
    table = Table(*columns)
    counts = {c.name: c for c in result.counts}

    def share(part: int | None, whole: int | None) -> str:
        return f"{part / whole:.3%}" if part is not None and whole else "-"

    def saturation(layer: LayerFacts) -> float:
        count = counts.get(layer.name)
        return (count.saturated or 0) / count.values if count and count.values else 0

    rows, rest = rows_that_matter(result.layers, saturation, everything=everything)
    for _, layer in rows:
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
    if rest:
        console.print(rest)
    for warning in result.warnings:
        console.print(Text(f"Warning: {warning}"))
    for sentence in result.undecided:
        console.print(Text(f"Not public: {sentence}"))
    noun = "feed" if result.feeds == 1 else "feeds"
    console.print(Text(f"{result.feeds} {noun} on '{result.device}', results in {result.folder}"))
