"""The biases as a table on the screen."""

from __future__ import annotations

import math
from collections.abc import Iterator

from amct_onnx.common.console import Names, Part, Sentence, Text, rows_that_matter, table_of
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.plan.ledger import BiasError
from amct_onnx.verbs.bias.report import FLOAT, ROUNDED, UNREACHABLE, BiasEntry, BiasReport

STYLES = {ROUNDED: "green", FLOAT: "dim", UNREACHABLE: "bold red"}


COLUMNS = ("Operator", "Bias", "Before (LSB)", "Before (steps)", "Channel", "After (steps)")
NARROW_COLUMNS = ("Operator", "Bias", "Before (LSB)", "After (steps)")
WIDE = 100
"""Columns of a terminal from which on all figures of a row fit."""


def parts(report: BiasReport, width: int, *, everything: bool = False) -> Iterator[Part]:
    """One row per candidate layer, or those that matter most, and the summary line."""
    columns = COLUMNS if width >= WIDE else NARROW_COLUMNS
    table = table_of("Layer", *columns, whole=columns)
    rows, rest = rows_that_matter(report.layers, _weight, everything=everything)
    names = Names(entry.name for _, entry in rows)
    for _, entry in rows:
        before = entry.before
        cells: dict[str, str | Text] = {
            "Operator": entry.op_type,
            "Bias": Text(entry.action, style=STYLES.get(entry.action, "")),
            "Before (LSB)": "-" if before is None or before.max_lsb is None else f"{before.max_lsb:.3f}",
            "Before (steps)": _steps(before),
            "Channel": "-" if before is None else str(before.worst_channel),
            "After (steps)": _steps(entry.after),
        }
        table.add_row(names.cell(entry.name), *(cells[c] for c in columns))
    yield table
    if rest:
        yield rest
    yield (
        "Error of the bias in the worst channel. LSB: unit of the layer's output. Steps: units of scale_d * scale_w."
    )
    details = [f"'{entry.name}': {entry.detail}" for entry in report.layers if entry.detail]
    yield from map(Sentence, details if everything else first_of_each_kind(details, "with --all"))
    yield Text(report.summary())


def _weight(entry: BiasEntry) -> float:
    """Out of reach first, then by the error."""
    if entry.action == UNREACHABLE:
        return math.inf
    return 0 if entry.before is None else entry.before.max_lsb or entry.before.max_steps


def _steps(error: BiasError | None) -> str:
    return "-" if error is None else f"{error.max_steps:.3g}"
