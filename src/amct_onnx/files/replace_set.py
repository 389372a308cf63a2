"""Several files or folders replaced together: afterwards all are new or all are old, also when the process is killed.

No file system renames several names at once. So a forked child does it, in a session of its own and with its signals
blocked, while the parent waits: when the parent is killed, the child goes on to the end; when the child is killed, the
parent undoes the child's steps and does them itself. No file tells how to go on, so no planted file can either.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amct_onnx.errors import OutputError
from amct_onnx.files.hidden_folder import flush_folder

Identity = tuple[int, int]
"""Device and inode."""
START_SECONDS = 5.0
"""Seconds to wait for the child's first word: libraries may hang when a process with threads is forked."""
POLL_SECONDS = 0.1
STARTED, DONE, FAILED = b"s", b"d", b"f"
ENDING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, n)]


@dataclass(frozen=True)
class Step:
    """One target's way from old to new.

    Attributes:
        target: path that a user knows.
        new: where the new file or folder stands before; None when the earlier one only goes.
        old: where the earlier one is kept meanwhile, None when there is none.
        new_id: identity of the new one.
        old_id: identity of the earlier one.
    """

    target: Path
    new: Path | None
    old: Path | None
    new_id: Identity | None
    old_id: Identity | None


def identity(path: Path) -> Identity | None:
    """Identity of the file under a name, links not followed; None when there is none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def replace_set(steps: Sequence[Step], tidy: Callable[[bool], None]) -> None:
    """Carry out all steps or none; the locks of the targets' folders must be held.

    Args:
        steps: earlier entries go in the reverse order, new ones come in this order.
        tidy: removes the hidden folders; called with whether the set is new, in the parent, in the child, or in both.

    Raises:
        OSError: Something failed, and everything is as before.
        OutputError: Something failed, and the steps that were done could not be undone.
        KeyboardInterrupt: Ctrl-C came meanwhile; it waits until the set is whole.
    """
    with _handlers_held():
        _replace_set(steps, tidy)


def _replace_set(steps: Sequence[Step], tidy: Callable[[bool], None]) -> None:
    try:
        with _Child(steps, tidy) as child:
            child.run()
            child.wait()
        if child.error is not None:
            raise child.error
        if not _is_new(steps):
            # no process could be started, or it was killed: its steps are undone before they are done here
            _undo(steps)
            _carry_out(steps)
        elif not child.done:
            _flush(steps)
    except BaseException as error:
        if _is_new(steps) and not isinstance(error, OSError):
            tidy(True)  # Ctrl-C came too late
        else:
            _undo(steps)
            _say_what_is_lost(steps, error)
        raise
    tidy(True)


def _carry_out(steps: Sequence[Step]) -> None:
    _back_up(steps)
    _flush(steps)
    for step in steps:
        if step.new is not None:
            os.replace(step.new, step.target)
        elif identity(step.target) == step.old_id:
            os.unlink(step.target)
    _flush(steps)


def _is_new(steps: Sequence[Step]) -> bool:
    """Whether the disk shows that all steps were carried out."""
    return all(identity(s.target) == s.new_id if s.new is not None else identity(s.target) != s.old_id for s in steps)


def _back_up(steps: Sequence[Step]) -> None:
    """Keep a target by a second link, so that it is never missing; rename what cannot be linked, such as a folder."""
    folders = any(_is_folder(p) for s in steps for p in (s.new, s.target) if p is not None)
    for step in reversed(steps):
        if step.old is None:
            continue
        if folders or not _linked(step.target, step.old):
            os.rename(step.target, step.old)


def _linked(path: Path, second: Path) -> bool:
    """Whether the file has a second link now; not on every file system."""
    try:
        os.link(path, second, follow_symlinks=False)
    except (OSError, NotImplementedError):  # the latter where a link to a link cannot be made
        return False
    return True


def _undo(steps: Sequence[Step]) -> None:
    """Undo the steps that the disk shows as done, as far as possible; may be repeated."""
    for step in steps:
        with contextlib.suppress(OSError):
            _undo_step(step)
    with contextlib.suppress(OSError):
        _flush(steps)


def _undo_step(step: Step) -> None:
    standing, kept = identity(step.target), None if step.old is None else identity(step.old)
    ours = standing is not None and standing == step.new_id
    if ours and step.new is not None and (step.old is None or kept is not None):
        # it may be put in place again
        if kept is None or _is_folder(step.target) or not _linked(step.target, step.new):
            os.rename(step.target, step.new)
            standing = None
    if step.old is None or kept is None:
        return
    if standing == step.old_id:
        os.unlink(step.old)  # the second link
    elif standing is None or ours:
        os.replace(step.old, step.target)
    # a file that somebody else put there meanwhile stays, and the earlier one stays in its hidden folder


def _say_what_is_lost(steps: Sequence[Step], error: BaseException) -> None:
    """After an undo.

    Raises:
        OutputError: It is not as it was.
    """
    lost = [s for s in steps if identity(s.target) != s.old_id]
    if lost:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        kept = ", ".join(str(p) for p in dict.fromkeys(s.old.parent for s in lost if s.old is not None))
        where = f"the earlier files are in {kept}" if kept else "it is new"
        raise OutputError(
            f"{lost[0].target}: cannot be replaced ({reason}), and what was done cannot be undone; {where}. Move "
            "earlier files back, and remove new ones, when the disk works again."
        ) from error


def _flush(steps: Sequence[Step]) -> None:
    folders = [s.target.parent for s in steps] + [s.old.parent for s in steps if s.old is not None]
    for folder in dict.fromkeys(folders):
        flush_folder(folder)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


class _Child:
    """The forked process. Leaving the context waits for it, also after an exception in the parent.

    Attributes:
        done: whether it carried out all steps.
        error: why it failed and undid what it had done; None when it did not, or was killed.
    """

    def __init__(self, steps: Sequence[Step], tidy: Callable[[bool], None]) -> None:
        self.done = False
        self.error: OSError | None = None
        self._steps, self._tidy = steps, tidy
        self._reading, self._writing = os.pipe()
        self._forked = False
        self._pid = 0
        self._said = b""

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        while kind is not None:
            try:
                self.wait()
                break
            except BaseException:
                continue  # Ctrl-C once more; the child is at it
        for handle in (self._reading, self._writing):
            if handle >= 0:
                os.close(handle)

    def run(self) -> None:
        """Start it; nothing happens where no process can be started."""
        if not hasattr(os, "fork"):
            return
        with _quiet_fork():
            self._forked = True
            try:
                self._pid = os.fork()
            except OSError:
                self._forked = False
                return
            if self._pid == 0:
                self._work()

    def _work(self) -> None:
        """Run in the child: system calls only, and never back into the parent's code."""
        try:
            with contextlib.suppress(OSError):
                os.setsid()  # Ctrl-C and the end of a terminal go to the parent's session
            self._say(STARTED)
            try:
                _carry_out(self._steps)
            except BaseException as error:
                _undo(self._steps)
                name = getattr(error, "filename", None)
                text = getattr(error, "strerror", None) or str(error) or type(error).__name__
                message = [getattr(error, "errno", None), text, None if name is None else os.fsdecode(name)]
                self._say(FAILED + json.dumps(message).encode())
            else:
                self._say(DONE)
                self._tidy(True)
        finally:
            os._exit(0)

    def _say(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # the parent may be dead
            os.write(self._writing, text + b"\n")

    def wait(self) -> None:
        """Read its messages and wait for its end; may be repeated after an exception."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        begun = time.monotonic()
        while self._forked and not self._answered():
            if poll.poll(int(POLL_SECONDS * 1000)):
                said = os.read(self._reading, 1 << 16)
                if not said:
                    break
                self._said += said
            elif self._reap(os.WNOHANG):  # another process may hold the pipe open
                break
            elif self._pid and not self._said and time.monotonic() - begun > START_SECONDS:
                os.kill(self._pid, signal.SIGKILL)
                break
        self._reap(0)

    def _answered(self) -> bool:
        for line in self._said.split(b"\n")[:-1]:
            if line[:1] == FAILED:
                code, text, name = json.loads(line[1:])
                self.error = OSError(code, text, name) if code is not None else OSError(text)
            self.done = line == DONE
            if line[:1] in (DONE, FAILED):
                return True
        return False

    def _reap(self, options: int) -> bool:
        """Whether it has ended."""
        if self._pid == 0:
            return False
        try:
            ended = os.waitpid(self._pid, options)[0] != 0
        except ChildProcessError:  # somebody else has, or the program ignores its children
            ended = True
        if ended:
            self._pid = 0
        return ended


@contextlib.contextmanager
def _quiet_fork() -> Iterator[None]:
    """Neither signals nor the collector of the parent's objects may run in the child."""
    collecting = gc.isenabled()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    gc.disable()
    try:
        with warnings.catch_warnings():
            # Python warns that a forked child may hang in locks of other threads; this child takes no locks
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if collecting:
            gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deliver(came: list[int]) -> None:
    for number in came:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handlers_held() -> Iterator[None]:
    """Let Python's handlers wait; those that came run at the end.

    Blocked signals are not enough: one that another thread takes raises in this one, between any two steps: while the
    child is at work, whose steps must not be undone meanwhile, or in the hooks of os.fork, where the exception is
    dropped and a lock such as logging's stays locked.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler runs in another one
        yield
        return
    came: list[int] = []
    with contextlib.ExitStack() as restored:
        restored.callback(_deliver, came)
        for number in ENDING:
            handler = signal.getsignal(number)
            if callable(handler):
                restored.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: came.append(number))
        yield
