"""Interrupted runs: a valid partial report, and figures that are those of a run without interruption, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.verbs.compare.job import make_job
from amct_onnx.verbs.compare.measure import progress
from amct_onnx.verbs.compare.measure.batch import Runner
from amct_onnx.verbs.compare.measure.state_file import read_state
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import Case
from support.interrupted_runs import figures, interrupt_at


def test_resumed_run_equals_an_uninterrupted_one(
    digits: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--labels", str(digits.labels), "--batch_size", "9", "--device", "a2"]
    whole, part, rest = (tmp_path / f"{n}.json" for n in ("whole", "part", "rest"))
    assert main([*digits.arguments, *options, "--json_report", str(whole)]) == 0
    assert not digits.state.exists()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        page = tmp_path / "part.html"
        assert main([*digits.arguments, *options, "--json_report", str(part), "--report", str(page)]) == 130
    partial = json.loads(part.read_text(encoding="utf-8"))
    assert partial["complete"] is False
    assert partial["samples"] == 27 and partial["samples_total"] == 64
    assert "Partial" in partial["verdict"]["headline"] and "Interrupted" in page.read_text(encoding="utf-8")
    assert "--resume" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # a second interruption, of the resumed run
        interrupt_at(patch, 4)
        assert main([*digits.arguments, *options, "--resume"]) == 130
    assert main([*digits.arguments, *options, "--resume", "--json_report", str(rest)]) == 0
    assert figures(rest) == figures(whole)
    assert not digits.state.exists()


def test_error_in_the_middle_can_be_resumed(digits: Case, tmp_path: Path) -> None:
    """A run of hours must not be lost to one bad file."""
    name = np.load(digits.data).files[0]
    x = np.load(digits.data)[name]
    folder = tmp_path / "feeds"
    folder.mkdir()
    for index in range(4):
        np.save(folder / f"{index}.npy", x[8 * index : 8 * index + 8])
    good = (folder / "2.npy").read_bytes()
    (folder / "2.npy").write_bytes(good[:100])
    with pytest.raises(amct_onnx.DataError, match="2.npy"):
        digits.compare(folder, batch_size=8)
    (folder / "2.npy").write_bytes(good)
    resumed = digits.compare(folder, batch_size=8, resume=True)
    whole = digits.compare(folder, batch_size=8)
    assert resumed.samples == 32
    assert (resumed.layers, resumed.outputs, resumed.verdict) == (whole.layers, whole.outputs, whole.verdict)


def test_interrupt_before_anything_is_known_reports_nothing(
    digits: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "run", stop)
    assert main([*digits.arguments, "--json_report", str(tmp_path / "r.json")]) == 130
    assert not (tmp_path / "r.json").exists() and not digits.state.exists()


def test_state_of_another_run_or_a_hostile_one_is_refused(
    digits: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*digits.arguments, "--batch_size", "16", "--resume"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        assert main(base[:-1]) == 130
    capsys.readouterr()
    kept = digits.state.read_text(encoding="utf-8")

    def refused(options: list[str], words: str) -> None:
        assert main([*base, *options]) == 2, words
        error = capsys.readouterr().err
        assert words in error and "--resume" in error and "unexpected" not in error, error

    refused(["--batch_size", "8"], "batch_size=16")
    refused(["--device", "310"], "devices=a2")
    refused(["--threads", "2"], "threads=1")
    refused(["--labels", str(digits.labels)], "other data or labels")
    other = tmp_path / "other.npz"
    name = np.load(digits.data).files[0]
    np.savez(other, **{name: np.load(digits.data)[name][::-1]})
    refused(["--data", str(other)], "other data or labels")
    np.savez(other, **{name: np.load(digits.data)[name][:16]})
    refused(["--data", str(other)], "other data or labels")
    assert digits.state.read_text(encoding="utf-8") == kept  # its digest stays that of the right data

    def changed(change: Callable[[dict[str, Any]], None], *, sign: bool = True) -> None:
        content = json.loads(kept)
        change(content)
        if sign:  # whoever can write the file can compute its checksum
            from amct_onnx.verbs.compare.measure.state_file import checksum

            content.pop("checksum")
            content["checksum"] = checksum(content)
        digits.state.write_text(json.dumps(content), encoding="utf-8")

    job, _ = make_job(digits.source, read_ledger(digits.prefix), ("a2",))
    digits_settings = json.loads(kept)["settings"]

    def unreadable(words: str) -> None:
        """By the reader itself: opening the sessions for each file would cost most of the time."""
        with pytest.raises(amct_onnx.DataError, match=words):
            read_state(digits.state, job, digits_settings)

    def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
        return lambda content: content.__setitem__(key, value)

    changed(put("samples", 33), sign=False)
    refused([], "checksum")
    hostile = [put("samples", -1), put("samples", 1.5), put("batches", True), put("seconds", "long"), put("data", 3)]
    hostile += [put("tensors", []), put("tensors", {}), put("quantizers", [[99, "source", {}]]), put("accuracy", [1])]
    hostile += [
        lambda content: content["tensors"][0][2].__setitem__("square", "0x" + "f" * 100_000),
        lambda content: content["tensors"][0][2].__setitem__("largest", float("nan")),
        lambda content: content["tensors"][0][2].__setitem__("__class__", 1),
        lambda content: content["tensors"][0][2].__setitem__("count", 10**4000),
        lambda content: content["tensors"][0].__setitem__(0, "layer:99"),
        lambda content: content["tensors"][0][2].__setitem__("square", "-0x1"),  # the root of it ended in a traceback
        lambda content: content["tensors"][0][2].__setitem__("absolute", "0x" + "f" * 540),  # beyond float64
        lambda content: content["tensors"][0][2].__setitem__("count", 2**62),
        lambda content: content["tensors"][0][2].__setitem__("not_finite", content["tensors"][0][2]["count"] + 1),
        lambda content: content["tensors"].append(content["tensors"][0]),
        lambda content: content["quantizers"][0][2].__setitem__("saturated", 2**61),
        lambda content: content["quantizers"][0][2].__setitem__("bins", []),
        lambda content: content["quantizers"][0][2].__setitem__("bins", [1] * 66),
        lambda content: content["quantizers"][-1][2].__setitem__("bins", [0] * 66),  # a device has none
        put("accuracy", [["source", {"samples": 2**60, "right": {}, "gained": 2**59, "lost": 0, "sums": {}}]]),
        put("accuracy", [["source", {"samples": 1, "right": {"top-1": 2}, "gained": 0, "lost": 0, "sums": {}}]]),
        put("samples", 2**50),
        put("seconds", 1e300),
        put("surplus", 1),
        put("settings", {"x": 3}),
    ]
    for change in hostile:
        changed(change)
        unreadable("damaged|no state")
    changed(lambda content: content.pop("job"))
    unreadable("no state")
    changed(put("job", "0" * 64))
    refused([], "other models")
    for text in ("", "{", "[]", "null", "[" * 100_000, '{"checksum": 1}', kept[: len(kept) // 2]):
        digits.state.write_text(text, encoding="utf-8")
        unreadable("no state")
    refused([], "no state")
    digits.state.unlink()
    os.mkfifo(digits.state)  # would block
    unreadable("not a regular file")


def test_state_is_written_while_a_long_run_goes_on(digits: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    digits.compare(
        batch_size=16,
        progress=lambda done, total: seen.append((done, total, digits.state.exists())),
    )
    assert seen == [(0, 64, False), (16, 64, False), (32, 64, True), (48, 64, True), (64, 64, True)]
    assert not digits.state.exists()


@pytest.mark.slow
def test_ctrl_c_of_the_command_itself(digits: Case, tmp_path: Path) -> None:
    """The process as a user starts and stops it, over data that would take minutes."""
    name = np.load(digits.data).files[0]
    big = tmp_path / "big.npz"
    np.savez(big, **{name: np.tile(np.load(digits.data)[name], (2000, 1, 1, 1))})
    file = tmp_path / "r.json"
    command = [sys.executable, "-m", "amct_onnx", *digits.arguments, "--data", str(big), "--json_report", str(file)]
    process = subprocess.Popen([*command, "--state_file", str(tmp_path / "state.json")], stderr=subprocess.PIPE)
    time.sleep(20)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    content = json.loads(file.read_text(encoding="utf-8"))
    assert 0 < content["samples"] < content["samples_total"] == 128_000
    assert (tmp_path / "state.json").exists()
