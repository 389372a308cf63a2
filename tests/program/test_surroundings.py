"""Planted files, links, folders and journals stay as they are whichever call fails: the whole tree is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amct_onnx.errors import AmctError, OutputError
from oracle import EARLIER_RECORD, LOG_FOLDER, OLD, OUTPUTS, snapshot
from support.fault_injection import fail_at, faults
from surroundings import inputs_and_results, put, tag_of, verbs

SECRET = "outside/secret"
WRITERS = ("convert", "bias", "simulate", "compare")
READERS = ("check", "atc", "session", "doctor")


def journal(folder: str, name: str) -> str:
    """As earlier versions wrote and obeyed it: it removes a user's file once one of ours is read."""
    files = ("model.onnx", "deploy.onnx", "c_quant.json", "c_deploy_model.onnx", "m_deploy_model.onnx", "bias.onnx")
    step = {"folder": "", "backup": "none", "existed": True, "new": "no such file", "temporary": ""}
    steps: list[dict[str, Any]] = [{**step, "target": n} for n in files]
    steps.append({**step, "folder": folder, "target": "gone", "new": "", "temporary": name})
    return json.dumps(steps)


def planted() -> list[dict[str, Any]]:
    """One of each kind in each folder, so that what is not seen in one place is seen in another."""
    found: list[dict[str, Any]] = []
    for home in ("in", "out", "out/sim", "."):
        for number, folder in enumerate(("{root}/outside", "../outside", "to_outside", "")):
            at = f"{home}/.amct_{number:012x}.undo"
            found.append({"at": at, "kind": "file", "text": journal(folder, "secret" if folder else "notes.txt")})
        for tag in (tag_of("m_"), tag_of("bias.onnx"), tag_of("r.json"), "1fffffffffff"):
            found += [{"at": f"{home}/.amct_{tag}_ab12_0.{s}", "kind": "file", "text": "a"} for s in ("tmp", "old")]
            found.append({"at": f"{home}/.amct_{tag}_ab12.tmp", "kind": "link", "text": "{root}/outside/secret"})
            found.append({"at": f"{home}/.amct_{tag}_ab12.old/notes.txt", "kind": "file", "text": "private"})
        found.append({"at": f"{home}/to_outside", "kind": "link", "text": "{root}/outside"})
        found.append({"at": f"{home}/notes.txt", "kind": "file", "text": "the user's", "mode": 0o600})
    for name in ("aside", "new_ab12"):
        found.append({"at": f"out/sim/.amct_simulation_{name}", "kind": "link", "text": "{root}/outside"})
    found.append({"at": "out/sim/.amct_simulation_undo/000000/notes.txt", "kind": "file", "text": "private"})
    return found


def prepare(root: Path, plants: list[dict[str, Any]]) -> None:
    for folder in ("in", "out", "out/sim", "outside"):
        (root / folder).mkdir(parents=True)
    for name, content in inputs_and_results()[0].items():
        (root / name).write_bytes(content)
    for name in OUTPUTS:
        (root / "out" / name).write_bytes(EARLIER_RECORD if name == "record.txt" else OLD)
    (root / SECRET).write_bytes(b"private")
    for plant in plants:
        put(root, plant)


def judge(root: Path, verb: str, before: dict[str, tuple[object, ...]], *, leftovers: bool, failed: bool) -> None:
    """All but the outputs stays; what is new are outputs, and the state of a comparison whose report failed."""
    outputs = verbs(root)[verb][1]
    after = snapshot(root)
    changed = {n for n in before if before[n] != after.get(n)} - outputs
    assert not changed
    new = {n for n in after.keys() - before.keys() - outputs if not n.startswith(LOG_FOLDER)}
    if failed and verb == "compare":
        new = {n for n in new if not n.startswith("in/c_compare_state")}
    assert leftovers or not new


@pytest.mark.parametrize("verb", [*READERS, *WRITERS])
def test_planted_files_stay(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    prepare(root, planted())
    monkeypatch.chdir(root)
    before = snapshot(root)
    try:
        verbs(root)[verb][0]()
    except OutputError as error:
        # what stands in the folder of results, or for a record, may be refused, by name
        assert {"simulate": "out/sim", "convert": "out/record.txt"}.get(verb, "nothing") in str(error)
    judge(root, verb, before, leftovers=False, failed=False)


@pytest.mark.parametrize("for_good", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("verb", [pytest.param(v, marks=() if v == "convert" else pytest.mark.slow) for v in WRITERS])
def test_planted_files_stay_whatever_call_fails(
    verb: str, for_good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = tmp_path / "counted"
    prepare(counted, [])
    monkeypatch.chdir(counted)
    with faults(lambda _: None) as made:
        verbs(counted)[verb][0]()
    assert len(made) > 5
    for number in range(1, len(made) + 1):
        root = tmp_path / str(number)
        prepare(root, planted())
        monkeypatch.chdir(root)
        before = snapshot(root)
        failed = False
        with faults(fail_at(number, for_good=for_good)):
            try:
                verbs(root)[verb][0]()
            except AmctError as error:
                failed = bool(str(error))
                assert failed
        judge(root, verb, before, leftovers=for_good, failed=failed)
