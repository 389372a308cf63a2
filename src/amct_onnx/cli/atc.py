"""amct_onnx atc: print the command line of ATC for a deploy model, or run it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import CHIP_NAMES, add_option
from amct_onnx.common.plain_text import escaped


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "atc",
        help="print the command line of ATC for a deploy model, or run it",
        description="Further options of ATC go behind a lone --, for example: amct_onnx atc ... -- --log=info",
    )
    add_option(parser, "--model", required=True, help="the deploy model, an .onnx file")
    add_option(parser, "--soc_version", required=True, help=f"the chip: {CHIP_NAMES}")
    add_option(parser, "--output", help="where the .om goes, without ending (default: beside the model)")
    add_option(parser, "--input_shape", help="sizes of the inputs, for example 'image:1,3,224,224'")
    add_option(parser, "--input_format", choices=("NCHW", "NCDHW", "ND"), help="layout (default: by the inputs' rank)")
    add_option(parser, "--insert_op_conf", help="AIPP configuration file")
    add_option(parser, "--run", action="store_true", dest="execute", help="check the model, then run atc from the PATH")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="further options of ATC")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the line on stdout and hints on stderr, or check the model and run ATC."""
    import shlex

    from amct_onnx.verbs.atc.command_line import build_command

    command = build_command(
        arguments.model,
        arguments.soc_version,
        output=arguments.output,
        input_shape=arguments.input_shape,
        input_format=arguments.input_format,
        insert_op_conf=arguments.insert_op_conf,
        options=arguments.options,
    )
    if not arguments.execute:
        print(shlex.join(command.words))
        for hint in command.hints:
            print(escaped(hint), file=sys.stderr)
        return EXIT_DONE
    from amct_onnx.verbs.atc.run import find_atc, run_atc
    from amct_onnx.verbs.check.checker import check
    from amct_onnx.verbs.check.screen import print_check

    program = find_atc()
    report = check(arguments.model, arguments.soc_version)
    print_check(report, sys.stderr)
    if not report.passed:
        print("amct_onnx: atc was not started: the check found errors.", file=sys.stderr)
        return EXIT_CHECK_FAILED
    print(shlex.join(command.words), file=sys.stderr)
    result = run_atc(command.words, program, sys.stdout)
    for explanation in result.explanations:
        print(explanation, file=sys.stderr)
    if result.exit_code:
        print(f"amct_onnx: atc ended with exit code {result.exit_code}.", file=sys.stderr)
    return EXIT_CHECK_FAILED if result.exit_code else EXIT_DONE
