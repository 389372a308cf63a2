"""One comparison from its models to its report: open, run what is missing, write; interrupted runs keep a state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from amct_onnx.common.log import start_log
from amct_onnx.common.versions import DECIDING, library_versions
from amct_onnx.data.input_spec import specs_of
from amct_onnx.data.open_data import open_data
from amct_onnx.data.source import DataSource
from amct_onnx.errors import AmctError, DataError, OutputError, SettingError
from amct_onnx.files.output_files import check_targets, identities, in_real_folder
from amct_onnx.files.writable import check_writable
from amct_onnx.verbs.compare.explain.beside_ledger import Beside, examine_files
from amct_onnx.verbs.compare.explain.board import compare_board
from amct_onnx.verbs.compare.job import DEPLOY, FAKE_QUANT, Job, make_job, units_of
from amct_onnx.verbs.compare.measure.batch import Batch, Runner
from amct_onnx.verbs.compare.measure.dask_cluster import run_on_dask
from amct_onnx.verbs.compare.measure.evaluator import read_evaluator
from amct_onnx.verbs.compare.measure.progress import Progress
from amct_onnx.verbs.compare.measure.state_file import read_state
from amct_onnx.verbs.compare.measure.state_place import check_free, default_path, find_state, run_key
from amct_onnx.verbs.compare.measure.stop_request import stop_request
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.assemble import Run, assemble
from amct_onnx.verbs.compare.recorded_source import quantized_source
from amct_onnx.verbs.compare.report import BoardResult, CompareReport
from amct_onnx.verbs.compare.request import Request
from amct_onnx.verbs.compare.runnable import run_what_can
from amct_onnx.verbs.compare.samples import Samples, checked
from amct_onnx.verbs.convert.read_ledger import Ledger, read_ledger

REPORT_SUFFIXES = (".html", ".json")
"""No data set holds such files, so a report may lie among the data."""
DECIDES_FIGURES = ("devices", "batch_size", "threads")
SHAPES_DATA = ("input_shape", "input_type", "images")
"""Settings that tell an interrupted run from others, beside its models and data."""


@dataclass(frozen=True)
class _Opened:
    """What is compared, ready to run.

    Attributes:
        ledger: of the conversion.
        beside: what was changed in the models since it.
        job: what is measured.
        layers: source and model layers side by side.
        runner: the sessions.
        source: the data.
        samples: the data, in batches.
        first: the first batch.
        batches: all batches, the first among them.
    """

    ledger: Ledger
    beside: Beside
    job: Job
    layers: tuple[Paired, ...]
    runner: Runner
    source: DataSource
    samples: Samples
    first: Batch
    batches: Iterator[Batch]


def run_comparison(request: Request, write: Callable[[CompareReport], None]) -> CompareReport:
    """Make the comparison that was asked for.

    Args:
        request: its arguments.
        write: writes the report to the files of the request.

    Returns:
        The report, already written.

    Raises:
        AmctError: One of its subclasses; a state that can be resumed has been written where there was one to keep.
        KeyboardInterrupt: Ctrl-C before the first batch was done, or twice.
    """
    start_log()
    _check_settings(request)
    ledger = read_ledger(request.save_path)
    with quantized_source(request.model, ledger) as (path, files):
        return _compared(replace(request, quantized=path, model_files=files), ledger, write)


def _compared(request: Request, ledger: Ledger, write: Callable[[CompareReport], None]) -> CompareReport:
    opened = _open(request, ledger)
    kept = _kept(opened, request)
    with kept.saved_on_error():
        with stop_request() as stopped:
            request.stage("Comparing")
            complete, on_board = _measured(kept, opened, request, stopped)
        if not complete and not kept.results.batches:
            raise KeyboardInterrupt
        request.stage(_diagnosing(complete))
        found = _assembled(kept, opened, request, complete, on_board)
        request.stage("Writing")
        write(found)
    if complete:
        kept.discard()
    return found


def _open(request: Request, ledger: Ledger) -> _Opened:
    """The models' sessions and the data's first batch, with nothing in the way of the reports."""
    request.stage("Reading the models, converting once more")
    evaluator = read_evaluator(request.evaluator)
    beside = examine_files(request.quantized, ledger)
    ledger = beside.ledger
    made = partial(
        make_job,
        request.quantized,
        ledger,
        request.devices,
        threads=request.threads,
        evaluator=evaluator,
        float_model=request.float_model,
        canonical=beside.source,
    )
    request.stage("Preparing the models")
    doubtful = beside.changed or bool(beside.not_judged)
    stage = partial(_staged, request)
    if not doubtful:
        try:
            job, layers = made()
            runner = Runner(job, stage)
        except AmctError:
            doubtful = True
    if doubtful:  # the source alone: what it cannot be given or run is an error, what the others cannot is a finding
        job, layers = made(left_out=dict.fromkeys((FAKE_QUANT, DEPLOY), "not yet"))
        runner = Runner(job, stage)
    source, samples = _data(request, runner)
    _refuse_inputs(request, ledger, job, request.reports)
    first, batches = samples.begin()
    if request.max_drop is not None and request.evaluator is None and first.labels is None:
        raise SettingError("--max_drop limits the loss of a metric, and there is none. Give labels or an evaluator.")
    if doubtful:
        job, layers, runner = run_what_can(made, ledger, runner, first, stage)
    return _Opened(ledger, beside, job, layers, runner, source, samples, first, batches)


def _staged(request: Request, what: str) -> None:
    request.stage(what.capitalize())


def _data(request: Request, runner: Runner) -> tuple[DataSource, Samples]:
    inputs = specs_of(runner.source)
    source = request.data
    if not isinstance(source, DataSource):
        source = open_data(
            source,
            inputs,
            input_shape=request.input_shape,
            input_type=request.input_type,
            images=request.images,
            labels=request.labels,
            aipp=request.aipp,
        )
    return source, Samples(request.data, source, inputs, request.batch_size)


def _measured(
    kept: Progress, opened: _Opened, request: Request, stopped: Callable[[], bool]
) -> tuple[bool, BoardResult | None]:
    """Run what is missing; whether all of it ran, and what a board's dumps say."""
    job, runner = opened.job, opened.runner
    counted = request.labels is not None and request.evaluator is None
    missing = checked(kept.missing(opened.batches), runner, counted)
    if request.dask:
        complete = kept.run(run_on_dask(job, missing, request.dask, stopped), stopped)
    else:
        complete = kept.run(((b, runner.run(b)) for b in missing), stopped)
    if request.board is None or not complete or job.cannot_run(DEPLOY):
        return complete, None
    units = units_of(opened.layers)
    return complete, compare_board(
        request.board, opened.ledger.deploy_model, job.devices[0], units, opened.source, stopped
    )


def _diagnosing(complete: bool) -> str:
    return "Diagnosing" if complete else "Stopped, diagnosing what was run"


def _assembled(
    kept: Progress, opened: _Opened, request: Request, complete: bool, on_board: BoardResult | None
) -> CompareReport:
    run = Run(
        request.quantized,
        opened.job,
        opened.layers,
        opened.ledger,
        opened.runner,
        kept.results,
        opened.first,
        opened.samples.batches if complete else lambda: (opened.first,),  # a run that was stopped reads no more
        complete,
        opened.samples.total,
        kept.seconds,
        opened.beside,
        on_board,
        request.max_drop,
        stage=lambda what: request.stage(f"{_diagnosing(complete)}: {what}"),
    )
    settings = request.settings(opened.job.devices)
    settings["executor"] = f"Dask, {request.dask}" if request.dask else "this process"
    names = {
        "model": os.fspath(request.model),
        "save_path": os.fspath(request.save_path),
        "data": opened.samples.name,
    }
    found = assemble(run, **names, settings=settings)
    return replace(found, state_file=os.fspath(kept.path)) if not complete and kept.saved else found


def _check_settings(request: Request) -> None:
    if request.max_drop is not None and (isinstance(request.max_drop, str) or not request.max_drop >= 0):
        raise SettingError(f"--max_drop is {request.max_drop}. Give the points that may be lost, 0 or more.")
    if request.board is not None and not Path(request.board).is_dir():
        raise DataError(f"{os.fspath(request.board)}: no such folder. Give the folder of the dumps.")
    if request.aipp is not None and isinstance(request.data, DataSource):
        raise SettingError("--aipp is for data that are opened here, and a source makes its own feeds. Leave it out.")
    if not request.devices or request.batch_size < 0 or request.threads < 1:
        raise SettingError("Give at least one --device, a --batch_size of 0 or more, and --threads of 1 or more.")
    if request.dask and request.evaluator is not None and not isinstance(request.evaluator, (str, os.PathLike)):
        raise SettingError("The evaluator is an object of this process, and a cluster runs others. Give a Python file.")


def _kept(opened: _Opened, request: Request) -> Progress:
    """What is known of the run so far, under the key and in the place of its state.

    Raises:
        DataError: No state of this run is there to resume.
        OutputError: A file that will be written cannot be, is an input, or holds the state of another run.
    """
    job, ledger, samples = opened.job, opened.ledger, opened.samples
    settings = request.settings(job.devices)
    deciding = {n: settings[n] for n in DECIDES_FIGURES}
    deciding |= {n: v for n, v in library_versions().items() if n in DECIDING}
    shaping = {n: settings[n] for n in SHAPES_DATA}
    key = run_key(job, {**deciding, **shaping}, (request.data, request.labels), samples.total, opened.first)
    state_file = request.state_file
    path = default_path(ledger.path, key) if state_file is None else in_real_folder(state_file)
    kept = Progress(job, deciding, key, path, samples.total, request.progress)
    if request.resume:
        _take_up(kept, ledger, samples, state_file)
    _refuse_inputs(request, ledger, job, [kept.path, *request.reports])
    for target in request.reports:
        check_writable(target)
    _check_state_place(kept, named=state_file is not None, resumed=request.resume)
    return kept


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


def _refuse_inputs(request: Request, ledger: Ledger, job: Job, targets: Sequence[Path]) -> None:
    """Nothing that the run reads may be overwritten; before a long run rather than after it.

    Raises:
        OutputError: A target cannot be written, or is an input.
    """
    read = request.read_files(ledger)
    files = identities(read).union(request.model_files, *(m.files for m in job.read))
    folders = {Path(p).resolve() for p in read if Path(p).is_dir()}
    for target in check_targets(targets, request.model, files):
        if folders & set(target.parents) and target.suffix not in REPORT_SUFFIXES:
            raise OutputError(f"{target}: lies among the data that are read. Choose another path for the output.")
