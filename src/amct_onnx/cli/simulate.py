"""amct_onnx simulate: run a deploy model over a data set on the CPU, with a device's arithmetic."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_DONE
from amct_onnx.cli.options import DEVICE_NAMES, add_all_option, add_data_options, add_option, data_options
from amct_onnx.cli.parser import add_verb
from amct_onnx.cli.progress import progress_bar
from amct_onnx.cli.streams import print_json


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "simulate",
        examples=(
            "amct_onnx simulate --model D --data data.npz --save_path out",
            "amct_onnx simulate --model D --data images/ --save_path out --device a2",
        ),
    )
    add_option(parser, "--model", required=True, help="the deploy model, ours or the vendor's")
    add_data_options(parser, required=True)
    add_option(parser, "--save_path", required=True, help="folder of the results")
    add_option(parser, "--device", default="reference", help=f"arithmetic: {DEVICE_NAMES} (default: reference)")
    add_option(parser, "--dump", choices=("layers",), help="also write each layer's int8 input, int32 sums and output")
    add_option(
        parser,
        "--dump_format",
        default="board",
        choices=("board", "golden"),
        help="names of the files: as a board's converted dump (default), or as golden data for msprobe (msaccucmp)",
    )
    add_option(parser, "--format", default="npy", choices=("npy", "bin"), help="format of the tensors (default: npy)")
    add_option(
        parser, "--export_inputs", metavar="DIR", help="also write the data as .bin, a folder per input, for ais_bench"
    )
    add_option(parser, "--json", action="store_true", help="print the facts as JSON instead of a table")
    add_all_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Simulate, write, print the facts."""
    from amct_onnx.verbs.simulate.simulate import simulate

    with progress_bar("Simulating") as progress:
        result = simulate(
            arguments.model,
            arguments.data,
            arguments.save_path,
            device=arguments.device,
            **data_options(arguments),
            dump_layers=arguments.dump == "layers",
            dump_format=arguments.dump_format,
            file_format=arguments.format,
            export_inputs=arguments.export_inputs,
            progress=progress,
        )
    if arguments.json:
        print_json(result.to_dict())
    else:
        from amct_onnx.common.console import print_parts
        from amct_onnx.verbs.simulate.screen import parts

        print_parts(partial(parts, result, everything=arguments.everything), sys.stdout)
    return EXIT_DONE
