"""amct_onnx atc: print the command line of ATC for a deploy model, run it, or read what it built."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import CHIP_NAMES, add_all_option, add_option
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.streams import print_json
from amct_onnx.common.plain_text import escaped

if TYPE_CHECKING:
    from amct_onnx.verbs.atc.command_line import AtcCommand


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "atc",
        examples=(
            "amct_onnx atc --model out/m_deploy_model.onnx --soc_version Ascend310P3",
            "amct_onnx atc --model D --soc_version 910B --input_shape x:1,3,8,8 --run",
        ),
        description="Further options of ATC go behind a lone --, for example: amct_onnx atc ... -- --log=info",
    )
    add_option(parser, "--model", required=True, help="the deploy model, an .onnx file")
    add_option(parser, "--soc_version", help=f"the chip (required without --om_json): {CHIP_NAMES}")
    add_option(parser, "--output", help="where the .om goes, without ending (default: beside the model)")
    add_option(parser, "--input_shape", help="sizes of the inputs, for example 'image:1,3,224,224'")
    add_option(parser, "--input_format", choices=("NCHW", "NCDHW", "ND"), help="layout (default: by the inputs' rank)")
    add_option(parser, "--insert_op_conf", help="AIPP configuration file")
    add_option(
        parser,
        "--first_layer",
        action="store_true",
        help="keep the first convolution int8 (310P and 310B, with --insert_op_conf); writes a configuration file",
    )
    add_option(
        parser,
        "--comparable_dumps",
        action="store_true",
        help="compile so that dumps can be compared layer by layer; writes fusion_switch.cfg beside the output",
    )
    add_option(parser, "--run", action="store_true", dest="execute", help="check the model, then run atc from the PATH")
    add_option(
        parser,
        "--om_json",
        metavar="FILE",
        help="what 'atc --mode=1 --om=x.om --json=FILE' wrote: tell for each layer whether it is int8 in the .om",
    )
    add_option(parser, "--json", action="store_true", help="with --om_json: print JSON instead of a table")
    add_option(parser, "--strict", action="store_true", help="with --om_json: exit 1 when an int8 layer is not int8")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="further options of ATC")
    add_all_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the line on stdout and hints on stderr, check the model and run ATC, or read the compiled graph."""
    if arguments.om_json is not None:
        return _read_compiled(arguments)
    return _command(arguments)


def _command(arguments: argparse.Namespace) -> int:

    from amct_onnx.errors import SettingError
    from amct_onnx.verbs.atc.command_line import atc_command

    if arguments.soc_version is None:
        raise SettingError(f"--soc_version is missing. Give the chip, for example {CHIP_NAMES.split(',')[0]}.")
    if arguments.json or arguments.strict:
        raise SettingError("--json and --strict belong to --om_json. Leave them out, or give --om_json.")
    command = atc_command(
        arguments.model,
        arguments.soc_version,
        output=arguments.output,
        input_shape=arguments.input_shape,
        input_format=arguments.input_format,
        insert_op_conf=arguments.insert_op_conf,
        first_layer=arguments.first_layer,
        comparable_dumps=arguments.comparable_dumps,
        options=arguments.options,
    )
    if arguments.execute:
        return _execute(arguments, command)
    _write_files(command)
    print(command.summary())
    for text in (*command.warnings, *command.hints):
        print(escaped(text), file=sys.stderr)
    return EXIT_CHECK_FAILED if command.warnings else EXIT_DONE


def _execute(arguments: argparse.Namespace, command: AtcCommand) -> int:

    from amct_onnx.common.console import print_parts
    from amct_onnx.verbs.atc.run import find_atc, run_atc
    from amct_onnx.verbs.check.checker import check
    from amct_onnx.verbs.check.screen import parts

    program = find_atc()
    report = check(arguments.model, arguments.soc_version)
    print_parts(partial(parts, report), sys.stderr)
    if not report.passed:
        print("amct_onnx: atc was not started: the check found errors.", file=sys.stderr)
        return EXIT_CHECK_FAILED
    if command.warnings:
        for text in command.warnings:
            print(escaped(text), file=sys.stderr)
        print("amct_onnx: atc was not started: the model is not a deploy model.", file=sys.stderr)
        return EXIT_CHECK_FAILED
    _write_files(command)
    print(command.summary(), file=sys.stderr)
    result = run_atc(command.words, program, sys.stdout)
    for explanation in result.explanations:
        print(explanation, file=sys.stderr)
    if result.exit_code:
        print(f"amct_onnx: atc ended with exit code {result.exit_code}.", file=sys.stderr)
    return EXIT_CHECK_FAILED if result.exit_code else EXIT_DONE


def _write_files(command: AtcCommand) -> None:
    from amct_onnx.files.new_file import write_new_file

    for path, text in command.files:
        write_new_file(path, text.encode(), "--output")
        print(f"amct_onnx: wrote {escaped(str(path))}.", file=sys.stderr)


def _read_compiled(arguments: argparse.Namespace) -> int:
    from amct_onnx.verbs.atc.compiled_layers import compiled_layers

    report = compiled_layers(arguments.om_json, arguments.model)
    if arguments.json:
        print_json(report.to_dict())
    else:
        from amct_onnx.common.console import print_parts
        from amct_onnx.verbs.atc.compiled_screen import parts

        print_parts(partial(parts, report, everything=arguments.everything), sys.stdout)
    return EXIT_CHECK_FAILED if arguments.strict and not report.passed else EXIT_DONE
