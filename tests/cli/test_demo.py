"""The demo: what it prints is what it does, and it writes over nothing of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from amct_onnx import cli
from amct_onnx.cli.command import parser_of

STEPS = ["convert", "check", "simulate", "simulate", "compare", "atc"]


def test_demo_runs_every_step_and_says_where_the_report_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--save_path", "my demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line.removeprefix("$ amct_onnx ") for line in lines if line.startswith("$ ")]
    assert [c.split()[0] for c in commands] == STEPS
    assert lines[-1] == str(Path("my demo/report.html").absolute())
    assert Path(lines[-1]).stat().st_size > 100_000
    text = "\n".join(lines)
    assert "7 of 7 candidate layers are int8" in text and "No fault found" in text
    assert "'--model=my demo/digits_deploy_model.onnx'" in text


def test_printed_commands_can_be_typed() -> None:
    from amct_onnx.cli.demo import _commands

    for words in _commands(Path("d"), "m.onnx", "t.npz", "r.html"):
        parser_of(words[:1]).parse_args(words)


@pytest.mark.parametrize("name", ["model_qat.onnx", "testset.npz"])
def test_file_of_the_user_stays(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d").mkdir()
    Path("d", name).write_bytes(b"mine")
    assert cli.main(["demo", "--save_path", "d"]) == 2
    assert Path("d", name).read_bytes() == b"mine"
    assert f"{name}: is there already, with other content. Rename it" in capsys.readouterr().err
