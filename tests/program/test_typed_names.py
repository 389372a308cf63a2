"""Messages name an option as the user typed it: ``--max_drop`` as a command, ``max_drop`` in Python."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli.command import parser_of
from amct_onnx.errors import _OPTION, PARAMETERS, SettingError, as_typed, command_line
from program.test_errors_page import raised
from support.comparison_cases import Case
from support.typed_command import in_process

VERBS = ("convert", "check", "atc", "simulate", "compare", "bias", "doctor")
FUNCTIONS = ("convert_qat_model", "check", "atc_command", "simulate", "compare", "quantize_bias", "doctor")


def options() -> set[str]:
    """Of all verbs, without dashes."""
    (verbs,) = (a for a in parser_of(VERBS)._actions if isinstance(a, argparse._SubParsersAction))
    actions = [a for v in VERBS for a in verbs.choices[v]._actions]
    return {s[2:] for a in actions for s in a.option_strings if re.fullmatch("--[a-z_]+", s)}


def test_every_option_that_a_message_names_has_a_name_in_python() -> None:
    ours = options()
    assert PARAMETERS.keys() <= ours
    typed = {path.name for path in (Path(amct_onnx.__file__).parent / "cli").iterdir()}
    for place, text in raised():
        if place.partition(":")[0] in typed - {"check.py", "compare.py", "simulate.py"}:
            continue
        named = {m["name"] for m in _OPTION.finditer(text)} - {None}
        assert named & ours <= PARAMETERS.keys(), place


def test_every_name_in_python_is_a_parameter() -> None:
    parameters = {n for f in FUNCTIONS for n in inspect.signature(getattr(amct_onnx, f)).parameters}
    parameters |= {f"ImageOptions.{n}" for n in inspect.signature(amct_onnx.ImageOptions).parameters}
    parameters |= {"convert_qat_model", "convert_model", "to_dict()", "resume=True"}
    assert set(PARAMETERS.values()) <= parameters


def test_commands_and_options_of_others_stay() -> None:
    text = "Run 'amct_onnx convert --save_path x' first; --dask's workers' logs, --fusion_switch_file, a--data: --data."
    said = "Run 'amct_onnx convert --save_path x' first; dask's workers' logs, --fusion_switch_file, a--data: data."
    assert as_typed(text) == said
    with command_line():
        assert as_typed(text) == text


def test_an_error_names_what_was_typed(digits: Case, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingError, match=r"^max_drop is -1\."):
        digits.compare(max_drop=-1)
    line = ("compare", "--model", digits.source, "--save_path", digits.prefix, "--data", digits.data, "--max_drop=-1")
    assert "error: --max_drop is -1.0." in in_process(capsys, *line).stderr
    with pytest.raises(SettingError, match=r"^dump_layers and export_inputs write files\. Give save_path as well\.$"):
        amct_onnx.simulate(digits.deploy, np.zeros((1, 1, 8, 8), np.float32), dump_layers=True)


def test_a_report_in_python_names_no_option(digits: Case) -> None:
    report = digits.compare()
    assert "--" not in report._repr_html_() and "verdict.sentences" in report._repr_html_()
