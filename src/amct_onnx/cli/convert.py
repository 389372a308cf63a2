"""amct_onnx convert: write the deploy and fake-quant models of a QAT model."""

from __future__ import annotations

import argparse
import gc
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import CHIP_NAMES, add_all_option, add_option, add_plan_options
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.progress import progress_bar
from amct_onnx.cli.streams import print_json

if TYPE_CHECKING:
    from amct_onnx.verbs.convert.report import ConversionReport


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "convert",
        examples=(
            "amct_onnx convert --model qat.onnx --save_path out/m",
            "amct_onnx convert --model float.onnx --from_record r.txt --save_path out/m",
        ),
    )
    add_option(parser, "--model", required=True, help="the .onnx file with QuantizeLinear/DequantizeLinear")
    add_option(parser, "--save_path", required=True, help="folder and name prefix of the outputs")
    add_option(parser, "--record_file", help="write the factor record to this file")
    add_option(
        parser,
        "--from_record",
        metavar="RECORD",
        help="convert a float model with the factors of this record, which is only read",
    )
    add_plan_options(parser)
    add_option(parser, "--keep_conv1d", action="store_true", help="leave 1-D convolutions 1-D in the deploy model")
    add_option(
        parser,
        "--residual_quantizers",
        choices=("keep", "drop"),
        default="keep",
        help="quantizers that feed no int8 layer: round as in the source (default), or go",
    )
    add_option(
        parser,
        "--act_matmul",
        choices=("on", "off"),
        default="on",
        help="int8 for a MatMul of two activations with symmetric quantizers (default: on)",
    )
    add_option(
        parser,
        "--fake_quant_weights",
        choices=("int8", "float32"),
        default="int8",
        help="how the fake-quant model stores weights; float32 is the vendor's form, four times as large",
    )
    add_option(parser, "--soc_version", help=f"check the deploy model for this chip only: {CHIP_NAMES} (default: all)")
    add_option(parser, "--quiet", action="store_true", help="print nothing but errors and no progress")
    add_option(parser, "--json", action="store_true", help="print the report as JSON instead of a table")
    add_option(
        parser,
        "--strict",
        action="store_true",
        help="exit with 1 when a layer stays float, none is int8 or the check finds an error",
    )
    add_all_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Convert, print the report."""
    if arguments.alone:
        gc.disable()  # the process ends behind this: what the conversion leaves goes with it
    if arguments.quiet:
        from amct_onnx.common.log import quiet_screen

        quiet_screen()
        return _exit_code(_convert(arguments, None), arguments)
    with progress_bar("Converting", in_bytes=True) as progress:
        report = _convert(arguments, progress)
    if arguments.json:
        print_json(report.to_dict())
    else:
        from amct_onnx.common.console import print_parts
        from amct_onnx.verbs.convert.screen import next_steps, parts

        print_parts(partial(parts, report, everything=arguments.everything), sys.stdout)
        print_parts(partial(next_steps, report, arguments.save_path), sys.stdout)
    return _exit_code(report, arguments)


def _exit_code(report: ConversionReport, arguments: argparse.Namespace) -> int:
    rejected = report.check is not None and not report.check.passed
    return EXIT_CHECK_FAILED if arguments.strict and (report.refused or rejected or not report.converted) else EXIT_DONE


def _convert(arguments: argparse.Namespace, progress: Any) -> ConversionReport:
    from amct_onnx.errors import SettingError
    from amct_onnx.verbs.convert.convert_model import convert_model, convert_qat_model

    common = {
        "gemm_per_channel": arguments.gemm_per_channel,
        "keep_conv1d": arguments.keep_conv1d,
        "fake_quant_weights": arguments.fake_quant_weights,
        "residual_quantizers": arguments.residual_quantizers,
        "act_matmul": arguments.act_matmul,
        "soc_version": arguments.soc_version,
        "progress": progress,
    }
    if arguments.from_record is not None:
        if arguments.record_file is not None:
            raise SettingError("--from_record reads a record, --record_file writes one. Give one of them.")
        return convert_model(arguments.model, arguments.from_record, arguments.save_path, **common)
    return convert_qat_model(
        arguments.model,
        arguments.save_path,
        arguments.record_file,
        grid_weights=arguments.grid_weights == "on",
        asymmetric_weights=arguments.asymmetric_weights,
        **common,
    )
