"""A comparison as tables on the screen; the numbers are those of the JSON report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from rich.table import Table

from amct_onnx.common.console import Names, Part, Sentence, Text, rows_that_matter, table_of
from amct_onnx.common.counted import counted
from amct_onnx.common.plain_text import shown
from amct_onnx.common.short_names import LIMIT, middle_out
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.errors import on_command_line
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.present.fitted import laid_out
from amct_onnx.verbs.compare.report import (
    DIVERGES,
    EQUAL,
    INCOMPLETE,
    NOISE,
    BoardResult,
    CompareReport,
    Difference,
    FlippedSamples,
    Metric,
    Verdict,
)

STYLES = {EQUAL: "bold green", NOISE: "bold green", INCOMPLETE: "bold yellow", DIVERGES: "bold red"}
NOTHING = "-"
NOT_JUDGED = "Not judged: "
"""How a sentence of the verdict begins that says what is open."""
COLUMNS = ("Max error", "Max LSB", "Mean LSB", "Off by 1 LSB", "Cosine", "SQNR dB")
NARROW_COLUMNS = ("Mean LSB", "Off by 1 LSB", "SQNR dB")
NARROWEST_COLUMNS = ("Mean LSB",)
NAMED_FLIPS = 3
"""Samples with changed answers told on the screen; the reports list a hundred."""
VERDICT_ROWS = 5
"""Lines of the verdict on a terminal."""
WIDE = 145
"""Columns of a terminal from which on all figures of a row stay legible."""
NARROW = 78
"""Below it, all but one figure go: names would."""


def parts(
    report: CompareReport, width: int, *, verbose: bool = False, page: str | None = None, everything: bool = False
) -> Iterator[Part]:
    """Accuracy, outputs and layers, and last the verdict, which then stands above the prompt.

    Args:
        report: of the comparison.
        width: columns of the screen.
        verbose: also print the notes, the pinned settings, and every sentence of the verdict.
        page: the HTML report, when one was written.
        everything: print all layers, not only those that matter most.
    """
    wide, columns = width >= WIDE, _columns(width)
    if wide or any(model.metrics for model in report.models):
        yield _models(report, wide=wide)
    yield _outputs(report, columns)
    layers, more = _layers(report, columns, everything=everything)
    yield layers
    if more:
        yield more
    if report.board is not None:
        yield _board(report.board, columns)
    if report.flips is not None and report.flips.count:
        yield Text(_changed_answers(report.flips))
    if verbose:
        yield from map(Sentence, _details(report, everything=everything))
    total = f" of {report.samples_total:,}" if report.samples_total not in (None, report.samples) else ""
    noun = "sample" if (report.samples_total or report.samples) == 1 else "samples"
    more = "" if wide else f"; more figures on {WIDE} columns"
    count = f"{report.samples:,}{total} {noun} of "
    data = middle_out(report.data, max(LIMIT // 2, width - len(count)))
    yield Text(f"{count}{data} in {report.seconds:.1f} s{more}")
    yield from _verdict(report, width, verbose=verbose, page=page)


def _verdict(report: CompareReport, width: int, *, verbose: bool, page: str | None) -> Iterator[Part]:
    """The last thing on the screen, ``VERDICT_ROWS`` lines at most: headline, where, why, what to do, the rest."""
    rest = [] if verbose else ["all findings with -v"]
    rest.append(f"everything in {page}" if page else "everything with --report FILE.html or --json")
    brief = f"See {'' if verbose else '-v, '}{page or '--report, --json'}."
    if not on_command_line():
        rest, brief = ["all findings in verdict.sentences", "everything in to_dict()"], "See verdict, to_dict()."
    wrong = [report.layers[d.index] for d in report.divergences if d.is_fault]
    nodes = (n for layer in wrong for n in (*layer.source_nodes, *layer.deploy_nodes))
    names = dict.fromkeys([*(layer.name for layer in report.layers), *(n.name for n in nodes)])
    for index, lines in enumerate(verdict_lines(report.verdict, names, width, f"See also: {', '.join(rest)}.", brief)):
        for line in lines:
            yield Text(line, style="" if index else STYLES[report.verdict.level])


def verdict_lines(
    verdict: Verdict, names: Iterable[str], width: int, rest: str, brief_rest: str = ""
) -> list[list[str]]:
    """The lines of each sentence, the headline's first; none for a sentence that others leave no room.

    Args:
        verdict: of the report.
        names: of layers and nodes.
        width: columns of the screen.
        rest: the last sentence.
        brief_rest: the same where lines are short.
    """
    texts = [shown(t) for t in (verdict.headline, *verdict.brief, rest)]
    return laid_out(texts, width, VERDICT_ROWS, names, shown(brief_rest))


def _changed_answers(flips: FlippedSamples) -> str:
    """How many answers changed, and the first of them."""
    named = "; ".join(
        f"sample {s.index} (label {s.label}): " + ", ".join(f"{m} {a}" for m, a in s.answers.items())
        for s in flips.samples[:NAMED_FLIPS]
    )
    more = f"; and {flips.count - NAMED_FLIPS:,} more" if flips.count > NAMED_FLIPS else ""
    noun = "sample changes its" if flips.count == 1 else "samples change their"
    return f"{flips.count:,} {noun} answer: {named}{more}."


def _details(report: CompareReport, *, everything: bool) -> list[str]:
    """What a user asks for when the verdict is not enough."""
    notes: dict[str, list[str]] = {}
    for model in report.models[1:]:  # what is said of the source stands in the verdict
        for note in model.notes:
            notes.setdefault(note, []).append(model.key)
    lines = [f"{', '.join(keys)}: {note}" for note, keys in notes.items()]
    lines.append(_settings(report))
    told = list(report.verdict.sentences)
    if not everything:  # figures of two devices are of one kind, and both are wanted
        open_questions = [s for s in told if s.startswith(NOT_JUDGED)]
        told = [s for s in told if not s.startswith(NOT_JUDGED)]
        told += first_of_each_kind(open_questions, "with --all")
    return [*lines, *told, *(f"What to do: {a}" for a in report.verdict.advice)]


def _settings(report: CompareReport) -> str:
    """The pinned options that all sessions share, and those of the comparison."""
    pins: dict[str, str] = {}
    for model in report.models:
        pins.update(model.settings or {})
    pinned = ", ".join(f"{k}={v}" for k, v in pins.items())
    own = ", ".join(f"{k} {v}" for k, v in report.settings.items())
    return f"Pinned in every session: {pinned}. Settings: {own}."


def _models(report: CompareReport, *, wide: bool) -> Table:
    names = list(dict.fromkeys(m.name for model in report.models for m in model.metrics))
    table = table_of("Model", *(("File", "Form") if wide else ()), *names, whole=("Model", "Form"))
    for model in report.models:
        metrics = {m.name: m for m in model.metrics}
        origin = (Text(model.file, overflow="fold"), model.form) if wide else ()
        table.add_row(model.key, *origin, *(_metric(metrics.get(n)) for n in names))
    return table


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return NOTHING
    if metric.total is None:
        return f"{metric.value:.6g}"
    return f"{metric.value:.2%} ({metric.right:,} of {metric.total:,})"


def _outputs(report: CompareReport, shown: tuple[str, ...]) -> Table:
    columns = ("Model", *shown, "Same top-1")
    table = table_of("Output", *columns, whole=columns)
    names = Names(output.name for output in report.outputs)
    for output in report.outputs:
        for difference in output.differences:
            same = difference.top1_agreement
            last = NOTHING if same is None else f"{same:.2%}"
            table.add_row(names.cell(output.name), difference.model, *_figures(difference, shown), last)
    return table


def _layers(report: CompareReport, shown: tuple[str, ...], *, everything: bool) -> tuple[Table, str]:
    """The table, and what to say of the rows that it leaves out."""
    first = {d.index for d in report.divergences}
    wide = shown == COLUMNS
    columns = (*shown, *(("Saturated", "Ties") if wide else ()))
    table = table_of("#", "Layer", "Verdict", "Model", *columns, whole=("#", "Model", *columns))

    def weight(index: int) -> float:
        errors = (d.mean_lsb or 0 for d in report.layers[index].differences)
        return math.inf if index in first else max(errors, default=0)

    rows, rest = rows_that_matter(range(len(report.layers)), weight, everything=everything)
    names = Names(report.layers[index].name for index, _ in rows)
    for index, _ in rows:
        layer = report.layers[index]
        counts = {c.model: c for c in layer.counts}
        name = names.cell(layer.name, "bold yellow" if index in first else "")
        what = Text("int8" if layer.verdict == CONVERTED else f"float: {layer.reason}")
        for position, d in enumerate(layer.differences):
            head = (str(index + 1), name, what) if position == 0 else ("", "", "")
            count = counts.get(d.model)
            shares = [NOTHING] * 2 if wide else []
            if wide and count is not None and count.values:
                shares = [f"{count.saturated / count.values:.3%}", f"{count.ties / count.values:.3%}"]
            table.add_row(*head, d.model, *_figures(d, shown), *shares)
        if not layer.differences:
            table.add_row(str(index + 1), name, what, "not compared", *[NOTHING] * len(columns))
    return table, rest


def _columns(width: int) -> tuple[str, ...]:
    """The figures that leave room for names."""
    return COLUMNS if width >= WIDE else NARROW_COLUMNS if width >= NARROW else NARROWEST_COLUMNS


def _figures(d: Difference, columns: tuple[str, ...]) -> list[str]:
    sqnr = "exact" if d.exact else _number(d.sqnr_db, "{:.1f}")
    shown = [NOTHING if v is None else figure(v) for v in (d.max_abs, d.max_lsb, d.mean_lsb)]
    if d.not_finite:
        shown[0] += f" ({d.not_finite:,} not finite)"
    if d.other_size:
        shown[0] += f" (without {counted(d.other_size, 'batch', 'batches')} of another size)"
    values = (*shown, _number(d.share_lsb, "{:.3%}"), _number(d.cosine, "{:.7f}"), sqnr)
    named = dict(zip(COLUMNS, values, strict=True))
    return [named[c] for c in columns]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _board(board: BoardResult, shown: tuple[str, ...]) -> Table:
    columns = ("Tensor", "Feeds", *shown)
    table = table_of("Board: layer", *columns, whole=columns)
    names = Names(tensor.layer for tensor in board.tensors)
    for tensor in board.tensors:
        table.add_row(
            names.cell(tensor.layer),
            tensor.tensor,
            str(tensor.feeds),
            *_figures(tensor.difference, shown),
        )
    return table
