"""The doctor's findings as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from amct_onnx.common.console import Part, Text, table_of
from amct_onnx.common.counted import counted
from amct_onnx.verbs.doctor.report import EDGES, EQUAL, MEANINGS, REFUSED, ROUNDING, WRONG, DoctorReport

STYLES = {EQUAL: "green", ROUNDING: "green", EDGES: "yellow", WRONG: "bold red", REFUSED: "dim"}


COLUMNS = ("Level", "Max error", "of largest", "in steps", "Mean steps", "Differing", "Verdict")
NARROW_COLUMNS = ("Max error", "in steps", "Differing", "Verdict")
WIDE = 110
"""Columns of a terminal from which on all figures of a row fit."""


def parts(report: DoctorReport, width: int) -> Iterator[Part]:
    """The CPU, one row for each setting, what the verdicts mean, and the summary."""
    cpu = report.cpu
    sums = {True: "16 bits: they saturate", False: "32 bits: they do not saturate", None: "unknown"}[cpu.saturates]
    yield Text(f"CPU: {cpu.model or cpu.machine} ({', '.join(cpu.flags) or 'no int8 instructions known'})")
    yield Text(f"Pairs of u8s8 products are added in {sums}")
    yield Text("Versions: " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))
    columns = COLUMNS if width >= WIDE else NARROW_COLUMNS
    table = table_of("Setting", *columns, whole=columns)
    for row in report.settings:
        cells: dict[str, str | Text] = dict.fromkeys(COLUMNS, "-")
        cells |= {"Level": row.level, "Verdict": Text(row.verdict, style=STYLES[row.verdict])}
        if row.max_error is not None:
            cells |= {
                "Max error": f"{row.max_error:.4g}",
                "of largest": f"{row.max_error_share:.3%}",
                "in steps": f"{row.max_error_steps:.3g}",
                "Mean steps": f"{row.mean_error_steps:.3g}",
                "Differing": f"{row.differing:.2%}",
            }
        table.add_row(row.name, *(cells[c] for c in columns))
    yield table
    met = {row.verdict for row in report.settings}
    for verdict, meaning in MEANINGS.items():
        if verdict in met:
            yield Text(f"{verdict}: {meaning}")
    for row in report.settings:
        if row.detail:
            yield Text(f"'{row.name}' refused: {row.detail}")
    layers = (
        f"Reference: {counted(report.exact_layers, 'layer')} in exact integers, {len(report.float_layers)} in float32"
    )
    feeds, values = counted(report.feeds, "feed"), counted(report.values, "value")
    yield Text(f"{layers}. Data: {report.data}, {feeds}, {values}")
    yield Text(report.summary())
