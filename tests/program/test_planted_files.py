"""Whatever lies beside inputs and outputs, links and files under this program's own names included, stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from support.comparison_cases import SMALL, Case, converted
from support.fault_injection import whole_tree

SHAPE = ("--input_shape", "input:1,1,8,8")


def private(top: Path) -> Path:
    """What nobody may touch: beside the working folder."""
    folder = top / "private"
    (folder / "000000").mkdir(parents=True)
    for name in ("HEAD", "notes.txt", "simulation.json", "000000/notes.npy", "000000/y.npy"):
        (folder / name).write_text(f"mine: {name}")
    return folder


def plant(folder: Path, victim: Path, names: list[str]) -> None:
    """Journals of the former form, links and folders of former and present names, in a folder."""
    for way in ("", "../private", str(victim)):
        steps = [
            {"folder": way, "target": n, "backup": "notes.txt", "existed": e, "new": "", "temporary": "HEAD"}
            for n in [*names, "HEAD"]
            for e in (False, True)
        ]
        for tag in ["", "m_", *names, way]:
            journal = folder / f".amct_{hashlib.sha256(f'{tag}{way}'.encode()).hexdigest()[:12]}.undo"
            journal.write_text(json.dumps(steps))
        for tag in ["", "m_", *names]:
            (folder / f".amct_{hashlib.sha256(tag.encode()).hexdigest()[:12]}.undo").write_text(json.dumps(steps))
    own = ".amct_1a2b_0123456789abcdef"
    for name in (
        ".amct_simulation_aside",
        ".amct_simulation_new_1",
        f"{own}.new",
        f"{own}.old",
        ".amct_0123456789abcdef",
    ):
        (folder / name).symlink_to("../private")
    for name in (".amct_simulation_undo", ".amct_1a2c_0123456789abcdef.new", ".amct_1a2c_0123456789abcdef.old"):
        shutil.copytree(victim, folder / name)
        (folder / name / "link").symlink_to(victim)
    (folder / ".amct_0123456789ab_1_0.tmp").write_text("mine")
    (folder / ".amct_0123456789ab_1_0.old").symlink_to(victim / "HEAD")
    (folder / ".amct_1a2d_0123456789abcdef.new").write_text("mine")
    (folder / ".amct_fedcba9876543210").mkdir()


class Surrounded:
    """A converted model, its data and results in one folder, with planted files all around."""

    def __init__(self, top: Path) -> None:
        self.top, self.work = top, top / "work"
        self.work.mkdir()
        case = converted(SMALL, self.work, samples=8)
        self.case = Case(self.work / "source.onnx", case.prefix, case.data, case.labels)
        shutil.copy(case.source, self.case.source)
        for line in self.lines.values():
            assert main([str(word) for word in line]) in (0, 1)
        victim = private(top)
        names = sorted(p.name for p in self.work.iterdir() if p.is_file())
        for folder in (self.work, self.work / "out"):
            plant(folder, victim, names)

    @property
    def lines(self) -> dict[str, list[Any]]:
        """What a user types, by verb."""
        case, work = self.case, self.work
        return {
            "convert": [
                *("convert", "--model", case.source, "--save_path", case.prefix),
                *("--record_file", work / "out" / "r.txt"),
            ],
            "check": ["check", "--model", case.deploy],
            "doctor": ["doctor", "--model", case.source],
            "bias": ["bias", "--model", case.source, "--output", work / "b.onnx"],
            "simulate": ["simulate", "--model", case.deploy, "--data", case.data, "--save_path", work / "out"],
            "atc": ["atc", "--model", case.deploy, "--soc_version", "Ascend910B1", *SHAPE],
            "compare": [*case.arguments, "--report", work / "out" / "page.html", "--json_report", work / "r.json"],
        }

    def unchanged(self, run: Callable[[], object], outputs: tuple[str, ...]) -> None:
        """Everything but the outputs is as it was, and nothing came."""
        before = whole_tree(self.top)
        run()
        after = whole_tree(self.top)
        changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
        assert {n for n in changed if not n.startswith(tuple(f"work/{o}" for o in outputs))} == set()


OUTPUTS = {
    "convert": ("m_", "out/r.txt"),
    "check": (),
    "doctor": (),
    "bias": ("b.onnx",),
    "simulate": ("out/000", "out/simulation.json"),
    "atc": (),
    "compare": ("out/page.html", "r.json"),
}


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory: pytest.TempPathFactory) -> Surrounded:
    top = tmp_path_factory.mktemp("top")
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("log"))
    try:
        return Surrounded(top)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("way", ["absolute", pytest.param("relative", marks=pytest.mark.slow), "through a link"])
@pytest.mark.parametrize("verb", OUTPUTS)
def test_every_verb(surrounded: Surrounded, tmp_path: Path, verb: str, way: str) -> None:
    line = [str(word) for word in surrounded.lines[verb]]
    place = {"absolute": str(surrounded.work), "relative": os.path.relpath(surrounded.work), "through a link": "link"}
    (tmp_path / "link").symlink_to(surrounded.work)
    line = [word.replace(str(surrounded.work), place[way]) for word in line]
    codes: list[int] = []
    surrounded.unchanged(lambda: codes.append(main(line)), OUTPUTS[verb])
    assert codes[0] in (0, 1), line


@pytest.mark.parametrize("kind", ["open", "bare", "check"])
def test_readers_in_python(surrounded: Surrounded, kind: str) -> None:
    deploy = surrounded.case.deploy

    def run() -> None:
        if kind == "check":
            amct_onnx.check(deploy)
        elif kind == "bare":
            amct_onnx.DeploySession(deploy)
        else:
            with np.load(surrounded.case.data) as feeds, amct_onnx.DeploySession(deploy) as session:
                (name,) = (i.name for i in session.get_inputs())
                session.run(None, {name: feeds[name][:1]})

    surrounded.unchanged(run, ())
