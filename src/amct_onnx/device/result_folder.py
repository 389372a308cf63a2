"""The results of a run over a data set: one folder for each feed and a file of facts, all of them new or all as before.

Feeds are written into a hidden folder below and flushed. Then, under the lock of the folder:

1. what an earlier run left is moved aside, its facts first, and the folder that holds it renamed to ``UNDO``;
2. the new feeds are moved into place, the new facts last: from here on the results are new;
3. what was moved aside goes.

An error undoes this at once, a kill is undone by the next run: while no facts stand, the results are those in ``UNDO``.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_onnx.errors import OutputError
from amct_onnx.transaction import FILE_MODE, FOLDER_MODE, abandoned, flush_folder, lock, locked, write_fully

FACTS_FILE = "simulation.json"
SUFFIXES = (".npy", ".bin")
NEW, ASIDE, UNDO = ".amct_simulation_new_", ".amct_simulation_aside", ".amct_simulation_undo"
"""Hidden folders: of a run, and of the results that it replaces."""


class ResultFolder:
    """Context manager: ``add`` feeds in their order, then ``commit``; otherwise nothing happened."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made before ``add``."""
        self._folder = Path(os.path.abspath(folder))
        self._new = self._folder / f"{NEW}{os.getpid():x}{os.urandom(4).hex()}"
        self._handle: int | None = None
        self._made: list[Path] = []
        self._feeds = 0

    def __enter__(self) -> ResultFolder:
        """Undo what a kill interrupted, and see whether the earlier results may be replaced: before a long run.

        Raises:
            OutputError: They hold what no simulation wrote, or cannot be brought back.
        """
        with self._output_errors():
            if self._folder.is_dir():
                with locked(self._folder):
                    self._undo()
            self._earlier()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not committed."""
        if self._handle is not None:
            shutil.rmtree(self._new, ignore_errors=True)
            os.close(self._handle)
        if kind is not None:
            for folder in reversed(self._made):
                with suppress(OSError):
                    folder.rmdir()

    def add(self, files: Sequence[tuple[str, npt.NDArray[Any]]], file_format: str) -> None:
        """Write the next feed.

        Args:
            files: names without suffix, and arrays.
            file_format: ``npy`` or ``bin``.

        Raises:
            OutputError: It cannot be written.
        """
        with self._output_errors():
            self._add(files, file_format)

    def commit(self, facts: str) -> None:
        """Put everything in place.

        Args:
            facts: text of ``simulation.json``.

        Raises:
            OutputError: It cannot be done, or the earlier results hold what no simulation wrote; they are as they were.
        """
        with self._output_errors():
            self._commit(facts)

    def _add(self, files: Sequence[tuple[str, npt.NDArray[Any]]], file_format: str) -> None:
        if self._handle is None:
            self._start()
        target = self._new / feed_folder(self._feeds)
        target.mkdir(mode=FOLDER_MODE)
        taken: set[str] = set()
        for index, (name, array) in enumerate(files):
            # names that differ only in characters a file name cannot hold
            unique = f"{name}.{index}" if name in taken else name
            taken.add(name)
            _write(target / f"{unique}.{file_format}", _content(array, file_format))
        self._feeds += 1

    def _commit(self, facts: str) -> None:
        if self._handle is None:
            self._start()
        _write(self._new / FACTS_FILE, [facts.encode()])
        # a data set gives many small files: one flush of all disks takes less than one of each file
        os.sync()
        with locked(self._folder):
            self._undo()
            for leftover in self._folder.glob(f"{NEW}*"):
                if leftover != self._new and abandoned(leftover):
                    shutil.rmtree(leftover, ignore_errors=True)
            earlier = self._earlier()
            try:
                self._move_aside(earlier)
                for name in [*map(feed_folder, range(self._feeds)), FACTS_FILE]:
                    os.rename(self._new / name, self._folder / name)
            except BaseException:
                # what fails here too is left to the next run
                with suppress(OSError):
                    self._undo()
                raise
            # the results are new, whatever happens to the rest
            with suppress(OSError):
                flush_folder(self._folder)
                self._drop(self._folder / UNDO)

    @contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            reason = error.strerror or error
            raise OutputError(f"{self._folder}: cannot be written ({reason}). Choose another save_path.") from error

    def _start(self) -> None:
        missing = [p for p in [self._folder, *self._folder.parents] if not p.exists()]
        for path in reversed(missing):
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._made.append(path)
        with locked(self._folder):  # nobody may take the folder for a leftover before it is locked
            self._new.mkdir(mode=FOLDER_MODE)
            self._handle = os.open(self._new, os.O_RDONLY | os.O_CLOEXEC)
            lock(self._handle, wait=False)

    def _move_aside(self, earlier: Sequence[Path]) -> None:
        aside = self._folder / ASIDE
        aside.mkdir(mode=FOLDER_MODE)
        for path in earlier:
            os.rename(path, aside / path.name)
        flush_folder(self._folder)
        os.rename(aside, self._folder / UNDO)
        flush_folder(self._folder)

    def _undo(self) -> None:
        """Bring back the earlier results when a replacement was interrupted; may be repeated."""
        aside, undo = self._folder / ASIDE, self._folder / UNDO
        if undo.is_dir() and not (self._folder / FACTS_FILE).exists():
            # the feeds in place are new; they go, and the earlier ones are aside as if they had just been moved
            for path in reversed(_feeds_in(self._folder)):
                shutil.rmtree(path)
            os.rename(undo, aside)
        if undo.is_dir():
            self._drop(undo)
        if aside.is_dir():
            for name in sorted(os.listdir(aside)):  # digits come before the name of the facts
                os.rename(aside / name, self._folder / name)
            aside.rmdir()

    def _drop(self, undo: Path) -> None:
        """In one step, so that half of it is never brought back; what stays of it is a leftover like others."""
        dropped = self._new.with_name(f"{self._new.name}_old")
        os.rename(undo, dropped)
        shutil.rmtree(dropped, ignore_errors=True)

    def _earlier(self) -> list[Path]:
        """What an earlier run left, its facts first."""
        feeds = _feeds_in(self._folder)
        for feed in feeds:
            if feed.is_symlink() or any(not f.is_file() or f.suffix not in SUFFIXES for f in feed.iterdir()):
                raise OutputError(f"{feed}: holds other files than a simulation's. Choose another save_path.")
        facts = self._folder / FACTS_FILE
        if facts.is_dir():
            raise OutputError(f"{facts}: is a folder. Choose another save_path.")
        return [facts, *feeds] if os.path.lexists(facts) else feeds


def feed_folder(number: int) -> str:
    """Name of the folder that holds what one feed gave."""
    return f"{number:06d}"


def _feeds_in(folder: Path) -> list[Path]:
    """Folders of a run, whole or interrupted: it numbers them without gaps."""
    found: list[Path] = []
    while os.path.lexists(folder / feed_folder(len(found))):
        found.append(folder / feed_folder(len(found)))
    return found


def _content(array: npt.NDArray[Any], file_format: str) -> list[bytes | memoryview]:
    plain = np.ascontiguousarray(array)
    numbers = plain.reshape(-1).view(np.uint8).data
    if file_format == "bin":
        return [numbers]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(plain.reshape(array.shape)))
    return [header.getvalue(), numbers]


def _write(path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        position = 0
        for piece in pieces:
            write_fully(handle, piece, position)
            position += len(piece)
    finally:
        os.close(handle)
