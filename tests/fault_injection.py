"""Let the n-th system call that changes files fail, or kill the process there."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALLS = ("open", "pwrite", "fsync", "sync", "fchmod", "link", "rename", "replace", "unlink", "mkdir", "rmdir")
"""Functions of ``os`` by which the writer changes the disk; os.open counts only where it may create."""


@contextmanager
def faults(action: Callable[[int], None]) -> Iterator[list[str]]:
    """Call action with the number of each call before it is made; yields the names of the calls so far."""
    made: list[str] = []
    originals = {name: getattr(os, name) for name in CALLS}

    def counted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                made.append(name)
                action(len(made))
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
    """SIGKILL to the own process before that call."""

    def action(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return action


def visible(folder: Path) -> dict[str, bytes]:
    """Paths within the folder and contents of the files that a user sees, those in folders below included."""
    paths = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {str(n): p.read_bytes() for n, p in paths.items() if not any(part.startswith(".") for part in n.parts)}


def hidden(folder: Path) -> list[str]:
    """What a run left of its own."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))
