"""amct_onnx convert: write the deploy and fake-quant models of a QAT model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import add_option


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "convert", help="write the deploy and fake-quant models of a QAT model"
    )
    add_option(parser, "--model", required=True, help="the .onnx file with QuantizeLinear/DequantizeLinear")
    add_option(parser, "--save_path", required=True, help="folder and name prefix of the outputs")
    add_option(parser, "--record_file", help="write the factor record to this file")
    add_option(
        parser,
        "--fake_quant_weights",
        choices=("int8", "float32"),
        default="int8",
        help="how the fake-quant model stores weights; float32 is the vendor's form, four times as large",
    )
    add_option(parser, "--json", action="store_true", help="print the report as JSON instead of a table")
    add_option(parser, "--strict", action="store_true", help="exit with 1 when a layer stays float")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Convert, print the report."""
    from amct_onnx.convert_model import convert_qat_model

    with _progress() as progress:
        report = convert_qat_model(
            arguments.model,
            arguments.save_path,
            arguments.record_file,
            fake_quant_weights=arguments.fake_quant_weights,
            progress=progress,
        )
    if arguments.json:
        import json

        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        from amct_onnx.screen import print_report

        print_report(report, sys.stdout)
    return EXIT_CHECK_FAILED if arguments.strict and report.refused else EXIT_DONE


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar in bytes on stderr when it is a terminal; it moves to and fro until the size of the outputs is known."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True, soft_wrap=True), transient=True) as bar:
        task = bar.add_task("Converting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
