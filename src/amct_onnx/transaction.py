"""Several files replaced together: afterwards all are new or all are old, also when the process is killed.

No file system renames several names at once, so an undo journal makes the set whole. The order, each step flushed to
disk before the next:

1. every file is written under a temporary name in its target's folder;
2. the journal is written: which target, its backup's name, the new file's identity;
3. each earlier file gets its backup (a hard link), each temporary file is renamed to its target;
4. the journal is removed: from here on the set is new; then the backups go.

An error between 2 and 4 undoes the renames at once. After a kill between 2 and 4 the journal stands, and the next
conversion into the prefix, or any of our readers of one of its files, undoes them first. Steps 2 to 4 hold a lock on
the folder, so conversions into one prefix follow each other. A process that is alive holds a lock on its temporary
files; those without are leftovers of a killed one and are removed by the next conversion into the prefix.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from amct_onnx.errors import OutputError

FILE_MODE = 0o640
FOLDER_MODE = 0o750
JOURNAL_LIMIT = 1 << 20
"""Bytes of a journal; ours have below 3 kB."""


@dataclass(frozen=True)
class _Step:
    """One target's way from old to new, as it stands in the journal.

    Attributes:
        folder: of the target; "" for the journal's own folder.
        target: name of the file.
        backup: name of the earlier file's second link.
        existed: whether there was an earlier file.
        new: inode and modification time of the new file; empty when the earlier file is only removed.
        temporary: name of the new file before its rename.
    """

    folder: str
    target: str
    backup: str
    existed: bool
    new: str
    temporary: str


class Transaction:
    """Context manager: ``open`` the new files, write to their handles, ``commit``; otherwise nothing happened.

    Attributes:
        folder: of the journal and the lock.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        """Name the set of files by folder and prefix."""
        self.folder = folder
        self._tag = _tag(prefix)
        self._token = f"{os.getpid():x}{os.urandom(4).hex()}"
        self._files: dict[Path, tuple[Path, int]] = {}
        self._removed: list[Path] = []
        self._made: list[Path] = []

    def __enter__(self) -> Transaction:
        """Nothing is made before ``open``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not committed."""
        for temporary, handle in self._files.values():
            with contextlib.suppress(OSError):
                _remove(temporary)
            with contextlib.suppress(OSError):
                os.close(handle)
        if kind is not None:
            for folder in reversed(self._made):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def open(self, target: Path) -> int:
        """Make the new file for a target and return its handle; missing folders are made.

        Raises:
            OSError: A folder or file cannot be made.
        """
        if target.is_dir() and not target.is_symlink():
            raise OutputError(f"{target}: is a folder. Choose another path.")
        self._make_folder(self.folder)
        self._make_folder(target.parent)
        temporary = target.parent / f".amct_{self._tag}_{self._token}_{len(self._files)}.tmp"
        with locked(self.folder):  # nobody may take the file for a leftover before it is locked
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            self._files[target] = (temporary, handle)
            lock(handle, wait=False)
        os.fchmod(handle, FILE_MODE)
        return handle

    def remove(self, target: Path) -> None:
        """Let an earlier output go that the new set does not have."""
        self._removed.append(target)

    def commit(self) -> None:
        """Flush all files and put them in place.

        Raises:
            OSError: Something failed; all earlier files are as they were.
        """
        for _, handle in self._files.values():
            os.fsync(handle)
        with locked(self.folder):
            _undo(self.folder, self._tag)
            self._remove_leftovers()
            steps = self._steps()
            journal = _journal(self.folder, self._tag)
            try:
                self._write_journal(journal, steps)
                for step in steps:
                    if step.existed:
                        _back_up(self.folder / step.folder, step)
                self._flush_folders()
                for step in steps:
                    folder = self.folder / step.folder
                    if step.temporary:
                        os.replace(folder / step.temporary, folder / step.target)
                    elif step.existed:
                        _remove(folder / step.target)
                self._flush_folders()
                os.unlink(journal)
            except BaseException:
                # while the journal stands the set is old; what fails here too is left to the next run
                with contextlib.suppress(OSError):
                    _undo(self.folder, self._tag)
                raise
            # the set is new, whatever happens to the rest
            with contextlib.suppress(OSError):
                flush_folder(self.folder)
            for step in steps:
                with contextlib.suppress(OSError):
                    _remove(self.folder / step.folder / step.backup)

    def _steps(self) -> list[_Step]:
        steps = []
        for number, target in enumerate([*self._files, *self._removed]):
            new = self._files.get(target)
            if target.is_dir() and not target.is_symlink():
                raise OutputError(f"{target}: is a folder. Choose another path.")
            steps.append(
                _Step(
                    "" if target.parent == self.folder else str(target.parent),
                    target.name,
                    f".amct_{self._tag}_{self._token}_{number}.old",
                    os.path.lexists(target),
                    _identity(os.fstat(new[1])) if new else "",
                    new[0].name if new else "",
                )
            )
        return steps

    def _write_journal(self, journal: Path, steps: list[_Step]) -> None:
        """Under a temporary name first: the journal exists whole or not at all."""
        content = json.dumps([asdict(s) for s in steps]).encode()
        temporary = journal.with_name(f".amct_{self._tag}_{self._token}_j.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_fully(handle, content, 0)
            os.fsync(handle)
            os.replace(temporary, journal)
        finally:
            with contextlib.suppress(OSError):
                _remove(temporary)
            os.close(handle)
        flush_folder(self.folder)

    def _flush_folders(self) -> None:
        for folder in dict.fromkeys(target.parent for target in self._files):
            flush_folder(folder)

    def _make_folder(self, folder: Path) -> None:
        missing = [p for p in [folder, *folder.parents] if not p.exists()]
        for path in reversed(missing):
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._made.append(path)

    def _remove_leftovers(self) -> None:
        """Temporary files and backups of killed runs; there is no journal here, so no backup is needed."""
        for folder in dict.fromkeys(target.parent for target in self._files):
            for path in folder.glob(f".amct_{self._tag}_*"):
                if path.suffix == ".old" or (path.suffix == ".tmp" and abandoned(path)):
                    with contextlib.suppress(OSError):
                        _remove(path)


def write_fully(handle: int, content: bytes | memoryview, offset: int) -> None:
    """Write all bytes at a position.

    Raises:
        OSError: The disk is full or fails.
    """
    view = memoryview(content)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count


def is_hidden(path: str | bytes) -> bool:
    """Whether a file is one of a transaction's own: new file, backup or journal."""
    return os.path.basename(os.fsdecode(path)).startswith(".amct_")


def undo_interrupted(path: Path) -> None:
    """Bring back the earlier files of a set when its replacement was interrupted and ``path`` belongs to it.

    Raises:
        OutputError: The earlier files cannot be brought back, for example in a read-only folder.
    """
    folder = Path(os.path.realpath(path.parent))
    for journal in _journals(folder):
        steps = _read_journal(journal)
        if any(s.target == path.name and not s.folder for s in steps or ()):
            with locked(folder):
                try:
                    _undo(folder, journal.name.removeprefix(".amct_").removesuffix(".undo"))
                except OSError as error:
                    raise OutputError(
                        f"{path}: a conversion was killed while it replaced this file, and the earlier one cannot be "
                        f"brought back ({error.strerror or error}). Make the folder writable or convert again."
                    ) from error


def _tag(prefix: str) -> str:
    """Short and of one length, whatever the prefix."""
    return hashlib.sha256(os.fsencode(prefix)).hexdigest()[:12]


def _journal(folder: Path, tag: str) -> Path:
    return folder / f".amct_{tag}.undo"


def _journals(folder: Path) -> Iterable[Path]:
    try:
        return [folder / n for n in os.listdir(folder) if re.fullmatch(r"\.amct_[0-9a-f]{12}\.undo", n)]
    except OSError:
        return []


def _read_journal(journal: Path) -> list[_Step] | None:
    """The steps, or None when there is no journal that this user wrote: a planted one must not move files."""
    try:
        handle = os.open(journal, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > JOURNAL_LIMIT or status.st_uid != os.geteuid():
            return None
        steps = [_Step(**entry) for entry in json.loads(os.read(handle, JOURNAL_LIMIT))]
        plain = all(os.path.basename(n) == n for s in steps for n in (s.target, s.backup, s.temporary))
    except (ValueError, TypeError, RecursionError):
        return None
    finally:
        os.close(handle)
    return steps if plain else None


def _undo(folder: Path, tag: str) -> None:
    """Bring back the old set when a journal stands; may be repeated after any interruption."""
    journal = _journal(folder, tag)
    steps = _read_journal(journal)
    if steps is None:
        return
    for step in steps:
        place = folder / step.folder
        target, backup = place / step.target, place / step.backup
        found = _found(target)
        # a file that is neither the new one nor missing was put there by somebody else: it stays
        ours = found in ("", step.new)
        if _found(backup):
            if ours:
                os.replace(backup, target)
            # where both names are one file, replace leaves the backup
            _remove(backup)
        elif not step.existed and found and ours:
            _remove(target)
        if step.temporary:
            with contextlib.suppress(OSError):
                _remove(place / step.temporary)
    for place in dict.fromkeys(folder / s.folder for s in steps):
        with contextlib.suppress(OSError):
            flush_folder(place)
    _remove(journal)
    with contextlib.suppress(OSError):
        flush_folder(folder)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _identity(status: os.stat_result) -> str:
    """Of one file's one content: the inode alone may be given to another file."""
    return f"{status.st_ino} {status.st_mtime_ns}"


def _found(path: Path) -> str:
    """Identity of the file of that name, "" when there is none."""
    try:
        return _identity(os.lstat(path))
    except FileNotFoundError:
        return ""


def _back_up(folder: Path, step: _Step) -> None:
    try:
        os.link(folder / step.target, folder / step.backup, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # no hard links on this file system: the target is missing for a moment
        os.rename(folder / step.target, folder / step.backup)


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk.

    Raises:
        OSError: The disk fails.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(handle: int, *, wait: bool) -> bool:
    """Whether the lock could be taken; True where the system has none, for example on some network folders."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def abandoned(path: Path) -> bool:
    """Whether no living process holds the lock on a temporary file or folder."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return lock(handle, wait=False)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)
