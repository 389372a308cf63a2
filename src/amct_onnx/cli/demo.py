"""amct_onnx demo: take a small QAT model from convert to atc, as a user would type it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from amct_onnx.cli.exit_codes import EXIT_DONE
from amct_onnx.cli.options import add_option
from amct_onnx.cli.parser import add_verb
from amct_onnx.common.plain_text import escaped

CHIPS = ("310P", "910B")
SOC_VERSION = "Ascend310P3"


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its option."""
    parser = add_verb(
        verbs,
        "demo",
        examples=("amct_onnx demo", "amct_onnx demo --save_path /tmp/demo"),
        description="It writes a model for handwritten digits and 360 test images, converts the model, checks it, runs "
        "it as on two chips, and compares it with its source. Each command is printed before it runs.",
    )
    add_option(
        parser, "--save_path", default="amct_demo", help="folder for all files, made when missing (default: amct_demo)"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the model and the data, run the commands, say where the report is."""
    from amct_onnx.cli.command import parser_of
    from amct_onnx.verbs.demo.files import demo_files

    folder = Path(arguments.save_path)
    files = demo_files(folder)
    report = folder / "report.html"
    for words in _commands(folder, str(files.model), str(files.data), str(report)):
        print(f"\n$ amct_onnx {escaped(shlex.join(words))}", flush=True)
        parsed = parser_of(words[:1]).parse_args(words)
        code = int(parsed.run(parsed))
        if code != EXIT_DONE:
            return code
    print(f"\nOpen the report in a browser:\n{escaped(str(report.absolute()))}")
    return EXIT_DONE


def _commands(folder: Path, model: str, data: str, report: str) -> list[list[str]]:
    """What a user would type, without the program's name."""
    prefix = str(folder / "digits")
    deploy = f"{prefix}_deploy_model.onnx"
    simulated = (
        ["simulate", "--model", deploy, "--data", data, "--device", chip, "--save_path", str(folder / chip)]
        for chip in CHIPS
    )
    compared = ["compare", "--model", model, "--save_path", prefix, "--data", data, "--labels", data]
    return [
        ["convert", "--model", model, "--save_path", prefix, "--soc_version", SOC_VERSION],
        ["check", "--model", deploy, "--soc_version", SOC_VERSION],
        *simulated,
        [*compared, *(word for chip in CHIPS for word in ("--device", chip)), "--report", report],
        ["atc", "--model", deploy, "--soc_version", SOC_VERSION, "--input_shape", "input:1,1,8,8"],
    ]
