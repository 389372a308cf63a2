"""What bias, compare and simulate write is all old or all new; what must not be overwritten is not."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import OutputError
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.simulate.result_folder import ResultFolder
from support.comparison_cases import SMALL, Case, converted
from support.data_files import external
from support.fault_injection import each_call, fail_at, faults, hidden, kill_at, leftovers, settled, visible
from support.killed_child import in_killed_child
from support.small_models import qdq_model

Write = Callable[[Path], None]


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return converted(SMALL, tmp_path, samples=8)


def write_results(folder: Path, feeds: int, *, value: int) -> None:
    """As simulate does, without running a model."""
    with ResultFolder(folder) as results:
        for number in range(feeds):
            results.add([("y", np.full(number, value))], "npy")
        results.commit({"feeds": feeds, "value": value})


def all_or_nothing(tmp_path: Path, write_old: Write, write_new: Write, step: int) -> None:
    """Calls that lie ``step`` apart fail once, and every third of them from there on, over earlier outputs."""
    (tmp_path / "old").mkdir()
    write_old(tmp_path / "old")
    counted = shutil.copytree(tmp_path / "old", tmp_path / "count")
    old = visible(counted)
    with faults(lambda count: None) as made:
        write_new(counted)
    new = visible(counted)
    assert len(made) > 10 and new != old and not hidden(counted)
    for number in range(1, len(made) + 1, step):
        for code, for_good in ((errno.ENOSPC, False), (errno.EIO, True))[: 1 + (number // step % 3 == 0)]:
            folder = shutil.copytree(tmp_path / "old", tmp_path / f"{number}_{code}")
            raised = False
            with faults(fail_at(number, for_good=for_good, code=code)):
                try:
                    write_new(folder)
                except OutputError as error:
                    raised = True
                    assert os.strerror(code) in str(error), error
                    # of hidden places the user knows none, but for that of files that cannot be brought back
                    assert (".amct" in str(error)) == (visible(folder) != old), error
            if not for_good:
                assert visible(folder) == (old if raised else new), (number, raised)
                continue
            if visible(folder) not in (old, new):  # then the error said where the earlier files are
                assert raised and list(folder.glob(".amct_*.old/*"))
                for feed in folder.glob("00*"):
                    shutil.rmtree(feed)  # as the refusal of results without facts says
            write_new(folder)
            assert visible(folder) == new, number
            assert not [n for n in leftovers(folder) if not n.endswith(".old")], number


@each_call
def test_bias_fails_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    external(monkeypatch)
    for name, scale in (("one", 0.1), ("two", 0.2)):
        (tmp_path / name).mkdir()
        qdq_model(tmp_path / name, scale=scale)

    def write(name: str) -> Write:
        return lambda folder: amct_onnx.quantize_bias(tmp_path / name / "source.onnx", folder / "b.onnx") and None

    all_or_nothing(tmp_path, write("one"), write("two"), step)


@each_call
def test_reports_of_compare_fail_at_every_call(tmp_path: Path, step: int) -> None:
    """Reports and state are written by ``write_texts``."""

    def write(text: str) -> Write:
        return lambda folder: write_texts({folder / "page.html": text, folder / "report.json": f"[{text}]"})

    all_or_nothing(tmp_path, write("1"), write("2"), step)


@each_call
def test_results_of_simulate_fail_at_every_call(tmp_path: Path, step: int) -> None:
    all_or_nothing(tmp_path, lambda f: write_results(f, 1, value=1), lambda f: write_results(f, 2, value=2), step)


@each_call
def test_results_of_simulate_killed_at_every_call(tmp_path: Path, step: int) -> None:
    write_results(tmp_path / "old", 2, value=1)
    counted = shutil.copytree(tmp_path / "old", tmp_path / "count")
    old = visible(counted)
    with faults(lambda count: None) as made:
        write_results(counted, 1, value=2)
    new, outcomes = visible(counted), set()
    for number in range(1, len(made) + 1, step):
        folder = shutil.copytree(tmp_path / "old", tmp_path / str(number))

        def run(number: int = number, folder: Path = folder) -> None:
            with faults(kill_at(number)):
                write_results(folder, 1, value=2)

        survived = in_killed_child(run)
        settled(folder)
        found = visible(folder)
        assert found == new if survived else found in (old, new), number
        outcomes.add((survived, found == new))
        write_results(folder, 1, value=2)
        assert visible(folder) == new and not leftovers(folder), number
    assert outcomes == {(False, False), (False, True), (True, True)}


def test_report_that_cannot_be_written_does_not_lose_the_run(small: Case, tmp_path: Path) -> None:
    """Hours may lie behind it: the figures stay in the state file, also when the run was complete."""
    report = tmp_path / "folder" / "r.json"

    def break_folder(done: int, total: int | None) -> None:
        """After the look at the beginning."""
        if done:
            report.parent.touch()

    with pytest.raises(OutputError, match="folder/r.json: cannot be written"):
        amct_onnx.compare(small.source, small.prefix, small.data, json_report=report, progress=break_folder)
    runs: list[int] = []
    found = amct_onnx.compare(
        small.source,
        small.prefix,
        small.data,
        json_report=tmp_path / "r.json",
        resume=True,
        progress=lambda done, total: runs.append(done),
    )
    assert found.complete and found.samples == 8 and runs == [8]
    assert (tmp_path / "r.json").exists() and not small.state.exists()


def test_reports_in_two_folders_that_are_named_from_here(small: Case) -> None:
    Path("pages").mkdir()
    assert main([*small.arguments, "--report", "pages/page.html", "--json_report", "report.json"]) in (0, 1)
    assert Path("pages/page.html").exists() and Path("report.json").exists()
    assert not hidden(Path("pages")) and not hidden(Path())


def test_compare_overwrites_no_input(small: Case, tmp_path: Path) -> None:
    refused = {"pipe": "is a device or pipe", "folder": "is a folder"}
    names = ["m_deploy_model.onnx", "m_fake_quant_model.onnx", "m_quant.json", "data.npz", "labels.npy", "evaluator.py"]
    refused |= {name: "is an input itself" for name in [*names, "hard_link", "source.data"]}
    (tmp_path / "evaluator.py").write_text("def evaluate(outputs, feeds, labels): return {}")
    source = tmp_path / "source.onnx"
    model = onnx.load(small.source)
    onnx.save(model, source, save_as_external_data=True, location="source.data", size_threshold=0)
    os.link(small.data, tmp_path / "hard_link")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = {n: c for n, c in visible(tmp_path).items() if not n.startswith("amct_log")}
    inputs = {"labels": small.labels, "evaluator": tmp_path / "evaluator.py"}
    for number, (target, words) in enumerate(refused.items()):
        option = ("report", "json_report", "state_file")[number % 3]
        with pytest.raises(OutputError, match=f"{target}: {words}"):
            amct_onnx.compare(source, small.prefix, small.data, **inputs, **{option: tmp_path / target})
    assert {n: c for n, c in visible(tmp_path).items() if not n.startswith("amct_log")} == before
    assert (tmp_path / "pipe").is_fifo()


def test_reports_replace_links_and_earlier_reports_only(small: Case, tmp_path: Path) -> None:
    """A link is replaced; a report may lie among the data, but replaces none of them."""
    folder = tmp_path / "feeds"
    folder.mkdir()
    shutil.copy(small.data, folder / "0.npz")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (folder / "r.json").symlink_to(precious)
    for _ in range(2):
        amct_onnx.compare(small.source, small.prefix, folder, json_report=folder / "r.json")
        assert precious.read_text() == "mine" and not (folder / "r.json").is_symlink()
    with pytest.raises(OutputError, match="lies among the data"):
        amct_onnx.compare(small.source, small.prefix, folder, json_report=folder / "0.npz")


# -- a folder in which nothing may be written --------------------------------------------------------------------------


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that everybody may read, and nobody, but for root, write."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(line: list[str]) -> tuple[int, str]:
    """Exit code and stderr of the command, run by a user who is not root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            sys.stderr = os.fdopen(writing, "w")
            code = main(line)
            sys.stderr.flush()
            os._exit(code)
        except BaseException:
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading) as text:
        error = text.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), error


def test_folder_that_is_read_only(read_only: Path) -> None:
    case = converted(SMALL, read_only, samples=8)
    source = shutil.copy(case.source, read_only)
    feeds = {"convert": ["--save_path", case.prefix], "bias": ["--output", read_only / "b.onnx"]}
    lines = [[verb, "--model", source, *options] for verb, options in feeds.items()]
    lines += [[*case.arguments, option, read_only / "r"] for option in ("--report", "--json_report")]
    lines += [["simulate", "--model", case.deploy, "--data", case.data, "--save_path", read_only / "out"]]
    lines += [["simulate", "--model", case.deploy, "--data", case.data, "--save_path", read_only]]
    before = visible(read_only)
    read_only.chmod(0o555)
    for line in lines:
        code, error = as_nobody([str(word) for word in line])
        last = error.splitlines()[-1]
        assert code == 2 and last.startswith(f"amct_onnx: error: {read_only}"), (line, code, error)
        assert "cannot be written (Permission denied). Choose " in last
        assert visible(read_only) == before and not hidden(read_only)
