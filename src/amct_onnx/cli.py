"""The command line: amct_onnx convert."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from amct_onnx import __version__
from amct_onnx.errors import AmctError

EXIT_DONE, EXIT_CHECK_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amct_onnx", description="Turn a QAT ONNX model into the form that the Ascend compiler ATC accepts."
    )
    parser.add_argument("--version", action="version", version=f"amct_onnx {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    convert = verbs.add_parser("convert", help="write the deploy and fake-quant models of a QAT model")
    convert.add_argument("--model", required=True, help="the .onnx file with QuantizeLinear/DequantizeLinear")
    convert.add_argument("--save_path", "--save-path", required=True, help="folder and name prefix of the outputs")
    convert.add_argument("--record_file", "--record-file", help="write the factor record to this file")
    convert.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    convert.add_argument("--strict", action="store_true", help="exit with 1 when a layer stays float")
    convert.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 --strict failed, 2 bad input, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        return _convert(arguments)
    except KeyboardInterrupt:
        print("amct_onnx: interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if arguments.debug or os.environ.get("AMCT_LOG_LEVEL", "").upper() == "DEBUG":
            import traceback

            traceback.print_exc()
        print(f"amct_onnx: error: {_paragraph(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _paragraph(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, (AmctError, OSError)):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}. Run again with --debug for the traceback."


def _convert(arguments: argparse.Namespace) -> int:
    from amct_onnx.convert_model import convert_qat_model

    with _progress() as progress:
        report = convert_qat_model(arguments.model, arguments.save_path, arguments.record_file, progress=progress)
    if arguments.json:
        import json

        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        from amct_onnx.screen import print_report

        print_report(report, sys.stdout)
    return EXIT_CHECK_FAILED if arguments.strict and report.refused else EXIT_DONE


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr when it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, soft_wrap=True), transient=True) as bar:
        task = bar.add_task("Converting")
        yield lambda done, total: bar.update(task, completed=done, total=total)
