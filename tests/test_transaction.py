"""Outputs are all old or all new after a failure of any system call and a kill at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import amct_onnx
from amct_onnx import compose
from amct_onnx.cli import main
from amct_onnx.errors import OutputError
from amct_onnx.read import read_model
from amct_onnx.transaction import Transaction, undo_interrupted, write_fully
from fault_injection import fail_at, faults, hidden, kill_at, visible
from test_errors import qdq_model

OLD = {"m_a": b"old a", "m_b": b"old b", "m_gone": b"old data"}
NEW = {"m_a": b"new a", "m_b": b"new b", "m_c": b"new c"}


def replace_set(folder: Path) -> None:
    """Two files replaced, one added, one removed."""
    with Transaction(folder, "m_") as transaction:
        for name, content in NEW.items():
            write_fully(transaction.open(folder / name), content, 0)
        transaction.remove(folder / "m_gone")
        transaction.commit()


def old_folder(folder: Path, old: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in old.items():
        (folder / name).write_bytes(content)
    return folder


def number_of_calls(folder: Path) -> int:
    with faults(lambda count: None) as made:
        replace_set(folder)
    assert visible(folder) == NEW and not hidden(folder)
    return len(made)


@pytest.mark.parametrize("old", [OLD, {}])
def test_failure_at_every_call(tmp_path: Path, old: dict[str, bytes]) -> None:
    calls = number_of_calls(old_folder(tmp_path / "count", old))
    assert calls > 20
    outcomes = set()
    for number in range(1, calls + 1):
        folder = old_folder(tmp_path / str(number), old)
        with faults(fail_at(number)):
            try:
                replace_set(folder)
            except OSError:
                outcomes.add("raised")
        found = visible(folder)
        assert found in (old, NEW), number
        outcomes.add("new" if found == NEW else "old")
        replace_set(folder)
        assert visible(folder) == NEW and not hidden(folder)
    assert outcomes == {"raised", "new", "old"}


def test_disk_that_fails_for_good(tmp_path: Path) -> None:
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    for number in range(1, calls + 1):
        folder = old_folder(tmp_path / str(number), OLD)
        with faults(fail_at(number, for_good=True)), suppress(OSError):
            replace_set(folder)
        undo_interrupted(folder / "m_a")
        assert visible(folder) in (OLD, NEW), number
        replace_set(folder)
        assert visible(folder) == NEW and not hidden(folder)


def in_killed_child(run: Callable[[], None], seconds: float | None = None) -> bool:
    """Run in a forked process, killed after some time if it does not do that itself; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), status
    return status == 0


def test_kill_at_every_call(tmp_path: Path) -> None:
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    outcomes = set()
    for number in range(1, calls + 1):
        folder = old_folder(tmp_path / str(number), OLD)

        def run(number: int = number, folder: Path = folder) -> None:
            with faults(kill_at(number)):
                replace_set(folder)

        assert not in_killed_child(run)
        undo_interrupted(folder / "m_b")
        found = visible(folder)
        assert found in (OLD, NEW), number
        outcomes.add(found == NEW)
        replace_set(folder)
        assert visible(folder) == NEW and not hidden(folder)
    assert outcomes == {True, False}


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    for number in range(1, calls + 1):
        folder = old_folder(tmp_path / str(number), OLD)
        with faults(fail_at(number)), suppress(OSError):
            replace_set(folder)
        assert visible(folder) in (OLD, NEW), number


def test_undo_keeps_what_somebody_else_put_there(tmp_path: Path) -> None:
    folder = old_folder(tmp_path / "f", OLD)
    in_killed_child(lambda: _killed_before_journal_goes(folder))
    (folder / "m_a").unlink()
    (folder / "m_a").write_bytes(b"the user's")
    undo_interrupted(folder / "m_b")
    assert visible(folder) == OLD | {"m_a": b"the user's"}


def _killed_before_journal_goes(folder: Path) -> None:
    original = os.unlink

    def unlink(path: os.PathLike[str]) -> None:
        if str(path).endswith(".undo"):
            os.kill(os.getpid(), signal.SIGKILL)
        original(path)

    os.unlink = unlink
    replace_set(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[{}]", b"\xff" * 99, b"[" * 100_000])
def test_damaged_journal_is_ignored(tmp_path: Path, content: bytes) -> None:
    folder = old_folder(tmp_path / "f", OLD)
    (folder / ".amct_0123456789ab.undo").write_bytes(content)
    undo_interrupted(folder / "m_a")
    assert visible(folder) == OLD


def test_journal_that_names_other_folders_files_is_ignored(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = old_folder(tmp_path / "f", OLD)
    entry = {"folder": "", "target": "m_a", "existed": False, "temporary": "../victim", "new": "", "backup": "b"}
    (folder / ".amct_0123456789ab.undo").write_text(json.dumps([entry]))
    undo_interrupted(folder / "m_a")
    assert victim.read_text() == "mine"


def models(folder: Path) -> tuple[Path, Path]:
    """Two models of one interface with different weights and factors."""
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    return qdq_model(folder / "one"), qdq_model(folder / "two", scale=0.2)


def external(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small models have data files, so that the set has all kinds of files."""
    monkeypatch.setattr(compose, "INLINE_LIMIT", 0)
    monkeypatch.setattr(compose, "EXTERNAL_FROM", 1)


def convert(model: Path, folder: Path) -> dict[str, bytes]:
    amct_onnx.convert_qat_model(model, folder / "m", folder / "record.txt")
    return visible(folder)


def test_conversion_fails_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(monkeypatch)
    one, two = models(tmp_path)
    folder = tmp_path / "out"
    new = convert(two, folder)
    with faults(lambda count: None) as made:
        old = convert(one, folder)
    assert {n.rpartition("_")[2] for n in old} >= {"model.onnx.data", "model.onnx", "quant.json", "record.txt"}
    assert old != new
    for number in range(1, len(made) + 1):
        with faults(fail_at(number)):
            try:
                convert(two, folder)
            except OutputError as error:
                assert "No space left" in str(error)
        assert visible(folder) in (old, new), number
        assert convert(one, folder) == old and not hidden(folder)


def kill_conversions(tmp_path: Path, rounds: int) -> None:
    one, two = models(tmp_path)
    folder = tmp_path / "out"
    new, old = convert(two, folder), convert(one, folder)
    start = time.perf_counter()
    convert(one, folder)
    duration = time.perf_counter() - start
    moments = random.Random(0)
    for number in range(rounds):
        in_killed_child(lambda: convert(two, folder), moments.uniform(0, 1.2 * duration))
        undo_interrupted(folder / "m_deploy_model.onnx")
        assert visible(folder) in (old, new), number
        assert convert(one, folder) == old and not hidden(folder), number


def test_kill_conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(monkeypatch)
    kill_conversions(tmp_path, 15)


@pytest.mark.slow
def test_kill_conversions_at_200_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(monkeypatch)
    kill_conversions(tmp_path, 200)


def test_reader_undoes_first(tmp_path: Path) -> None:
    one, two = models(tmp_path)
    folder = tmp_path / "out"
    old = convert(one, folder)

    def run() -> None:
        original = os.unlink

        def unlink(path: os.PathLike[str]) -> None:
            if str(path).endswith(".undo"):
                os.kill(os.getpid(), signal.SIGKILL)
            original(path)

        os.unlink = unlink
        convert(two, folder)

    assert not in_killed_child(run)
    assert any(n.endswith(".undo") for n in hidden(folder))
    read_model(folder / "m_fake_quant_model.onnx")
    assert visible(folder) == old


def test_two_conversions_into_one_prefix(tmp_path: Path) -> None:
    one, two = models(tmp_path)
    folder = tmp_path / "out"
    first, second = convert(one, folder), convert(two, folder)
    for _ in range(5):
        threads = [threading.Thread(target=convert, args=(m, folder)) for m in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert visible(folder) in (first, second)
        assert not hidden(folder)


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(count: int) -> None:
        if count == 6:
            raise KeyboardInterrupt

    with faults(interrupt), pytest.raises(KeyboardInterrupt):
        convert(qdq_model(tmp_path), tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("first", [3, 6, 9])
def test_more_interrupts_do_not_end_the_cleaning_up(
    tmp_path: Path, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C again at each call that follows the first one: it left a hidden file behind."""

    def interrupt(count: int) -> None:
        if count >= first:
            os.kill(os.getpid(), signal.SIGINT)

    convert(qdq_model(tmp_path), tmp_path / "out")
    before = visible(tmp_path / "out")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with faults(interrupt):
            code = main(["convert", "--model", str(qdq_model(tmp_path)), "--save_path", str(tmp_path / "out" / "m")])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert code == 130
    assert capsys.readouterr().err.endswith("amct_onnx: interrupted.\n")
    assert visible(tmp_path / "out") == before
    assert not hidden(tmp_path / "out")


@pytest.mark.parametrize("kind", ["file", "hard link", "data"])
def test_output_that_is_the_input(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    external(monkeypatch)
    source = amct_onnx.convert_qat_model(qdq_model(tmp_path), tmp_path / "s").fake_quant_model
    model = qdq_model(tmp_path)
    target = tmp_path / "m_deploy_model.onnx"
    if kind == "file":
        model = model.rename(target)
    elif kind == "hard link":
        os.link(model, target)
    else:
        import onnx

        proto = onnx.load(model)
        model = tmp_path / "source.onnx"
        onnx.save(proto, model, save_as_external_data=True, location="m_fake_quant_model.onnx.data", size_threshold=0)
    before = visible(tmp_path)
    with pytest.raises(OutputError, match="is an input itself or its data"):
        amct_onnx.convert_qat_model(model, tmp_path / "m")
    assert visible(tmp_path) == before
    assert Path(source).exists()


def test_output_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m_quant.json").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        amct_onnx.convert_qat_model(qdq_model(tmp_path), tmp_path / "m")
    assert visible(tmp_path).keys() == {"source.onnx"} and not hidden(tmp_path)


def test_output_that_is_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("m_deploy_model.onnx", "r.txt"):
        (tmp_path / name).symlink_to(precious)
    (tmp_path / "m_quant.json").symlink_to(tmp_path / "nowhere")
    amct_onnx.convert_qat_model(qdq_model(tmp_path), tmp_path / "m", tmp_path / "r.txt")
    assert precious.read_text() == "mine"
    assert not any(p.is_symlink() for p in tmp_path.iterdir())


def test_record_that_is_another_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="overwrite another output"):
        amct_onnx.convert_qat_model(qdq_model(tmp_path), tmp_path / "m", tmp_path / "m_quant.json")


def test_record_in_another_folder(tmp_path: Path) -> None:
    model = qdq_model(tmp_path)
    for _ in range(2):
        amct_onnx.convert_qat_model(model, tmp_path / "a" / "m", tmp_path / "b" / "r.txt")
    assert visible(tmp_path / "b").keys() == {"r.txt"}
    assert not hidden(tmp_path / "a") and not hidden(tmp_path / "b")


def test_data_file_of_an_earlier_conversion_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = qdq_model(tmp_path)
    with monkeypatch.context() as patch:
        external(patch)
        amct_onnx.convert_qat_model(model, tmp_path / "m")
    assert (tmp_path / "m_deploy_model.onnx.data").exists()
    amct_onnx.convert_qat_model(model, tmp_path / "m")
    assert not (tmp_path / "m_deploy_model.onnx.data").exists()


def test_error_names_the_file_that_the_user_knows(tmp_path: Path) -> None:
    source = qdq_model(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/m_deploy_model\.onnx: cannot be written"):
        amct_onnx.convert_qat_model(source, tmp_path / "file" / "m")
