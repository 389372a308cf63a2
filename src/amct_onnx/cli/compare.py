"""amct_onnx compare: run source, fake-quant and deploy model side by side and say where accuracy went."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE, exit_code_of
from amct_onnx.cli.options import DEVICE_NAMES, add_all_option, add_data_options, add_option, data_options
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.progress import progress_bar
from amct_onnx.cli.streams import drop_stdout, print_json, say_last
from amct_onnx.common.plain_text import shown

if TYPE_CHECKING:
    from amct_onnx.verbs.compare.report import CompareReport


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "compare",
        examples=(
            "amct_onnx compare --model qat.onnx --save_path out/m --data data.npz",
            "amct_onnx compare --model M --save_path P --data D --labels L --report r.html",
        ),
    )
    add_option(parser, "--model", required=True, help="the source model that was converted")
    add_option(parser, "--save_path", required=True, help="folder and name prefix of the conversion's outputs")
    add_data_options(parser, required=True)
    add_option(parser, "--labels", help=".npy, .npz or text file with one label per sample: adds top-1 and top-5")
    add_option(parser, "--evaluator", help="Python file with evaluate(outputs, feeds, labels): adds its metrics")
    add_option(
        parser,
        "--device",
        action="append",
        type=_devices,
        metavar="DEVICE[,DEVICE...]",
        help=f"arithmetic of the deploy model: {DEVICE_NAMES} (default: a2)",
    )
    add_option(
        parser,
        "--float",
        dest="float_model",
        metavar="FLOAT.onnx",
        help="the float model before quantization: its accuracy stands beside the others'",
    )
    add_option(parser, "--batch_size", type=int, default=32, help="samples run at once (default: 32; 0: feeds as is)")
    add_option(parser, "--threads", type=int, help="threads of each session (default: all CPUs; 1 with --dask)")
    add_option(parser, "--convert", action="store_true", help="convert first, with default settings")
    add_option(
        parser, "--board", help="also compare a folder of a board's dumps (raw or converted), or of ais_bench's outputs"
    )
    add_option(parser, "--report", help="write the report as one HTML file")
    add_option(parser, "--json_report", help="write the report as a JSON file")
    add_option(parser, "--json", action="store_true", help="print the report as JSON instead of tables")
    add_option(
        parser,
        "--max_drop",
        type=float,
        metavar="POINTS",
        help="exit with 1 when a model loses more: percentage points of top-1, or of the evaluator in its own unit",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also print the notes, the pinned settings and every sentence"
    )
    add_option(parser, "--resume", action="store_true", help="continue an interrupted run of the same arguments")
    add_option(
        parser, "--state_file", help="state of an unfinished run (default: <save_path>_compare_state_<run>.json)"
    )
    add_option(parser, "--dask", metavar="ADDRESS", help="run the batches on the Dask cluster with this scheduler")
    add_all_option(parser)
    return parser


def _devices(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"'{text}' holds an empty name")
    return names


def _how_to_go_on(report: CompareReport) -> str:
    """The message after Ctrl-C."""
    of = "" if report.samples_total is None else f" of {report.samples_total}"
    noun = "sample" if (report.samples_total or report.samples) == 1 else "samples"
    begun = f"interrupted after {report.samples}{of} {noun}"
    if report.state_file is None:
        return f"{begun}; its state could not be written, so there is nothing to resume."
    return f"{begun}; the same command with --resume continues (state: {shown(report.state_file)})."


def run(arguments: argparse.Namespace) -> int:
    """Compare, write the reports, print the summary."""
    if arguments.convert:
        with progress_bar("Converting", in_bytes=True) as progress:
            from amct_onnx.verbs.convert.convert_model import convert_qat_model

            convert_qat_model(arguments.model, arguments.save_path, progress=progress)
    with progress_bar("Loading the program", unit="samples") as progress:
        from amct_onnx.verbs.compare.compare import DEFAULT_DEVICE, compare
        from amct_onnx.verbs.compare.measure.stop_request import asked_by
        from amct_onnx.verbs.compare.report import DIVERGES, INCOMPLETE

        report = compare(
            arguments.model,
            arguments.save_path,
            arguments.data,
            labels=arguments.labels,
            evaluator=arguments.evaluator,
            devices=[d for names in arguments.device or [[DEFAULT_DEVICE]] for d in names],
            **data_options(arguments),
            batch_size=arguments.batch_size,
            threads=arguments.threads,
            report=arguments.report,
            json_report=arguments.json_report,
            resume=arguments.resume,
            state_file=arguments.state_file,
            dask=arguments.dask,
            board=arguments.board,
            max_drop=arguments.max_drop,
            float_model=arguments.float_model,
            progress=progress,
            stage=None if progress is None else progress.stage,
        )
    try:
        _print(
            report,
            in_json=arguments.json,
            verbose=arguments.verbose,
            page=arguments.report,
            everything=arguments.everything,
        )
    except OSError:
        if report.complete or asked_by() != signal.SIGHUP:
            raise
        drop_stdout()  # the terminal is gone
    if not report.complete:
        say_last(f"amct_onnx: {_how_to_go_on(report)}")
        return exit_code_of(asked_by())
    return EXIT_CHECK_FAILED if report.verdict.level in (DIVERGES, INCOMPLETE) else EXIT_DONE


def _print(report: CompareReport, *, in_json: bool, verbose: bool, page: str | None, everything: bool) -> None:
    if in_json:
        print_json(report.to_dict())
        return
    from amct_onnx.common.console import print_parts
    from amct_onnx.verbs.compare.present.screen import parts

    print_parts(partial(parts, report, verbose=verbose, page=page, everything=everything), sys.stdout)
    sys.stdout.flush()
