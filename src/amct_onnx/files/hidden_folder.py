"""Hidden folders beside the targets: new outputs are made in them and earlier ones kept. Leftovers of dead runs go.

The name of such a folder states the folder's own inode number. Files that came in an archive, or were planted, cannot
know the number that they will get. Another user of a shared folder can, and can rename a folder of this user; but only
its owner can give it the unusual mode. So name and mode prove that a run made the folder. A run that is alive holds a
lock on it. Only the user may read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from amct_onnx.common.log import get_logger

PREFIX = ".amct_"
NEW, OLD = "new", "old"
"""Kinds of hidden folders: new outputs before they are in place, or earlier ones while they are replaced."""
NAME = re.compile(rf"{re.escape(PREFIX)}([0-9a-f]+)_[0-9a-f]{{16}}\.({NEW}|{OLD})")
MODE = 0o1700
"""Private, with the sticky bit, which means nothing here and which people give to public folders only."""
MODE_BITS = 0o1777
"""Bits that are compared; a folder may inherit the bit of its group."""


class HiddenFolder:
    """A hidden folder: it is made here, filled by others, and removed here.

    Attributes:
        path: its present name.
    """

    def __init__(self, parent: Path, kind: str) -> None:
        """Choose a name; nothing is made."""
        self._parent, self._kind, self._token = parent, kind, os.urandom(8).hex()
        self.path = parent / f"{PREFIX}{self._token}"
        self._names = [self.path]
        self._handle: int | None = None

    def make(self) -> None:
        """Make it, lock it, and then give it the name that proves that a run made it.

        Raises:
            OSError: It cannot be made.
        """
        os.mkdir(self.path, MODE)
        self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        _take(self._handle)
        proven = self._parent / f"{PREFIX}{os.fstat(self._handle).st_ino:x}_{self._token}.{self._kind}"
        self._names.append(proven)
        os.rename(self.path, proven)
        self.path = proven

    def remove(self, *, filled: bool) -> None:
        """Remove it, with its content or only when empty; after an error the next run does it."""
        for name in self._names:
            if filled:
                _clear(name)
            with contextlib.suppress(OSError):
                os.rmdir(name)

    def close(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with contextlib.suppress(OSError):
                os.close(handle)


def is_hidden(path: str | bytes) -> bool:
    """Whether a path leads into a hidden folder or is one."""
    return any(part.startswith(PREFIX) for part in Path(os.fsdecode(path)).parts)


def remove_leftovers(folder: Path) -> None:
    """Remove what dead runs of this user left in a folder. Earlier outputs without another copy stay and are named.

    Raises:
        OSError: The folder cannot be read.
    """
    for name in sorted(os.listdir(folder)):
        match = NAME.fullmatch(name)
        if match is None:
            continue
        path = folder / name
        with _of_dead_run(path, int(match[1], 16)) as dead:
            if dead and match[2] == NEW:
                _clear(path)
            elif dead:
                _drop_second_links(path, folder)
            if dead:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        if dead and match[2] == OLD and path.is_dir():
            get_logger("Utils").warning(
                "%s holds earlier outputs that a run was replacing when it was killed. Compare them with those in "
                "place, move back what you need, and remove the folder.",
                path,
            )


@contextlib.contextmanager
def locked(folders: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of folders, so that runs put their outputs in place one after the other.

    Raises:
        OSError: A folder cannot be opened. A file system without locks raises nothing.
    """
    handles: dict[tuple[int, int], int] = {}
    try:
        for folder in folders:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            status = os.fstat(handle)
            if handles.setdefault((status.st_dev, status.st_ino), handle) != handle:
                os.close(handle)  # one folder under two names
        for _, handle in sorted(handles.items()):  # one order for all runs: none waits for another in a circle
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        for handle in handles.values():
            os.close(handle)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk.

    Raises:
        OSError: The disk fails.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_fully(handle: int, content: bytes | memoryview, offset: int) -> None:
    """Write all bytes at a position.

    Raises:
        OSError: The disk is full or fails.
    """
    view = memoryview(content)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count


def _take(handle: int) -> bool:
    """Take the lock if it is free; False otherwise, and on a file system without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _of_dead_run(path: Path, inode: int) -> Iterator[bool]:
    """Whether a run of this user made the folder and is dead; holds its lock meanwhile."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        status = os.fstat(handle)
        own = status.st_uid == os.geteuid() and status.st_mode & MODE_BITS == MODE
        yield own and status.st_ino == inode and _take(handle)
    finally:
        os.close(handle)


def _clear(folder: Path, levels: int = 2) -> None:
    """Remove the files of a folder, and those of folders in it; a link is removed, not followed."""
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif levels > 1:
                _clear(Path(entry.path), levels - 1)
                os.rmdir(entry.path)


def _drop_second_links(old: Path, folder: Path) -> None:
    """Remove earlier outputs from ``old`` that are still in their place as the same file."""
    for name in os.listdir(old):
        with contextlib.suppress(OSError):
            kept, standing = os.lstat(old / name), os.lstat(folder / name)
            if not stat.S_ISDIR(kept.st_mode) and os.path.samestat(kept, standing):
                os.unlink(old / name)
