"""A set of outputs, written beside their targets under hidden names and then put in place together, or not at all.

1. Leftovers of dead runs go.
2. Everything is written into a hidden folder in its target's folder, and flushed.
3. Under the locks of these folders the set is replaced (``replace_set``).

Before step 3 no file of the user has changed. Nothing outside the targets' folders is touched.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from amct_onnx.errors import OutputError
from amct_onnx.files.hidden_folder import NEW, OLD, HiddenFolder, locked, remove_leftovers
from amct_onnx.files.replace_set import Step, identity, replace_set

FILE_MODE = 0o666
FOLDER_MODE = 0o777
"""Modes before the umask is applied."""


class Transaction:
    """Context manager: ``open`` the new files, write to their handles, ``commit``; otherwise nothing happened."""

    def __init__(self) -> None:
        """Start with an empty set."""
        self._new: dict[Path, HiddenFolder] = {}
        self._old: dict[Path, HiddenFolder] = {}
        self._places: dict[Path, Path] = {}
        self._removed: list[Path] = []
        self._handles: list[int] = []
        self._new_folders: list[Path] = []
        self._committed = False

    def __enter__(self) -> Transaction:
        """Enter; nothing is made before ``place`` or ``open``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not committed."""
        for handle in self._handles:
            with contextlib.suppress(OSError):
                os.close(handle)
        self._tidy(self._committed)
        for hidden in [*self._new.values(), *self._old.values()]:
            hidden.close()
        if not self._committed:
            for folder in reversed(self._new_folders):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def place(self, target: Path) -> Path:
        """The place for the new file or folder of a target; makes missing folders, removes leftovers there.

        Raises:
            OSError: A folder cannot be made.
        """
        folder = target.parent
        if folder not in self._new:
            self._make_folder(folder)
            with locked([folder]):  # waits for a run that is putting its outputs in place
                remove_leftovers(folder)
            self._new[folder] = hidden = HiddenFolder(folder, NEW)
            hidden.make()
        self._places[target] = self._new[folder].path / target.name
        return self._places[target]

    def open(self, target: Path) -> int:
        """Make the new file for a target and return its handle. ``commit`` flushes it, leaving the context closes it.

        Raises:
            OSError: A folder or file cannot be made.
        """
        _refuse_folder(target)
        place = self.place(target)
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        self._handles.append(handle)
        return handle

    def remove(self, target: Path) -> None:
        """Remove an earlier output that the new set does not contain."""
        self._removed.append(target)

    def commit(self, prepare: Callable[[], None] | None = None) -> None:
        """Put everything in place.

        Args:
            prepare: called under the locks, before anything is replaced; may call ``remove``.

        Raises:
            OSError: Something failed; everything is as before.
        """
        for handle in self._handles:
            os.fsync(handle)
        with locked(self._new):
            if prepare is not None:
                prepare()
            replace_set(self._steps(), self._tidy)

    def _steps(self) -> list[Step]:
        steps = []
        for target in [*(t for t in self._removed if t not in self._places), *self._places]:
            place = self._places.get(target)
            if place is not None and not stat.S_ISDIR(os.lstat(place).st_mode):
                _refuse_folder(target)
            standing = identity(target)
            if standing is not None and target.parent not in self._old:
                self._old[target.parent] = hidden = HiddenFolder(target.parent, OLD)
                hidden.make()
            old = None if standing is None else self._old[target.parent].path / target.name
            steps.append(Step(target, place, old, None if place is None else identity(place), standing))
        return [s for s in steps if s.new is not None or s.old is not None]

    def _tidy(self, committed: bool) -> None:
        """Remove the hidden folders; earlier outputs only when new ones stand in their place."""
        self._committed = committed
        for hidden in self._new.values():
            hidden.remove(filled=True)
        for hidden in self._old.values():
            hidden.remove(filled=committed)

    def _make_folder(self, folder: Path) -> None:
        missing = [p for p in [folder, *folder.parents] if not p.exists()]
        for path in reversed(missing):
            self._new_folders.append(path)
            try:
                path.mkdir(mode=FOLDER_MODE)
            except FileExistsError:
                self._new_folders.remove(path)


def _refuse_folder(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        raise OutputError(f"{target}: is a folder. Choose another path.")
