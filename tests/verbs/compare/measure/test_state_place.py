"""The state of an interrupted run is its own: no other run overwrites, deletes or continues it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import OutputError
from amct_onnx.files import writable
from amct_onnx.verbs.compare.measure import progress
from amct_onnx.verbs.compare.measure import state_file as state_module
from support.comparison_cases import Case
from support.interrupted_runs import figures, interrupt_at

OPTIONS = ["--batch_size", "16"]


def interrupted(case: Case, patch: pytest.MonkeyPatch, options: list[str], number: int = 1) -> None:
    with patch.context() as pressed:
        interrupt_at(pressed, number)
        assert main([*case.arguments, *OPTIONS, *options]) == 130


def other_data(case: Case, path: Path, change: Callable[[Any], Any]) -> list[str]:
    with np.load(case.data) as archive:
        np.savez(path, **{n: change(archive[n]) for n in archive.files})
    return ["--data", str(path)]


def contents(case: Case) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in case.states}


@pytest.mark.parametrize(
    "names",
    [
        ["plain", "device"],
        pytest.param(
            ["plain", "data backwards", "same beginning, then others", "fewer", "device", "batch size", "labels"]
            + ["evaluator"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "all"],
)
def test_runs_that_differ_keep_their_own_states(
    small: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
) -> None:
    """Each is interrupted and has its state. Then each is continued, and only its state goes."""
    evaluator = tmp_path / "e.py"
    text = "def evaluate(outputs, feeds, labels):\n    return {'first': next(iter(outputs.values()))[:, 0]}\n"
    evaluator.write_text(text, encoding="utf-8")
    runs = {
        "plain": [],
        "data backwards": other_data(small, tmp_path / "back.npz", lambda x: x[::-1]),
        "same beginning, then others": other_data(small, tmp_path / "tail.npz", lambda x: np.r_[x[:40], x[:24]]),
        "fewer": other_data(small, tmp_path / "few.npz", lambda x: x[:48]),
        "device": ["--device", "310"],
        "batch size": ["--batch_size", "8"],
        "labels": ["--labels", str(small.labels)],
        "evaluator": ["--evaluator", str(evaluator)],
    }
    runs = {name: runs[name] for name in names}
    wanted = {}
    for name, options in runs.items():
        file = tmp_path / "whole.json"
        assert main([*small.arguments, *OPTIONS, *options, "--json_report", str(file)]) in (0, 1), name
        wanted[name] = figures(file)
    assert contents(small) == {}
    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    for number, options in enumerate(runs.values(), 1):
        before = contents(small)
        interrupted(small, monkeypatch, options)
        assert len(small.states) == number
        assert {n: c for n, c in contents(small).items() if n in before} == before
    assert "--resume continues (state: " in capsys.readouterr().err
    kept = contents(small)
    for options in (["--threads", "2"], ["--device", "ascend950"]):  # others, from beginning to end
        assert main([*small.arguments, *OPTIONS, *options]) in (0, 1)
        assert contents(small) == kept
    for name, options in runs.items():
        file = tmp_path / "resumed.json"
        assert main([*small.arguments, *OPTIONS, *options, "--resume", "--json_report", str(file)]) in (0, 1), name
        assert figures(file) == wanted[name], name
        left = contents(small)
        assert len(left) == len(kept) - 1 and left.items() < kept.items()
        kept = left


def test_state_is_found_when_data_were_moved_or_touched(
    small: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of several that might be the run's, the one of its data is taken."""
    back = other_data(small, tmp_path / "back.npz", lambda x: x[::-1])
    interrupted(small, monkeypatch, back, 2)
    interrupted(small, monkeypatch, [])
    moved = str(small.data.rename(tmp_path / "moved.npz"))
    first, last = contents(small).items()
    assert main([*small.arguments, *OPTIONS, "--data", moved, "--resume"]) == 0
    assert contents(small).items() in ({first}, {last})
    os.utime(tmp_path / "back.npz", (1, 1))
    assert main([*small.arguments, *OPTIONS, *back, "--resume"]) in (0, 1)
    assert contents(small) == {}


def test_state_under_its_old_name_is_continued_and_otherwise_left_alone(
    small: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(small, monkeypatch, [])
    content = json.loads(small.state.read_text(encoding="utf-8"))
    small.state.unlink()
    del content["run"], content["checksum"]  # as versions before wrote it
    content["checksum"] = state_module.checksum(content)
    old = Path(f"{small.prefix}_compare_state.json")
    old.write_text(json.dumps(content), encoding="utf-8")
    kept = old.read_bytes()
    assert main([*small.arguments, *OPTIONS]) == 0
    assert main([*small.arguments, *OPTIONS, "--device", "310", "--resume"]) == 2
    assert "devices=a2" in capsys.readouterr().err and old.read_bytes() == kept
    assert main([*small.arguments, *OPTIONS, "--resume"]) == 0
    assert not old.exists()


def test_named_state_file_of_another_run_is_not_overwritten(
    small: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    named = ["--state_file", str(file)]
    interrupted(small, monkeypatch, named)
    kept = file.read_bytes()
    back = other_data(small, tmp_path / "back.npz", lambda x: x[::-1])
    others = [(["--device", "310"], "devices=a2"), (["--batch_size", "8"], "batch_size=16"), (back, "other data")]
    for options, words in others:
        capsys.readouterr()
        assert main([*small.arguments, *OPTIONS, *named, *options]) == 2
        error = capsys.readouterr().err
        assert words in error and "another interrupted run" in error and "--state_file" in error, error
        assert file.read_bytes() == kept
    assert main([*small.arguments, *OPTIONS, *named]) == 0  # the same run, from its beginning
    assert file.read_bytes() == kept  # it was over before it had anything to save, so the file is not its own
    assert main([*small.arguments, *OPTIONS, *named, "--resume"]) == 0
    assert not file.exists()
    for text in ("notes", "{}", "[" * 100_000):
        file.write_text(text, encoding="utf-8")
        assert main([*small.arguments, *OPTIONS, *named]) == 2
        assert "is not the state of this run" in capsys.readouterr().err and file.read_text(encoding="utf-8") == text


def test_file_that_another_run_wrote_meanwhile_is_left_to_it(
    small: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs begin with one --state_file."""
    interrupted(small, monkeypatch, ["--device", "310"])
    theirs, file = small.state.read_bytes(), tmp_path / "mine.json"
    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)

    def write(done: int, total: int | None) -> None:
        file.write_bytes(theirs)

    found = small.compare(batch_size=16, state_file=file, progress=write)
    assert found.complete and file.read_bytes() == theirs


@pytest.mark.parametrize("when", ["from the beginning", "later"])
def test_run_whose_state_cannot_be_written_warns_once_and_ends_with_its_report(
    small: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    when: str,
) -> None:
    def fail(target: Any, *_: Any, **__: Any) -> None:
        if os.fspath(target).endswith(".html"):
            return
        raise OutputError(f"{target}: cannot be written (No space left on device). Choose another place.")

    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "write_state", fail)
    if when == "from the beginning":
        monkeypatch.setattr("amct_onnx.verbs.compare.run_comparison.check_writable", fail)
    amct_onnx.set_logging_level("warning", "error")
    page = tmp_path / "r.html"
    line = [*small.arguments, *OPTIONS, "--report", str(page)]
    assert main(line) == 0
    error = caplog.text
    assert error.count("an interruption would lose what was run") == 1 and "No space left" in error
    assert page.exists() and not small.states
    page.unlink()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        assert main(line) == 130
    assert "nothing to resume" in capsys.readouterr().err
    assert "Interrupted" in page.read_text(encoding="utf-8") and not small.states


def test_outputs_are_tried_before_the_run(small: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for option in ("--report", "--json_report", "--state_file"):
        began: list[int] = []
        target = str(tmp_path / "file" / "x.json")
        with pytest.raises(OutputError, match=r"file/x.json: cannot be written \(Not a directory\)"):
            small.compare(**{option[2:]: target}, progress=lambda done, total, began=began: began.append(done))
        assert not began
        assert main([*small.arguments, option, target]) == 2
    with pytest.raises(OutputError, match="cannot be written"):
        writable.check_writable(Path("/dev/full/x"))
    writable.check_writable(tmp_path / "not" / "there" / "yet.json")
    assert not (tmp_path / "not").exists()


def test_error_says_how_to_go_on(small: Case, caplog: pytest.LogCaptureFixture) -> None:
    labels = np.load(small.labels)
    labels[40] = 77
    np.save(small.labels, labels)
    amct_onnx.set_logging_level("warning", "error")
    assert main([*small.arguments, *OPTIONS, "--labels", str(small.labels)]) == 2
    error = caplog.text
    assert f"{small.state}: holds the 32 samples" in error and "--resume continues" in error
