"""A simulation as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from amct_onnx.common.console import Names, Part, Sentence, Text, rows_that_matter, table_of
from amct_onnx.common.warning_kinds import first_of_each_kind

if TYPE_CHECKING:
    from amct_onnx.device.facts import LayerFacts
    from amct_onnx.verbs.simulate.simulate import Simulation


COLUMNS = ("Operator", "Kernel", "Largest sum", "Worst case", "Largest met", "Saturated", "Ties")
NARROW_COLUMNS = ("Operator", "Worst case", "Largest met", "Saturated")
WIDE = 110
"""Columns of a terminal from which on all figures of a row fit."""


def parts(result: Simulation, width: int, *, everything: bool = False) -> Iterator[Part]:
    """The integer layers, or those that saturate most, warnings, and what is not public about the device."""
    columns = COLUMNS if width >= WIDE else NARROW_COLUMNS
    table = table_of("Layer", *columns, whole=columns)
    counts = {c.name: c for c in result.counts}

    def number(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    def share(part: int | None, whole: int | None) -> str:
        return f"{part / whole:.3%}" if part is not None and whole else "-"

    def saturation(layer: LayerFacts) -> float:
        count = counts.get(layer.name)
        return (count.saturated or 0) / count.values if count and count.values else 0

    rows, rest = rows_that_matter(result.layers, saturation, everything=everything)
    names = Names(layer.name for _, layer in rows)
    for _, layer in rows:
        count = counts.get(layer.name)
        cells = {
            "Operator": layer.op_type,
            "Kernel": layer.kernel,
            "Largest sum": number(layer.largest_sum),
            "Worst case": number(layer.worst_accumulator),
            "Largest met": number(count.largest_accumulator if count else None),
            "Saturated": share(count.saturated, count.values) if count else "-",
            "Ties": share(count.ties, count.values) if count else "-",
        }
        table.add_row(names.cell(layer.name), *(cells[c] for c in columns))
    yield table
    if rest:
        yield rest
    for warning in result.warnings if everything else first_of_each_kind(result.warnings, "with --all"):
        yield Sentence(f"Warning: {warning}")
    for sentence in result.undecided:
        yield Text(f"Not public: {sentence}")
    yield Text(result.summary())
    if result.inputs:
        yield Text(f"For the board: ais_bench --input {','.join(result.inputs)}")
