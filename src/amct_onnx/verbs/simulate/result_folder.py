"""The results of a run over a data set: one folder for each feed and a file of facts, all of them new or all as before.

They are a ``Transaction`` over folders. The facts list every file with its size and digest: only results that are
exactly what such a list says are replaced (``earlier_results``).
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.json_text import json_text
from amct_onnx.errors import OutputError
from amct_onnx.files.hidden_folder import flush_folder, write_fully
from amct_onnx.files.transaction import FILE_MODE, FOLDER_MODE, Transaction
from amct_onnx.verbs.simulate.earlier_results import FACTS_FILE, EarlierResults, feed_folder

FLUSHERS = 8
"""Threads that flush: the file system's journal serves several at once."""


class ResultFolder:
    """Context manager: ``add`` feeds in their order, then ``commit``; otherwise nothing happened."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made before ``add``."""
        self._folder = Path(os.path.realpath(folder))
        self._transaction = Transaction()
        self._earlier = EarlierResults(self._folder)
        self._replaced: list[str] = []
        self._written: list[Path] = []
        self._listed: list[dict[str, Any]] = []
        self._feeds = 0

    def __enter__(self) -> ResultFolder:
        """Check before a long run whether the earlier results may be replaced.

        Raises:
            OutputError: They are not what their list says, or have none.
        """
        with self._output_errors():
            self._replaced = self._earlier.verify()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not committed."""
        self._transaction.__exit__(kind, error, trace)

    def refuse_input(self, path: str | os.PathLike[str]) -> None:
        """Check that the run does not read what it replaces.

        Raises:
            OutputError: The path lies among the earlier results.
        """
        real = Path(os.path.realpath(path))
        if any(self._folder / name in (real, *real.parents) for name in self._replaced):
            raise OutputError(
                f"{os.fspath(path)}: lies among the earlier results in {self._folder}, which this run replaces. Choose "
                "another --save_path."
            )

    def add(self, files: Sequence[tuple[str, Array]], file_format: str) -> None:
        """Write the next feed.

        Args:
            files: names without suffix, and arrays.
            file_format: ``npy`` or ``bin``.

        Raises:
            OutputError: It cannot be written.
        """
        with self._output_errors():
            feed = feed_folder(self._feeds)
            place = self._transaction.place(self._folder / feed)
            place.mkdir(FOLDER_MODE)
            self._written.append(place)
            taken: set[str] = set()
            for index, (name, array) in enumerate(files):
                # names that differ only in characters a file name cannot hold
                unique = f"{name}.{index}" if name in taken else name
                taken.add(name)
                self._write(place, f"{unique}.{file_format}", _content(array, file_format))
            self._feeds += 1

    def commit(self, facts: Mapping[str, Any]) -> None:
        """Put everything in place.

        Args:
            facts: content of ``simulation.json``, to which the list of ``files`` is added.

        Raises:
            OutputError: It cannot be done, or the earlier results are no longer what they were; they stay.
        """
        with self._output_errors():
            handle = self._transaction.open(self._folder / FACTS_FILE)
            write_fully(handle, json_text({**facts, "files": self._listed}).encode(), 0)
            with ThreadPoolExecutor(FLUSHERS) as pool:
                for _ in pool.map(flush_folder, self._written):  # files as well
                    pass
            self._transaction.commit(self._replace_earlier)

    def _replace_earlier(self) -> None:
        earlier = self._earlier.verify()
        for number in range(self._feeds):
            path = self._folder / feed_folder(number)
            if feed_folder(number) not in earlier and os.path.lexists(path):
                raise OutputError(f"{path}: was made by another program. Choose another --save_path or remove it.")
        for name in earlier:
            self._transaction.remove(self._folder / name)

    def _write(self, folder: Path, name: str, pieces: Sequence[bytes | memoryview]) -> None:
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        digest, position = hashlib.sha256(), 0
        try:
            for piece in pieces:
                write_fully(handle, piece, position)
                digest.update(piece)
                position += len(piece)
        finally:
            os.close(handle)
        self._written.append(folder / name)
        self._listed.append({"name": f"{folder.name}/{name}", "size": position, "sha256": digest.hexdigest()})

    @contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            reason = error.strerror or error
            raise OutputError(f"{self._folder}: cannot be written ({reason}). Choose another --save_path.") from error


def _content(array: Array, file_format: str) -> list[bytes | memoryview]:
    if array.dtype.kind == "O":  # texts: numpy would write objects as a pickle
        array = array.astype(np.str_)
    plain = np.ascontiguousarray(array)
    numbers = plain.reshape(-1).view(np.uint8).data
    if file_format == "bin":
        return [numbers]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(plain.reshape(array.shape)))
    return [header.getvalue(), numbers]
