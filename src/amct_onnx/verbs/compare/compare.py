"""compare: run source, fake-quant and deploy model side by side and say where accuracy went."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from amct_onnx.common.cpu_count import cpu_count
from amct_onnx.common.json_text import json_text
from amct_onnx.common.paths import check_paths
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.labels import AnyLabels
from amct_onnx.data.source import AnyData, DataSource
from amct_onnx.errors import SettingError
from amct_onnx.files.output_files import in_real_folder
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.compare.measure.evaluator import AnyEvaluator
from amct_onnx.verbs.compare.measure.progress import Tell
from amct_onnx.verbs.compare.present.html.write_html import render_html
from amct_onnx.verbs.compare.report import CompareReport
from amct_onnx.verbs.compare.request import Request
from amct_onnx.verbs.compare.run_comparison import run_comparison

DEFAULT_DEVICE = "a2"
DEFAULT_BATCH = 32


def compare(
    model: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    data: AnyData | DataSource,
    *,
    labels: AnyLabels | None = None,
    evaluator: AnyEvaluator | None = None,
    devices: str | Sequence[str] = (DEFAULT_DEVICE,),
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
    stage: Callable[[str], None] | None = None,
    max_drop: float | None = None,
    float_model: str | os.PathLike[str] | None = None,
    aipp: str | os.PathLike[str] | None = None,
) -> CompareReport:
    """Compare source, fake-quant and deploy model over a data set.

    Args:
        model: the source that was converted.
        save_path: where ``convert`` wrote its outputs.
        data: what ``open_data`` takes, or a source of one's own.
        labels: array or file with one whole number per sample for top-1 and top-5, or with what the evaluator takes.
        evaluator: function ``evaluate(outputs, feeds, labels)``, object or Python file with it, see docs/compare.md. A
            cluster takes a file only.
        devices: profiles of the deploy model, see ``DeploySession``; or one string of them, with commas between.
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
        board: folder of a board's dumps, one folder for each feed, see docs/board.md.
        max_drop: what the first metric may lose against the source before the models count as diverged: percentage
            points of top-1, else in the unit of the evaluator's first metric, of which more is better. None: as much as
            chance explains.
        float_model: the float model before quantization; its accuracy and outputs stand beside the others', and judge
            nothing. Its inputs and outputs are found by name, else by their order.
        aipp: as ``open_data`` takes it.
        stage: called with what is being done, in a word or three, when that changes.
        progress: called with samples done and of all (None when unknown).

    Returns:
        The report. Ctrl-C ends the run after its batch; the report is then that of the samples so far
        (``complete=False``, and ``state_file`` is what ``resume`` continues).

    Raises:
        AmctError: One of its subclasses. What was run until then can be resumed.
        KeyboardInterrupt: Ctrl-C before the first batch was done, or twice.
    """
    check_paths(
        *("report", "json_report", "state_file", "board", "float_model", "aipp"),
        model=model,
        save_path=save_path,
        report=report,
        json_report=json_report,
        state_file=state_file,
        board=board,
        float_model=float_model,
        aipp=aipp,
    )
    return run_comparison(
        Request(
            model,
            save_path,
            data,
            labels,
            evaluator,
            _devices(devices),
            input_shape,
            input_type,
            images,
            batch_size,
            threads if threads is not None else 1 if dask else cpu_count(),
            tuple(in_real_folder(p) for p in (report, json_report) if p is not None),
            resume,
            state_file,
            dask,
            board,
            progress or (lambda done, of: None),
            stage or (lambda what: None),
            max_drop,
            float_model,
            aipp,
        ),
        partial(write_reports, report=report, json_report=json_report),
    )


def _devices(given: str | Sequence[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise SettingError("devices are names of profiles or chips. Give a string, or a list of strings.")
    return tuple(n.strip() for n in names)


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
