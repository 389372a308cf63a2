"""The doctor's findings as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from amct_onnx.common.console import Part, Text
from amct_onnx.verbs.doctor.report import EDGES, EQUAL, MEANINGS, REFUSED, ROUNDING, WRONG, DoctorReport

STYLES = {EQUAL: "green", ROUNDING: "green", EDGES: "yellow", WRONG: "bold red", REFUSED: "dim"}


def parts(report: DoctorReport, width: int) -> Iterator[Part]:
    """The CPU, one row for each setting, what the verdicts mean, and the summary."""
    cpu = report.cpu
    sums = {True: "16 bits: they saturate", False: "32 bits: they do not saturate", None: "unknown"}[cpu.saturates]
    yield Text(f"CPU: {cpu.model or cpu.machine} ({', '.join(cpu.flags) or 'no int8 instructions known'})")
    yield Text(f"Pairs of u8s8 products are added in {sums}")
    yield Text("Versions: " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))
    table = Table("Setting", "Level", "Max error", "of largest", "in steps", "Mean steps", "Differing", "Verdict")
    for row in report.settings:
        numbers = ("-",) * 5
        if row.max_error is not None:
            numbers = (
                f"{row.max_error:.4g}",
                f"{row.max_error_share:.3%}",
                f"{row.max_error_steps:.3g}",
                f"{row.mean_error_steps:.3g}",
                f"{row.differing:.2%}",
            )
        table.add_row(row.name, row.level, *numbers, Text(row.verdict, style=STYLES[row.verdict]))
    yield table
    met = {row.verdict for row in report.settings}
    for verdict, meaning in MEANINGS.items():
        if verdict in met:
            yield Text(f"{verdict}: {meaning}")
    for row in report.settings:
        if row.detail:
            yield Text(f"'{row.name}' refused: {row.detail}")
    layers = (
        f"Reference: {_counted(report.exact_layers, 'layer')} in exact integers, {len(report.float_layers)} in float32"
    )
    feeds, values = _counted(report.feeds, "feed"), _counted(report.values, "value")
    yield Text(f"{layers}. Data: {report.data}, {feeds}, {values}")
    yield Text(report.summary())


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
