"""Outputs are all old or all new after a failure of any system call and a kill at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import OutputError
from amct_onnx.files import replace_set as replace_set_module
from amct_onnx.files.hidden_folder import locked, write_fully
from amct_onnx.files.transaction import Transaction
from support.data_files import external
from support.fault_injection import each_call, fail_at, faults, hidden, kill_at, leftovers, settled, visible, whole_tree
from support.killed_child import in_killed_child
from support.small_models import qdq_model

OLD = {"m_a": b"old a", "m_b": b"old b", "m_gone": b"old data"}
NEW = {"m_a": b"new a", "m_b": b"new b", "m_c": b"new c"}


def replace_set(folder: Path) -> None:
    """Two files replaced, one added, one removed."""
    with Transaction() as transaction:
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


@each_call
@pytest.mark.parametrize("old", [OLD, {}])
def test_failure_at_every_call(tmp_path: Path, old: dict[str, bytes], step: int) -> None:
    calls = number_of_calls(old_folder(tmp_path / "count", old))
    assert calls > 20
    outcomes = set()
    for number in range(1, calls + 1, step):
        folder = old_folder(tmp_path / str(number), old)
        raised = False
        with faults(fail_at(number)):
            try:
                replace_set(folder)
            except OSError as error:
                raised = True
                assert error.errno == errno.ENOSPC
        found = visible(folder)
        assert found == (old if raised else NEW), number
        outcomes.add((raised, found == NEW))
        replace_set(folder)
        assert visible(folder) == NEW and not leftovers(folder), number
    assert outcomes == {(True, False), (False, True)}


@each_call
def test_disk_that_fails_for_good(tmp_path: Path, step: int) -> None:
    """Where the renames cannot be undone, the error says where the earlier files are, and the next run leaves them."""
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    lost = 0
    for number in range(1, calls + 1, step):
        folder = old_folder(tmp_path / str(number), OLD)
        message = ""
        with faults(fail_at(number, for_good=True)):
            try:
                replace_set(folder)
            except OSError as error:
                message = str(error)
        found = visible(folder)
        if found not in (OLD, NEW):
            lost += 1
            (kept,) = folder.glob(".amct_*.old")
            assert str(kept) in message
            replace_set(folder)
            earlier = {p.name: p.read_bytes() for p in kept.iterdir()}
            assert earlier.items() <= OLD.items() and all(found[n] == OLD[n] for n in OLD.keys() - earlier.keys())
        replace_set(folder)
        assert visible(folder) == NEW
    assert 0 < lost < calls / step / 4


@each_call
def test_kill_at_every_call(tmp_path: Path, step: int) -> None:
    """Of the process that makes the call: of the run itself, or of the one that puts its outputs in place."""
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    outcomes = set()
    for number in range(1, calls + 1, step):
        folder = old_folder(tmp_path / str(number), OLD)

        def run(number: int = number, folder: Path = folder) -> None:
            with faults(kill_at(number)):
                replace_set(folder)

        survived = in_killed_child(run)
        settled(folder)
        found = visible(folder)
        assert found == NEW if survived else found in (OLD, NEW), number
        outcomes.add((survived, found == NEW))
        replace_set(folder)
        assert visible(folder) == NEW and not leftovers(folder), number
    assert outcomes == {(False, False), (False, True), (True, True)}


@each_call
def test_run_is_killed_while_its_child_works(tmp_path: Path, step: int) -> None:
    """The child goes on to the end, whichever call of its the kill of its parent hits."""
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    new = 0
    for number in range(1, calls + 1, step):
        folder = old_folder(tmp_path / str(number), OLD)

        def run(number: int = number, folder: Path = folder) -> None:
            own = os.getpid()

            def action(count: int) -> None:
                if count == number:
                    os.kill(own, signal.SIGKILL)

            with faults(action):
                replace_set(folder)

        assert not in_killed_child(run)
        settled(folder)
        assert visible(folder) in (OLD, NEW), number
        new += visible(folder) == NEW
        replace_set(folder)
        assert visible(folder) == NEW and not leftovers(folder), number
    assert new > 5 / step


@each_call
def test_ctrl_c_while_the_child_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The set is whole before the interruption goes on, however often it is repeated."""
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))

    def interrupt(number: int, frame: FrameType | None) -> None:
        """Only within the replacement: a signal that arrives late must not end the test itself."""
        while frame is not None:
            if frame.f_code is replace_set.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    # Python swallows an interruption that falls into a finalizer; the test runner must not be interrupted telling of it
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    handler = signal.signal(signal.SIGINT, interrupt)
    own, outcomes = os.getpid(), set()
    try:
        for number in range(1, calls + 1, step):
            folder = old_folder(tmp_path / str(number), OLD)

            def action(count: int, number: int = number) -> None:
                if count >= number and os.getpid() != own:
                    os.kill(own, signal.SIGINT)
                    time.sleep(0.001)

            interrupted = False
            with faults(action):
                try:
                    replace_set(folder)
                except KeyboardInterrupt:
                    interrupted = True
            # a thread that took the signal may hand it on late, before the next set is begun
            assert visible(folder) in ((NEW, OLD) if interrupted else (NEW,)) and not hidden(folder), number
            outcomes.add(interrupted)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert outcomes == {True, False}


@each_call
def test_both_processes_are_killed(tmp_path: Path, step: int) -> None:
    """All that may be mixed: each file is whole, earlier ones are kept by name, and nothing moves them again."""
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    mixed = 0
    for number in range(1, calls + 1, step):
        folder = old_folder(tmp_path / str(number), OLD)

        def run(number: int = number, folder: Path = folder) -> None:
            own = os.getpid()

            def action(count: int) -> None:
                if count == number:
                    os.kill(own, signal.SIGKILL)
                    os.kill(os.getpid(), signal.SIGKILL)

            with faults(action):
                replace_set(folder)

        assert not in_killed_child(run)
        settled(folder)
        found = visible(folder)
        whole = {"m_a": {OLD["m_a"], NEW["m_a"]}, "m_b": {OLD["m_b"], NEW["m_b"]}, "m_c": {NEW["m_c"]}}
        assert all(content in whole.get(name, {OLD["m_gone"]}) for name, content in found.items()), number
        if found not in (OLD, NEW):
            mixed += 1
            (kept,) = folder.glob(".amct_*.old")
            assert {p.name: p.read_bytes() for p in kept.iterdir()} == OLD
        kept_files = {p: p.read_bytes() for p in folder.glob(".amct_*.old/*") if p.read_bytes() != found.get(p.name)}
        replace_set(folder)
        assert visible(folder) == NEW and not list(folder.glob(".amct_*.new")), number
        assert {p: p.read_bytes() for p in folder.glob(".amct_*.old/*")} == kept_files
    assert 0 < mixed <= len(NEW) + 1


def test_leftovers_of_the_living_and_of_others_stay(tmp_path: Path) -> None:
    """What another run is writing, and whatever has such a name and was not made by a run."""
    folder = old_folder(tmp_path / "f", OLD)
    planted = folder / ".amct_1a2b_0123456789abcdef.new"
    planted.mkdir()
    (planted / "notes.txt").write_text("mine")
    (folder / ".amct_1a2c_0123456789abcdef.new").symlink_to(folder)
    (folder / ".amct_1a2d_0123456789abcdef.old").write_text("mine")
    with Transaction() as other:
        write_fully(other.open(folder / "m_z"), b"z", 0)
        before = {n: c for n, c in whole_tree(folder).items() if n.startswith(".amct")}
        replace_set(folder)
        assert {n: c for n, c in whole_tree(folder).items() if n.startswith(".amct")} == before
        other.commit()
    assert visible(folder) == {**NEW, "m_z": b"z"} and len(hidden(folder)) == 3


def test_own_folder_that_another_user_renamed_stays(tmp_path: Path) -> None:
    """Who may write into a shared folder can give a folder of ours its own inode number as name, but not a mode."""
    folder = old_folder(tmp_path / "f", OLD)
    for kind, mode in (("new", 0o755), ("new", 0o700), ("old", 0o700)):
        own = folder / "papers"
        (own / "sub").mkdir(parents=True)
        (own / "notes.txt").write_text("mine")
        os.link(folder / "m_a", own / "m_a")
        own.chmod(mode)
        own.rename(folder / f".amct_{own.stat().st_ino:x}_{mode:016x}.{kind}")
    before = {n: c for n, c in whole_tree(folder).items() if n.startswith(".amct")}
    replace_set(folder)
    assert {n: c for n, c in whole_tree(folder).items() if n.startswith(".amct")} == before
    assert visible(folder) == NEW


def test_leftovers_go_in_a_folder_whose_group_is_inherited(tmp_path: Path) -> None:
    folder = old_folder(tmp_path / "f", OLD)
    folder.chmod(0o2775)

    def die() -> None:
        with Transaction() as transaction:
            transaction.open(folder / "m_a")
            os.kill(os.getpid(), signal.SIGKILL)

    assert not in_killed_child(die)
    assert len(hidden(folder)) == 1
    replace_set(folder)
    assert not hidden(folder)


def test_leftovers_go_where_there_are_locks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = old_folder(tmp_path / "f", OLD)

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def die(_: Path) -> None:
        with Transaction() as transaction:
            transaction.open(folder / "m_a")
            os.kill(os.getpid(), signal.SIGKILL)

    assert not in_killed_child(lambda: die(folder))
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        replace_set(folder)
        assert visible(folder) == NEW and len(hidden(folder)) == 1
    replace_set(folder)
    assert not hidden(folder)


@pytest.mark.parametrize("kind", ["none", "hangs", "dies", "missing"])
def test_no_process_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """``ulimit -u``, a child that hangs in what libraries do at a fork or is killed, a system without fork."""
    folder = old_folder(tmp_path / "f", OLD)
    fork = os.fork

    def none() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def stopped() -> int:
        child = fork()
        if child == 0:
            time.sleep(60) if kind == "hangs" else os._exit(9)
        return child

    monkeypatch.setattr(replace_set_module, "START_SECONDS", 0.2)
    if kind == "missing":
        monkeypatch.delattr(os, "fork")
    else:
        monkeypatch.setattr(os, "fork", none if kind == "none" else stopped)
    replace_set(folder)
    assert visible(folder) == NEW and not hidden(folder)


@each_call
def test_failure_at_every_call_without_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.delattr(os, "fork")
    number_of_calls(old_folder(tmp_path / "first", OLD))
    for action in (fail_at, interrupt_at):
        calls = number_of_calls(old_folder(tmp_path / f"count {action.__name__}", OLD))
        for number in range(1, calls + 1, step):
            folder = old_folder(tmp_path / f"{number} {action.__name__}", OLD)
            raised = False
            with faults(action(number)):
                try:
                    replace_set(folder)
                except (OSError, KeyboardInterrupt):
                    raised = True
            assert visible(folder) in ((OLD, NEW) if raised and action is interrupt_at else (OLD if raised else NEW,))


def interrupt_at(number: int) -> Callable[[int], None]:
    """Ctrl-C before that call."""

    def action(count: int) -> None:
        if count == number:
            raise KeyboardInterrupt

    return action


def test_files_of_two_folders(tmp_path: Path) -> None:
    """One set, whatever call fails; one folder under two names does not wait for its own lock."""
    for number in range(1, 60):
        one, two = (
            old_folder(tmp_path / f"a{number}", {"x": b"old"}),
            old_folder(tmp_path / f"b{number}", {"y": b"old"}),
        )
        raised = False
        with faults(fail_at(number)) as made:
            try:
                with Transaction() as transaction:
                    for target in (one / "x", two / "y"):
                        write_fully(transaction.open(target), b"new", 0)
                    transaction.commit()
            except OSError:
                raised = True
        content = b"old" if raised else b"new"
        assert (visible(one), visible(two)) == ({"x": content}, {"y": content}), number
    assert len(made) < number  # all calls had their turn
    (tmp_path / "link").symlink_to(one)
    with locked([one, tmp_path / "link", one]):
        pass


@each_call
def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    calls = number_of_calls(old_folder(tmp_path / "count", OLD))
    for number in range(1, calls + 1, step):
        folder = old_folder(tmp_path / str(number), OLD)
        with faults(fail_at(number)), suppress(OSError):
            replace_set(folder)
        assert visible(folder) in (OLD, NEW), number


def test_undo_keeps_what_somebody_else_put_there(tmp_path: Path) -> None:
    """In place of a file of the set, while it is replaced."""
    folder = old_folder(tmp_path / "f", OLD)

    rename = os.rename

    def somebody(count: int, own: int = os.getpid()) -> None:
        if (folder / "m_b").read_bytes() == NEW["m_b"] and os.getpid() != own:
            (folder / "theirs").write_bytes(b"theirs")
            rename(folder / "theirs", folder / "m_a")
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with faults(somebody), pytest.raises(OutputError, match=r"earlier files are in .*\.old\. Move earlier"):
        replace_set(folder)
    assert visible(folder) == OLD | {"m_a": b"theirs"}
    (kept,) = folder.glob(".amct_*.old/*")
    assert (kept.name, kept.read_bytes()) == ("m_a", OLD["m_a"])


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        amct_onnx.convert_qat_model(qdq_model(tmp_path), tmp_path / "new" / "m", tmp_path / "new" / "r.txt")
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "new").iterdir()} == {0o666 & ~umask}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask


def models(folder: Path) -> tuple[Path, Path]:
    """Two models of one interface with different weights and factors."""
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    return qdq_model(folder / "one"), qdq_model(folder / "two", scale=0.2)


def convert(model: Path, folder: Path) -> dict[str, bytes]:
    amct_onnx.convert_qat_model(model, folder / "m", folder / "record.txt")
    return visible(folder)


@each_call
def test_conversion_fails_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    external(monkeypatch)
    one, two = models(tmp_path)
    folder = tmp_path / "out"
    new = convert(two, folder)
    with faults(lambda count: None) as made:
        old = convert(one, folder)
    assert {n.rpartition("_")[2] for n in old} >= {"model.onnx.data", "model.onnx", "quant.json", "record.txt"}
    assert old != new
    for number in range(1, len(made) + 1, step):
        with faults(fail_at(number)):
            try:
                convert(two, folder)
            except OutputError as error:
                assert "No space left" in str(error)
        assert visible(folder) in (old, new), number
        assert convert(one, folder) == old and not hidden(folder)


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
