"""Usage errors name what was meant; help shows how a verb is typed, at 80 columns."""

from __future__ import annotations

import shlex

import pytest

from amct_onnx.cli import main
from amct_onnx.cli.parser import VERBS

NAMES = list(VERBS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("convert --modle m --save_path p", "unknown option '--modle' (did you mean '--model'?)"),
        ("convert --model m --save_path p --jsn", "unknown option '--jsn' (did you mean '--json'?)"),
        ("check --model m --soc-verzion=310P", "unknown option '--soc-verzion' (did you mean '--soc-version'?)"),
        ("compare --model m --xyzzy", "unknown option '--xyzzy'. "),
        ("convrt --model m", "unknown verb 'convrt' (did you mean 'convert'?)"),
        ("--versoin", "unknown option '--versoin' (did you mean '--version'?)"),
        ("convert --model", "argument --model: expected one argument"),
        ("convert --model m", "the following arguments are required: --save_path"),
        ("check --model m spare", "unrecognized arguments: spare"),
    ],
)
def test_usage_error_names_what_was_meant(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in error and error.count("\n") == 1 and "--help' for what it takes." in error


def test_options_of_atc_behind_two_dashes_are_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["atc", "--model", "none.onnx", "--soc_version", "310P", "--", "--logg=info"]) == 2
    assert "none.onnx" in capsys.readouterr().err


def test_command_alone_prints_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    text = capsys.readouterr().out
    assert [name for name in NAMES if f"\n    {name} " not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_help_ends_with_examples_and_fits(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    examples = text[text.index("\nexamples:") :]
    assert examples.count(f"  amct_onnx {name}") == 2
    assert "AMCT_LOG_LEVEL" in examples and "AMCT_LOG_FILE_LEVEL" in examples
