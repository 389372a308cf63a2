"""compare: run source, fake-quant and deploy model side by side and say where accuracy went."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from amct_onnx.common.cpu_count import cpu_count
from amct_onnx.common.json_text import json_text
from amct_onnx.common.log import start_log
from amct_onnx.common.versions import DECIDING, library_versions
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.open_data import open_data
from amct_onnx.data.read_feeds import InputSpec, specs_of
from amct_onnx.data.source import DataSource
from amct_onnx.errors import DataError, OutputError, SettingError
from amct_onnx.files.output_files import check_targets, identities, in_real_folder
from amct_onnx.files.writable import check_writable
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.compare.explain.board import compare_board
from amct_onnx.verbs.compare.job import layer_lsb, make_job
from amct_onnx.verbs.compare.measure.batch import Batch, Runner
from amct_onnx.verbs.compare.measure.batches import cut_batches, samples_in
from amct_onnx.verbs.compare.measure.dask_cluster import run_on_dask
from amct_onnx.verbs.compare.measure.evaluator import read_evaluator
from amct_onnx.verbs.compare.measure.progress import Progress, Tell
from amct_onnx.verbs.compare.measure.sessions import ModelBytes
from amct_onnx.verbs.compare.measure.state import read_state
from amct_onnx.verbs.compare.measure.state_place import check_free, default_path, find_state, run_key
from amct_onnx.verbs.compare.measure.stop_request import stop_request
from amct_onnx.verbs.compare.present.assemble import Run, assemble
from amct_onnx.verbs.compare.present.html.write_html import render_html
from amct_onnx.verbs.compare.report import CompareReport
from amct_onnx.verbs.convert.read_ledger import read_ledger

DEFAULT_DEVICE = "a2"
DEFAULT_BATCH = 32
REPORT_SUFFIXES = (".html", ".json")
"""No data set holds such files, so a report may lie among the data."""


def compare(
    model: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    data: str | os.PathLike[str] | DataSource,
    *,
    labels: str | os.PathLike[str] | None = None,
    evaluator: str | os.PathLike[str] | None = None,
    devices: Sequence[str] = (DEFAULT_DEVICE,),
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    batch_size: int = DEFAULT_BATCH,
    threads: int | None = None,
    report: str | os.PathLike[str] | None = None,
    json_report: str | os.PathLike[str] | None = None,
    resume: bool = False,
    state_file: str | os.PathLike[str] | None = None,
    dask: str | None = None,
    board: str | os.PathLike[str] | None = None,
    progress: Tell | None = None,
) -> CompareReport:
    """Compare source, fake-quant and deploy model over a data set.

    Args:
        model: the source that was converted.
        save_path: where ``convert`` wrote its outputs.
        data: what ``open_data`` takes, or a source of one's own.
        labels: file with one whole number per sample for top-1 and top-5, or with what the evaluator takes.
        evaluator: Python file with ``evaluate(outputs, feeds, labels)``, see docs/compare.md.
        devices: profiles of the deploy model, see ``DeploySession``.
        input_shape: as ``open_data`` takes it.
        input_type: as ``open_data`` takes it.
        images: as ``open_data`` takes it.
        batch_size: samples that run at once when the model leaves the first dimension free; 0 runs feeds as they are.
        threads: of each session; None for the CPUs of this process, 1 on a cluster. Another number may change the last
            bit of float32 sums.
        report: HTML file to write.
        json_report: JSON file to write.
        resume: continue an interrupted run of the same models, settings and data from its state file.
        state_file: of an unfinished run; by default beside the ledger, under a name that no other run has. It goes when
            the run is complete.
        dask: address of the scheduler of a cluster that runs the batches.
        board: folder of a board's dumps, one folder for each feed, see docs/compare.md.
        progress: called with samples done and of all (None when unknown).

    Returns:
        The report. Ctrl-C ends the run after its batch; the report is then that of the samples so far
        (``complete=False``, and ``state_file`` is what ``resume`` continues).

    Raises:
        AmctError: One of its subclasses. What was run until then can be resumed.
        KeyboardInterrupt: Ctrl-C before the first batch was done, or twice.
    """
    start_log()
    if not devices or batch_size < 0 or (threads is not None and threads < 1):
        raise SettingError("Give at least one device, a batch_size of 0 or more, and threads of 1 or more.")
    ledger = read_ledger(save_path)
    if threads is None:
        threads = 1 if dask else cpu_count()
    text, file = (read_evaluator(evaluator), os.fspath(evaluator)) if evaluator is not None else ("", "")
    job, layers = make_job(model, ledger, devices, threads=threads, evaluator=text, evaluator_file=file)
    runner = Runner(job)
    inputs = specs_of(runner.source)
    source = data
    if not isinstance(source, DataSource):
        source = open_data(source, inputs, input_shape=input_shape, input_type=input_type, images=images, labels=labels)
    deciding = {"devices": ", ".join(job.devices), "batch_size": str(batch_size), "threads": str(threads)}
    settings = {
        **deciding,
        "labels": os.fspath(labels) if labels is not None else "none",
        "evaluator": os.fspath(evaluator) if evaluator is not None else "none",
        "input_shape": input_shape or "the model's",
        "input_type": input_type or "the model's",
        "images": "default" if images in (None, ImageOptions()) else str(images),
    }
    total = _total(data, source, inputs)
    read = [ledger.path, labels, evaluator, board, None if isinstance(data, DataSource) else data]
    inputs_read = [p for p in read if p is not None]
    models = [job.source, job.fake_quant, job.deploy]
    reports = [in_real_folder(p) for p in (report, json_report) if p is not None]
    _check_targets(reports, model, models, inputs_read)

    def all_batches() -> Iterator[Batch]:
        return cut_batches(source.labelled(), inputs, batch_size)

    batches = all_batches()
    first = next(batches, None)
    if first is None:
        raise DataError(f"{_named(data)}: holds no samples. Give at least one.")
    versions = {n: v for n, v in library_versions().items() if n in DECIDING}
    shaping = {n: settings[n] for n in ("input_shape", "input_type", "images")}
    key = run_key(job, {**deciding, **versions, **shaping}, (data, labels), total, first)
    state_path = default_path(ledger.path, key) if state_file is None else in_real_folder(state_file)
    kept = Progress(job, {**deciding, **versions}, key, state_path, total, progress or (lambda done, of: None))
    if resume:
        if state_file is None:
            kept.path, state = find_state(ledger.path, job, kept.settings, key, all_batches)
        else:
            state = read_state(kept.path, job, kept.settings)
        kept.start_from(state)
    _check_targets([kept.path, *reports], model, models, inputs_read)
    for target in reports:
        check_writable(target)
    try:
        check_writable(kept.path)
    except OutputError as error:
        if state_file is not None:
            raise
        kept.warn(error)
    if not resume:
        check_free(kept.path, job, kept.settings, key)
    with kept.saved_on_error():
        with stop_request() as stopped:
            checked = _checked(kept.missing(chain((first,), batches)), runner, labels is not None and not text)
            parts = run_on_dask(job, checked, dask, stopped) if dask else ((b, runner.run(b)) for b in checked)
            complete = kept.run(parts, stopped)
            on_board = None
            if board is not None and complete:
                units = {p.entry.name: layer_lsb(p)[0] for p in layers}
                on_board = compare_board(board, ledger.deploy_model, job.devices[0], units, source, stopped)
        if not complete and not kept.results.batches:
            raise KeyboardInterrupt
        run = Run(job, layers, ledger, runner, kept.results, first, complete, total, kept.seconds, on_board)
        settings["executor"] = f"Dask, {dask}" if dask else "this process"
        names = {"model": os.fspath(model), "save_path": os.fspath(save_path), "data": _named(data)}
        found = assemble(run, **names, settings=settings)
        if not complete and kept.saved:
            found = replace(found, state_file=os.fspath(kept.path))
        write_reports(found, report, json_report)
    if complete:
        kept.discard()
    return found


def write_reports(
    found: CompareReport, report: str | os.PathLike[str] | None, json_report: str | os.PathLike[str] | None
) -> None:
    """Write the page and the JSON file, both or none; None leaves one out.

    Raises:
        OutputError: They cannot be written.
    """
    content = found.to_dict()
    texts: dict[str | os.PathLike[str], str] = {}
    if report is not None:
        texts[report] = render_html(content)
    if json_report is not None:
        texts[json_report] = json_text(content)
    write_texts(texts)


def _checked(batches: Iterable[Batch], runner: Runner, classify: bool) -> Iterator[Batch]:
    """The batches; the first one shows whether labels can be used.

    Raises:
        DataError: No output holds a row of scores for each label; NaN in the data, which no quantizer defines.
    """
    for number, batch in enumerate(batches):
        for name, values in batch.feeds.items():
            if values.dtype.kind == "f" and values.size and np.isnan(values.min()):  # min keeps a NaN
                rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
                row = int(np.flatnonzero(np.isnan(rows).any(axis=1))[0])
                raise DataError(
                    f"Input '{name}' holds NaN (batch {batch.number}, sample {row} in it): what a quantizer makes of "
                    "it is not defined. Leave the sample out, or correct it."
                )
        if number == 0 and classify and not runner.classifies(batch):
            labels = batch.labels
            assert labels is not None
            raise DataError(
                f"The labels ({labels.dtype}{list(labels.shape[1:])} per sample) fit no output: top-1 needs one "
                "integer per sample and an output of shape [samples, classes]. Give --evaluator for another metric."
            )
        yield batch


def _total(data: str | os.PathLike[str] | DataSource, source: DataSource, inputs: Sequence[InputSpec]) -> int | None:
    """Samples in the data, None when that shows only at the end."""
    if source.count is not None:
        return source.count * (inputs[0].batch or 1)
    return None if isinstance(data, DataSource) else samples_in(data, inputs)


def _named(data: str | os.PathLike[str] | DataSource) -> str:
    return type(data).__name__ if isinstance(data, DataSource) else os.fspath(data)


def _check_targets(
    targets: Sequence[Path],
    model: str | os.PathLike[str],
    models: Sequence[ModelBytes],
    read: Sequence[str | os.PathLike[str]],
) -> None:
    """Nothing that the run reads may be overwritten; before a long run rather than after it.

    Raises:
        OutputError: A target cannot be written, or is an input.
    """
    files = identities(read).union(*(m.files for m in models))
    folders = {Path(p).resolve() for p in read if Path(p).is_dir()}
    for target in check_targets(targets, model, files):
        if folders & set(target.parents) and target.suffix not in REPORT_SUFFIXES:
            raise OutputError(f"{target}: lies among the data that are read. Choose another path for the output.")
