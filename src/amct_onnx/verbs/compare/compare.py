"""compare: run source, fake-quant and deploy model side by side and say where accuracy went."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from amct_onnx.common.cpu_count import cpu_count
from amct_onnx.common.json_text import json_text
from amct_onnx.common.log import start_log
from amct_onnx.common.versions import DECIDING, library_versions
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.open_data import open_data
from amct_onnx.data.read_feeds import specs_of
from amct_onnx.data.source import DataSource
from amct_onnx.errors import AmctError, OutputError, SettingError
from amct_onnx.files.output_files import check_targets, identities, in_real_folder
from amct_onnx.files.writable import check_writable
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.compare.explain.beside_ledger import Beside, examine_files
from amct_onnx.verbs.compare.explain.board import compare_board
from amct_onnx.verbs.compare.explain.finer import without
from amct_onnx.verbs.compare.job import SOURCE, Job, make_job, units_of
from amct_onnx.verbs.compare.measure.batch import Batch, Runner
from amct_onnx.verbs.compare.measure.dask_cluster import run_on_dask
from amct_onnx.verbs.compare.measure.evaluator import read_evaluator
from amct_onnx.verbs.compare.measure.progress import Progress, Tell
from amct_onnx.verbs.compare.measure.sessions import ModelBytes
from amct_onnx.verbs.compare.measure.state_file import read_state
from amct_onnx.verbs.compare.measure.state_place import check_free, default_path, find_state, run_key
from amct_onnx.verbs.compare.measure.stop_request import stop_request
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.assemble import Run, assemble
from amct_onnx.verbs.compare.present.html.write_html import render_html
from amct_onnx.verbs.compare.report import CompareReport
from amct_onnx.verbs.compare.samples import Samples, checked
from amct_onnx.verbs.convert.read_ledger import Ledger, read_ledger

DEFAULT_DEVICE = "a2"
DEFAULT_BATCH = 32
REPORT_SUFFIXES = (".html", ".json")
"""No data set holds such files, so a report may lie among the data."""
DECIDES_FIGURES = ("devices", "batch_size", "threads")
SHAPES_DATA = ("input_shape", "input_type", "images")
"""Settings that tell an interrupted run from others, beside its models and data."""


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
    max_drop: float | None = None,
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
        max_drop: what the first metric may lose against the source before the models count as diverged: percentage
            points of top-1, else in the unit of the evaluator's first metric, of which more is better. None: as much as
            chance explains.
        progress: called with samples done and of all (None when unknown).

    Returns:
        The report. Ctrl-C ends the run after its batch; the report is then that of the samples so far
        (``complete=False``, and ``state_file`` is what ``resume`` continues).

    Raises:
        AmctError: One of its subclasses. What was run until then can be resumed.
        KeyboardInterrupt: Ctrl-C before the first batch was done, or twice.
    """
    start_log()
    _check_settings(devices, batch_size, threads, max_drop)
    ledger = read_ledger(save_path)
    if threads is None:
        threads = 1 if dask else cpu_count()
    text, file = (read_evaluator(evaluator), os.fspath(evaluator)) if evaluator is not None else ("", "")
    beside = examine_files(model, ledger)
    made = partial(
        make_job, model, ledger, devices, threads=threads, evaluator=text, evaluator_file=file, changed=beside.changed
    )
    job, layers, runner = _opened(beside, made)
    inputs = specs_of(runner.source)
    source = data
    if not isinstance(source, DataSource):
        source = open_data(source, inputs, input_shape=input_shape, input_type=input_type, images=images, labels=labels)
    samples = Samples(data, source, inputs, batch_size)
    settings = {
        "devices": ", ".join(job.devices),
        "batch_size": str(batch_size),
        "threads": str(threads),
        **_as_given(labels, evaluator, input_shape, input_type, images),
    }
    reports = [in_real_folder(p) for p in (report, json_report) if p is not None]
    read = [ledger.path, labels, evaluator, board, None if isinstance(data, DataSource) else data]
    refuse_inputs = partial(_check_targets, model, (job.source, job.fake_quant, job.deploy), _given(read))
    refuse_inputs(reports)
    first, batches = samples.begin()
    if beside.changed:
        with _named(beside):
            runner.job = job = without(job, runner.tensors(first), SOURCE)
    kept = _kept(job, settings, (data, labels), samples, first, ledger, state_file, progress)
    if resume:
        _take_up(kept, ledger, samples, state_file)
    refuse_inputs([kept.path, *reports])
    for target in reports:
        check_writable(target)
    _check_state_place(kept, named=state_file is not None, resumed=resume)
    with kept.saved_on_error():
        with stop_request() as stopped:
            missing = checked(kept.missing(batches), runner, labels is not None and not text)
            parts = run_on_dask(job, missing, dask, stopped) if dask else ((b, runner.run(b)) for b in missing)
            complete = kept.run(parts, stopped)
            on_board = None
            if board is not None and complete:
                on_board = compare_board(board, ledger.deploy_model, job.devices[0], units_of(layers), source, stopped)
        if not complete and not kept.results.batches:
            raise KeyboardInterrupt
        run = Run(
            job,
            layers,
            ledger,
            runner,
            kept.results,
            first,
            complete,
            samples.total,
            kept.seconds,
            beside,
            on_board,
            max_drop,
        )
        settings["executor"] = f"Dask, {dask}" if dask else "this process"
        names = {"model": os.fspath(model), "save_path": os.fspath(save_path), "data": samples.name}
        found = assemble(run, **names, settings=settings)
        if not complete and kept.saved:
            found = replace(found, state_file=os.fspath(kept.path))
        write_reports(found, report, json_report)
    if complete:
        kept.discard()
    return found


def _check_settings(devices: Sequence[str], batch_size: int, threads: int | None, max_drop: float | None) -> None:
    if max_drop is not None and not max_drop >= 0:
        raise SettingError("max_drop is negative or no number. Give the points that may be lost, 0 or more.")
    if not devices or batch_size < 0 or (threads is not None and threads < 1):
        raise SettingError("Give at least one device, a batch_size of 0 or more, and threads of 1 or more.")


def _opened(
    beside: Beside, made: Callable[..., tuple[Job, tuple[Paired, ...]]]
) -> tuple[Job, tuple[Paired, ...], Runner]:
    """The sessions; of files that were changed only the outputs, when their layers cannot be shown."""
    with _named(beside):
        try:
            job, layers = made()
            return job, layers, Runner(job)
        except AmctError:
            if not beside.changed:
                raise
            job, layers = made(outputs_only=True)
            return job, layers, Runner(job)


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


@contextmanager
def _named(beside: Beside) -> Iterator[None]:
    """A model that cannot be run since it was changed: the error names what was changed."""
    try:
        yield
    except AmctError as error:
        if not beside.changed:
            raise
        first = (*beside.fake_quant, *beside.deploy)[0].change
        raise type(error)(
            f"{error} The model beside the ledger is not what the conversion writes: {first.text}"
        ) from error


def _as_given(
    labels: str | os.PathLike[str] | None,
    evaluator: str | os.PathLike[str] | None,
    input_shape: str,
    input_type: str,
    images: ImageOptions | None,
) -> dict[str, str]:
    """What the user said of the data, as printed."""
    return {
        "labels": os.fspath(labels) if labels is not None else "none",
        "evaluator": os.fspath(evaluator) if evaluator is not None else "none",
        "input_shape": input_shape or "the model's",
        "input_type": input_type or "the model's",
        "images": "default" if images in (None, ImageOptions()) else str(images),
    }


def _given(paths: Sequence[str | os.PathLike[str] | None]) -> list[str | os.PathLike[str]]:
    return [p for p in paths if p is not None]


def _kept(
    job: Job,
    settings: Mapping[str, str],
    read: Sequence[str | os.PathLike[str] | DataSource | None],
    samples: Samples,
    first: Batch,
    ledger: Ledger,
    state_file: str | os.PathLike[str] | None,
    progress: Tell | None,
) -> Progress:
    """What will be known of the run, under the key and in the place of its state."""
    deciding = {n: settings[n] for n in DECIDES_FIGURES}
    deciding |= {n: v for n, v in library_versions().items() if n in DECIDING}
    shaping = {n: settings[n] for n in SHAPES_DATA}
    key = run_key(job, {**deciding, **shaping}, read, samples.total, first)
    path = default_path(ledger.path, key) if state_file is None else in_real_folder(state_file)
    return Progress(job, deciding, key, path, samples.total, progress or (lambda done, of: None))


def _take_up(kept: Progress, ledger: Ledger, samples: Samples, state_file: str | os.PathLike[str] | None) -> None:
    """Continue from the state that was named, or from the one beside the ledger that fits.

    Raises:
        DataError: There is none of this run.
    """
    if state_file is None:
        kept.path, state = find_state(ledger.path, kept.job, kept.settings, kept.key, samples.batches)
    else:
        state = read_state(kept.path, kept.job, kept.settings)
    kept.start_from(state)


def _check_state_place(kept: Progress, *, named: bool, resumed: bool) -> None:
    """See before the run whether its state can be written.

    Raises:
        OutputError: It cannot, and the user named the file; or the file is another run's.
    """
    try:
        check_writable(kept.path)
    except OutputError as error:
        if named:
            raise
        kept.warn(error)
    if not resumed:
        check_free(kept.path, kept.job, kept.settings, kept.key)


def _check_targets(
    model: str | os.PathLike[str],
    models: Sequence[ModelBytes],
    read: Sequence[str | os.PathLike[str]],
    targets: Sequence[Path],
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
