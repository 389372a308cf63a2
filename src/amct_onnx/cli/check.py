"""amct_onnx check: tell whether ATC will accept a deploy model."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import CHIP_NAMES, add_all_option, add_option
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.progress import progress_bar
from amct_onnx.cli.streams import print_json


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "check",
        examples=(
            "amct_onnx check --model out/m_deploy_model.onnx",
            "amct_onnx check --model D --soc_version Ascend310P3 --cann 9.1",
        ),
    )
    add_option(parser, "--model", required=True, help="the deploy model, an .onnx file")
    add_option(parser, "--soc_version", help=f"check for this chip only: {CHIP_NAMES} (default: all)")
    versions = ("8.5", "9.0", "9.1", "master")  # those of verbs.check.cann_versions, which --help need not import
    add_option(parser, "--cann", choices=versions, help="check for this version of CANN only (default: all of them)")
    add_option(parser, "--json", action="store_true", help="print the findings as JSON instead of a table")
    add_all_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Check, print the findings."""
    with progress_bar("Checking"):
        from amct_onnx.verbs.check.checker import check

        report = check(arguments.model, arguments.soc_version, arguments.cann)
    if arguments.json:
        print_json(report.to_dict())
    else:
        from amct_onnx.common.console import print_parts
        from amct_onnx.verbs.check.screen import parts

        print_parts(partial(parts, report, everything=arguments.everything), sys.stdout)
    return EXIT_DONE if report.passed else EXIT_CHECK_FAILED
