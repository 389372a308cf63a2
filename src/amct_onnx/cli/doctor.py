"""amct_onnx doctor: show which ONNX Runtime settings give a Q/DQ model's true numbers on this CPU."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import add_data_options, add_option, data_options
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.progress import progress_bar
from amct_onnx.cli.streams import print_json


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "doctor",
        examples=(
            "amct_onnx doctor",
            "amct_onnx doctor --model qat.onnx --data data.npz",
        ),
    )
    add_option(parser, "--model", help="the QAT model (default: a small built-in u8s8 model)")
    add_data_options(parser, required=False, otherwise="random numbers")
    add_option(parser, "--feeds", type=int, default=8, help="how many feeds are run at most (default: 8)")
    add_option(
        parser, "--env", action="store_true", dest="environment", help="print versions and CPU alone, for a bug report"
    )
    add_option(parser, "--json", action="store_true", help="print the figures as JSON instead of a table")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Examine, print the figures."""
    if arguments.environment:
        return _print_environment(in_json=arguments.json)
    from amct_onnx.verbs.doctor.doctor import doctor

    with progress_bar("Examining") as progress:
        report = doctor(
            arguments.model,
            arguments.data,
            **data_options(arguments),
            feeds=arguments.feeds,
            progress=progress,
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        from amct_onnx.common.console import print_parts
        from amct_onnx.verbs.doctor.screen import parts

        print_parts(partial(parts, report), sys.stdout)
    return EXIT_DONE if report.trusted else EXIT_CHECK_FAILED


def _print_environment(*, in_json: bool) -> int:
    from amct_onnx.common.console import print_parts
    from amct_onnx.verbs.doctor.environment import environment

    found = environment()
    if in_json:
        print_json(found)
    else:
        print_parts(lambda width: (f"{name}: {value}" for name, value in found.items()), sys.stdout)
    return EXIT_DONE
