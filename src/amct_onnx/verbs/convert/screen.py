"""The report as a table on the screen."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.table import Table

from amct_onnx.common.console import Line, Names, Part, Sentence, Text, command_lines, rows_that_matter, table_of
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.plan.ledger import CONVERTED, LayerEntry
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.convert.report import ConversionReport

NAMED = 3
"""Layers that a sentence names."""
WIDE = 100
"""Columns from which on a row has room for all digits of a scale and for the granularity."""


def parts(report: ConversionReport, width: int, *, everything: bool = False) -> Iterator[Part]:
    """The layers, or those that matter most, the remaining quantizers, warnings and the summary line."""
    rows, rest = rows_that_matter(report.layers, _weight, everything=everything)
    yield _layers([entry for _, entry in rows], wide=width >= WIDE)
    if rest:
        yield rest
    reasons = [f"'{entry.name}': {entry.detail}. {entry.remedy}" for entry in report.refused]
    yield from map(Sentence, reasons if everything else first_of_each_kind(reasons))
    actions = Counter(r.action for r in report.residuals)
    if actions:
        yield "Other quantizers: " + ", ".join(f"{n} {a}" for a, n in sorted(actions.items()))
    kinds = Counter(f.op_type for f in report.float_operators)
    if kinds:
        yield "Float operators that read quantized numbers: " + ", ".join(f"{n} {k}" for k, n in kinds.items())
    if report.cost is not None:
        yield from map(Sentence, report.cost.sentences())
        for change in report.cost.changes:
            yield Sentence(f"  {change.gain()} would go: {change.advice}")
        if report.cost.exporter:
            yield Text(report.cost.exporter)
    if report.bias_matters:
        yield Sentence(_biases(report.bias_matters))
    for warning in report.warnings if everything else first_of_each_kind(report.warnings):
        yield Sentence(f"Warning: {warning}")
    if report.check is not None:
        yield Text(report.check.summary())
        rules = Counter(f.rule for s in (ERROR, WARNING) for f in report.check.of(s))
        if rules:
            yield "Findings of the check: " + ", ".join(f"{n} x {r}" for r, n in rules.items())
    yield Text(report.summary())


def _biases(entries: Sequence[LayerEntry]) -> str:
    """The layers whose bias rounding matters most, and how many more there are."""
    worst = [f"'{e.name}' ({e.bias_error.max_lsb:.2f} LSB)" for e in entries[:NAMED] if e.bias_error]
    more = f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
    return f"Bias rounding matters in {', '.join(worst)}{more}. 'amct_onnx bias' writes the source with rounded biases."


def next_steps(report: ConversionReport, save_path: str, width: int) -> Iterator[Part]:
    """The files that were written, and the commands that a user needs next.

    Args:
        report: of the conversion.
        save_path: as the user gave it.
        width: columns of the screen.
    """
    chip = report.check.soc_version if report.check is not None else None
    deploy = ("--model", _near(report.deploy_model))
    files = (report.deploy_model, report.fake_quant_model, report.ledger_file, report.record_file)
    yield Text("Wrote " + ", ".join(_near(f) for f in files if f) + ".")
    commands = {
        "See the check's findings:": ("check", *deploy, *(("--soc_version", chip) if chip else ())),
        "Compare the accuracy:": ("compare", "--model", report.model_file, "--save_path", save_path, "--data", "DATA"),
        "Compile:": ("atc", *deploy, "--soc_version", chip or "CHIP"),
    }
    if report.check is None or not report.check.findings:
        del commands["See the check's findings:"]
    for purpose, words in commands.items():
        yield purpose
        yield from map(Line, command_lines(("amct_onnx", *words), width))


def _near(path: str) -> str:
    """Seen from the current folder, when it lies there."""
    try:
        near = os.path.relpath(path)
    except OSError:  # the current folder was deleted
        return path
    return path if near.startswith(os.pardir) else near


def _weight(entry: LayerEntry) -> float:
    """Float layers first, then by the error of the bias."""
    if entry.verdict != CONVERTED:
        return math.inf
    return 0 if entry.bias_error is None else entry.bias_error.max_lsb or 0


def _layers(entries: Sequence[LayerEntry], *, wide: bool) -> Table:
    """One row per entry; a verdict is never cut, or two would look alike."""
    columns = ("Operator", *(["Granularity"] if wide else []), "scale_d", "offset_d", "Verdict")
    table = table_of("Layer", *columns, whole=columns)
    names = Names(entry.name for entry in entries)
    for entry in entries:
        converted = entry.verdict == CONVERTED
        table.add_row(
            names.cell(entry.name),
            entry.op_type,
            *([entry.granularity or "-"] if wide else []),
            "-" if entry.scale_d is None else f"{entry.scale_d:.9g}" if wide else f"{entry.scale_d:.4g}",
            str(entry.offset_d) if entry.offset_d is not None else "-",
            Text("int8" if converted else f"float: {entry.reason}", style="green" if converted else "yellow"),
        )
    return table
