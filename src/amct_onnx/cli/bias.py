"""amct_onnx bias: write the source model with the biases that its int8 form will have."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_CHECK_FAILED, EXIT_DONE
from amct_onnx.cli.options import add_all_option, add_option, add_plan_options
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.progress import progress_bar
from amct_onnx.cli.streams import print_json


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "bias",
        examples=(
            "amct_onnx bias --model qat.onnx --output biases.onnx",
            "amct_onnx bias --model qat.onnx --output biases.onnx --json",
        ),
    )
    add_option(parser, "--model", required=True, help="the .onnx file with QuantizeLinear/DequantizeLinear")
    add_option(parser, "--output", required=True, help="the .onnx file to write")
    add_plan_options(parser)
    add_option(parser, "--json", action="store_true", help="print the report as JSON instead of a table")
    add_all_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the model, print the report."""
    from amct_onnx.verbs.bias.quantize_bias import quantize_bias

    with progress_bar("Writing", in_bytes=True) as progress:
        report = quantize_bias(
            arguments.model,
            arguments.output,
            grid_weights=arguments.grid_weights == "on",
            gemm_per_channel=arguments.gemm_per_channel,
            asymmetric_weights=arguments.asymmetric_weights,
            progress=progress,
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        from amct_onnx.common.console import print_parts
        from amct_onnx.verbs.bias.screen import parts

        print_parts(partial(parts, report, everything=arguments.everything), sys.stdout)
    return EXIT_CHECK_FAILED if report.unreachable else EXIT_DONE
