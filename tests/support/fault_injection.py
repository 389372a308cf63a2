"""Let the n-th system call that changes files fail, or kill the process there."""

from __future__ import annotations

import errno
import mmap
import os
import re
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amct_onnx.files.hidden_folder import locked

CALLS = ("open", "pwrite", "fsync", "link", "rename", "replace", "unlink", "mkdir", "rmdir")
"""Functions of ``os`` by which the writer changes the disk; os.open counts only where it may create."""


CALLS_APART = 3
each_call = pytest.mark.parametrize("step", [CALLS_APART, pytest.param(1, marks=pytest.mark.slow)])
"""Every call is hit by the slow tests, every third one by default: one run for each call is what costs."""
SHARED_BYTES = 1 << 20
"""Number and kinds of the calls so far, one byte each: the process that puts outputs in place counts on."""


class Calls:
    """The calls that this process and those forked from it have made so far, in their order."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, SHARED_BYTES)

    def add(self, name: str) -> int:
        """Number of this call, from 1 on."""
        number = len(self) + 1
        self._shared[3 + number] = CALLS.index(name)
        self._shared[:4] = number.to_bytes(4, "little")
        return number

    def __len__(self) -> int:
        return int.from_bytes(self._shared[:4], "little")


@contextmanager
def faults(action: Callable[[int], None]) -> Iterator[Calls]:
    """Call action with the number of each call before it is made, in forked processes too; yields the calls so far."""
    made = Calls()
    lock = threading.Lock()
    originals = {name: getattr(os, name) for name in CALLS}

    def counted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                with lock:
                    number = made.add(name)
                action(number)
            return originals[name](*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(name))
    try:
        yield made
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def fail_at(number: int, *, for_good: bool = False, code: int = errno.ENOSPC) -> Callable[[int], None]:
    """Disk full, or another error, at that call, or at that call and all later ones."""

    def action(count: int) -> None:
        if count == number or (for_good and count > number):
            raise OSError(code, os.strerror(code))

    return action


def kill_at(number: int) -> Callable[[int], None]:
    """SIGKILL, before that call, to the process that makes it."""

    def action(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return action


def visible(folder: Path) -> dict[str, bytes]:
    """Paths within the folder and contents of the files that a user sees, those in folders below included."""
    paths = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {str(n): p.read_bytes() for n, p in paths.items() if not any(part.startswith(".") for part in n.parts)}


def hidden(folder: Path) -> list[str]:
    """Hidden leftovers of a run."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def leftovers(folder: Path) -> list[str]:
    """Hidden things, but for an empty folder of a run that was killed before it could give it its name."""
    return [n for n in hidden(folder) if re.fullmatch(r"\.amct_[0-9a-f]{16}", n) is None or os.listdir(folder / n)]


def settled(*folders: Path) -> None:
    """Wait until the process that puts outputs in place there has ended, should there be one."""
    present = [f for f in folders if f.is_dir()]
    with locked(present):
        # a dying process lets go of its locks one after the other
        with locked([p for f in present for p in f.glob(".amct_*") if p.is_dir() and not p.is_symlink()]):
            pass


def whole_tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder, hidden things and links included: kind, mode, owner, content, target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        name = str(path.relative_to(folder))
        found[name] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, content)
    return found
