"""A simulation as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from amct_onnx.common.console import Part, Text, rows_that_matter

if TYPE_CHECKING:
    from amct_onnx.device.facts import LayerFacts
    from amct_onnx.verbs.simulate.simulate import Simulation


def parts(result: Simulation, width: int, *, everything: bool = False) -> Iterator[Part]:
    """The integer layers, or those that saturate most, warnings, and what is not public about the device."""
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
    yield table
    if rest:
        yield rest
    for warning in result.warnings:
        yield Text(f"Warning: {warning}")
    for sentence in result.undecided:
        yield Text(f"Not public: {sentence}")
    yield Text(result.summary())
