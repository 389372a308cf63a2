"""SIGKILL, SIGTERM and SIGHUP at random moments of convert, simulate and compare; then the run again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# imported here, so that the moments fall into the work and not into the imports of a forked process
import amct_onnx.cli.command
import amct_onnx.convert_model
import amct_onnx.verbs.compare.compare
import amct_onnx.verbs.compare.explain.board
import amct_onnx.verbs.compare.present.screen
import amct_onnx.verbs.convert.screen  # noqa: F401
from amct_onnx.cli import main
from support.comparison_cases import SMALL, Case, converted
from support.fault_injection import leftovers, settled, visible

SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGHUP": 129}
"""With the exit code."""
STATE = "state.json"
SLACK = 96 << 10
"""Bytes of the small disk beyond one set of outputs: folders, a report, the state."""


@dataclass(frozen=True)
class Verb:
    """A run as a user types it.

    Attributes:
        line: its words.
        other: makes a line that gives other outputs.
        folder: of all its outputs.
        state: of an interrupted run, that --resume continues.
    """

    line: list[str]
    other: list[str]
    folder: Path
    state: Path | None = None


def verb(name: str, folder: Path, case: Case) -> Verb:
    """Into a folder."""
    if name == "convert":
        line = ["convert", "--model", str(case.source), "--save_path", str(folder / "m")]
        return Verb(line, [*line, "--fake_quant_weights", "float32"], folder)
    if name == "simulate":
        line = ["simulate", "--model", str(case.deploy), "--data", str(case.data), "--save_path", str(folder)]
        line += ["--dump", "layers", "--input_shape", "input:1,1,8,8"]
        return Verb(line, [*line, "--device", "a2", "--format", "bin"], folder)
    reports = ["--report", str(folder / "page.html"), "--json_report", str(folder / "report.json")]
    state = folder / STATE
    line = [*case.arguments, *reports, "--batch_size", "1", "--state_file", str(state)]
    return Verb(line, [*line, "--device", "310p"], folder, state)


def start(line: list[str]) -> int:
    """In a forked process, with the signals as a shell leaves them."""
    child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            for handle in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
            sys.stdout = sys.stderr = open(1, "w")
            os._exit(main(line))
        except BaseException:
            os._exit(99)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def comparable(outputs: dict[str, bytes]) -> dict[str, object]:
    """A report holds the time that it took."""
    found: dict[str, object] = dict(outputs)
    if "report.json" in outputs:
        content = json.loads(outputs["report.json"])
        found = {
            "page.html": True,
            "report.json": (content["complete"], content["samples"], content["settings"]["devices"]),
        }
    return found


@dataclass(frozen=True)
class Undisturbed:
    """Outputs of a verb in a folder without a signal, once for all signals.

    Attributes:
        new: outputs of the run.
        old: outputs of the other line.
        earlier: files of the other line.
        seconds: duration of a run.
    """

    new: dict[str, object]
    old: dict[str, object]
    earlier: dict[str, bytes]
    seconds: float


def undisturbed(verb: Verb) -> Undisturbed:
    outputs: list[dict[str, object]] = []
    for line in (verb.line, verb.other):
        clear(verb.folder)
        begun = time.perf_counter()
        assert exit_code(start(line)) in (0, 1)
        seconds = time.perf_counter() - begun
        outputs.append(comparable(visible(verb.folder)))
    assert outputs[0] != outputs[1]
    return Undisturbed(*outputs, visible(verb.folder), seconds)


def end_at_random(verb: Verb, expected: Undisturbed, name: str, rounds: int, *, old: bool) -> dict[str, int]:
    """How often each state was found; earlier outputs stand in the folder or none do."""
    number, code = getattr(signal, name), SIGNALS[name]
    moments = random.Random(f"{name} {verb.line[0]} {verb.folder.name}")
    found: dict[str, int] = {}
    for _ in range(rounds):
        clear(verb.folder)
        if old:
            for path, content in expected.earlier.items():
                (verb.folder / path).parent.mkdir(exist_ok=True)
                (verb.folder / path).write_bytes(content)
        child = start(verb.line)
        time.sleep(moments.uniform(0, 1.2 * expected.seconds))
        os.kill(child, number)
        ended = exit_code(child)
        assert ended in (0, 1, code, -number)
        settled(verb.folder)
        seen = visible(verb.folder)
        state = seen.pop(verb.state.name, None) if verb.state else None
        kind = state_of(comparable(seen), expected.new, expected.old if old else {})
        found[f"{kind}{', state saved' if state else ''}"] = (
            found.get(f"{kind}{', state saved' if state else ''}", 0) + 1
        )
        if ended != -number:
            assert not leftovers(verb.folder), (kind, ended)
        if not old:
            clear(verb.folder, outputs_only=True)
        assert exit_code(start([*verb.line, "--resume"] if state else verb.line)) in (0, 1), (
            kind,
            leftovers(verb.folder),
        )
        assert comparable(visible(verb.folder)) == expected.new and not leftovers(verb.folder), kind
    return found


def state_of(seen: dict[str, object], new: dict[str, object], old: dict[str, object]) -> str:
    if seen in (new, old):
        return "new" if seen == new else "old"
    # a comparison that was asked to stop reports on what it has seen so far
    assert "report.json" in seen and seen.keys() == new.keys()
    complete, samples, _ = seen["report.json"]  # type: ignore[misc]
    assert not complete and samples > 0
    return "new, of a part"


def clear(folder: Path, *, outputs_only: bool = False) -> None:
    """Remove everything, or all but a state and hidden things."""
    for path in folder.iterdir():
        if not outputs_only or not (path.name.startswith(".") or path.name == STATE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return converted(SMALL, tmp_path_factory.mktemp("models"), samples=16)


@dataclass(frozen=True)
class Disks:
    """Two folders for one verb, each with what it writes there undisturbed; no small disk where none can be mounted."""

    roomy: tuple[Verb, Undisturbed]
    small: tuple[Verb, Undisturbed] | None


@pytest.fixture(scope="module", params=["convert", "simulate", "compare"])
def disks(request: pytest.FixtureRequest, case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    folder = tmp_path_factory.mktemp("disks")
    (folder / "roomy").mkdir()
    roomy = verb(request.param, folder / "roomy", case)
    in_roomy = undisturbed(roomy)
    # what a set takes in pages
    size = sum(-(-p.stat().st_size // 4096) * 4096 for p in roomy.folder.rglob("*") if p.is_file())
    small = folder / "small"
    small.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size + SLACK}", "tmpfs", str(small)]
    mounted = os.geteuid() == 0 and subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        on_small = verb(request.param, small, case)
        yield Disks((roomy, in_roomy), (on_small, undisturbed(on_small)) if mounted else None)
    finally:
        if mounted:
            subprocess.run(["umount", str(small)], check=True)


def end_on_both_disks(disks: Disks, number: str, rounds: int) -> None:
    print(number, "earlier outputs:", end_at_random(*disks.roomy, number, rounds, old=True))
    if disks.small is None:
        pytest.skip("only root may mount a small disk")
    print(number, "small disk:", end_at_random(*disks.small, number, rounds, old=False))


@pytest.mark.parametrize("number", ["SIGKILL"])
@pytest.mark.parametrize(
    "disks",
    ["convert", *(pytest.param(v, marks=pytest.mark.slow) for v in ("simulate", "compare"))],
    indirect=True,
    scope="module",
)
def test_a_few_moments(disks: Disks, number: str) -> None:
    end_on_both_disks(disks, number, 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_200_moments(disks: Disks, number: str) -> None:
    end_on_both_disks(disks, number, 100)
