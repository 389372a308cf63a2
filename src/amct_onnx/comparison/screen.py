"""A comparison as tables on the screen; the numbers are those of the JSON report."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amct_onnx.comparison.figures import figure
from amct_onnx.comparison.report import DIVERGES, EQUAL, NOISE, BoardResult, CompareReport, Difference, Metric
from amct_onnx.report import CONVERTED
from amct_onnx.screen import PLAIN_WIDTH

STYLES = {EQUAL: "bold green", NOISE: "bold green", DIVERGES: "bold red"}
NOTHING = "-"
COLUMNS = ("Max error", "Max LSB", "Mean LSB", "Off by 1 LSB", "Cosine", "SQNR dB")


def print_comparison(report: CompareReport, file: TextIO) -> None:
    """Print accuracy, outputs, layers and settings, and last the verdict, which then stands above the prompt."""
    console = Console(file=file, width=None if file.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(_models(report))
    console.print(_outputs(report))
    console.print(_layers(report))
    if report.board is not None:
        console.print(_board(report.board))
    notes: dict[str, list[str]] = {}
    for model in report.models[1:]:  # what is said of the source stands in the verdict
        for note in model.notes:
            notes.setdefault(note, []).append(model.key)
    for note, keys in notes.items():
        console.print(Text(f"{', '.join(keys)}: {note}"), soft_wrap=True)
    console.print(Text(_settings(report)), soft_wrap=True)
    total = f" of {report.samples_total:,}" if report.samples_total not in (None, report.samples) else ""
    console.print(Text(f"{report.samples:,}{total} samples of {report.data} in {report.seconds:.1f} s"))
    console.print(Text(report.verdict.headline, style=STYLES[report.verdict.level]), soft_wrap=True)
    for sentence in report.verdict.sentences:
        console.print(Text(sentence), soft_wrap=True)
    for advice in report.verdict.advice:
        console.print(Text(f"What to do: {advice}"), soft_wrap=True)


def _settings(report: CompareReport) -> str:
    """The pinned options that all sessions share, and those of the comparison."""
    pins: dict[str, str] = {}
    for model in report.models:
        pins.update(model.settings or {})
    pinned = ", ".join(f"{k}={v}" for k, v in pins.items())
    own = ", ".join(f"{k} {v}" for k, v in report.settings.items())
    return f"Pinned in every session: {pinned}. Settings: {own}."


def _models(report: CompareReport) -> Table:
    names = list(dict.fromkeys(m.name for model in report.models for m in model.metrics))
    table = Table("Model", "File", "Form", *names)
    for model in report.models:
        metrics = {m.name: m for m in model.metrics}
        file = Text(model.file, overflow="fold")
        table.add_row(model.key, file, model.form, *(_metric(metrics.get(n)) for n in names))
    return table


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return NOTHING
    if metric.total is None:
        return f"{metric.value:.6g}"
    return f"{metric.value:.2%} ({metric.right:,} of {metric.total:,})"


def _outputs(report: CompareReport) -> Table:
    table = Table("Output", "Model", *COLUMNS, "Same top-1")
    for output in report.outputs:
        for difference in output.differences:
            same = difference.top1_agreement
            last = NOTHING if same is None else f"{same:.2%}"
            table.add_row(Text(output.name, overflow="fold"), difference.model, *_figures(difference), last)
    return table


def _layers(report: CompareReport) -> Table:
    first = {d.index for d in report.divergences}
    table = Table("#", "Layer", "Verdict", "Model", *COLUMNS, "Saturated", "Ties")
    for index, layer in enumerate(report.layers):
        counts = {c.model: c for c in layer.counts}
        name = Text(layer.name, overflow="fold", style="bold yellow" if index in first else "")
        what = "int8" if layer.verdict == CONVERTED else f"float: {layer.reason}"
        for position, d in enumerate(layer.differences):
            head = (str(index + 1), name, what) if position == 0 else ("", "", "")
            count = counts.get(d.model)
            shares = [NOTHING] * 2
            if count is not None and count.values:
                shares = [f"{count.saturated / count.values:.3%}", f"{count.ties / count.values:.3%}"]
            table.add_row(*head, d.model, *_figures(d), *shares)
        if not layer.differences:
            table.add_row(str(index + 1), name, what, "not compared", *[NOTHING] * (len(COLUMNS) + 2))
    return table


def _figures(d: Difference) -> list[str]:
    sqnr = "exact" if d.exact else _number(d.sqnr_db, "{:.1f}")
    shown = [NOTHING if v is None else figure(v) for v in (d.max_abs, d.max_lsb, d.mean_lsb)]
    if d.not_finite:
        shown[0] += f" ({d.not_finite:,} not finite)"
    return [*shown, _number(d.share_lsb, "{:.3%}"), _number(d.cosine, "{:.7f}"), sqnr]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _board(board: BoardResult) -> Table:
    table = Table("Board: layer", "Tensor", "Feeds", *COLUMNS)
    for tensor in board.tensors:
        table.add_row(
            Text(tensor.layer, overflow="fold"), tensor.tensor, str(tensor.feeds), *_figures(tensor.difference)
        )
    return table
