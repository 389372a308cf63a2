"""Write composed models in one pass over the weights, together with the text outputs: all files or none.

The bytes of a large tensor are written block by block into every output that holds it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.cpu_count import cpu_count
from amct_onnx.errors import AmctError, OutputError
from amct_onnx.files.compose import Composition
from amct_onnx.files.hidden_folder import is_hidden, write_fully
from amct_onnx.files.output_files import check_targets, in_real_folder
from amct_onnx.files.transaction import Transaction

MAX_WORKERS = 4
"""Limit of threads; each holds one block, or one int8 tensor where its layout changes."""
FLUSH_SECONDS = 0.1
"""Time between flushes while weights are written, so that the disk works from the start and not only at the end."""

Progress = Callable[[int, int], None]


@dataclass
class _Job:
    """One source tensor and every place that its content goes to: file handle, position, type."""

    tensor: ir.TensorProtocol
    targets: list[tuple[int, int, ir.DataType]] = field(default_factory=list)


def write_outputs(
    models: Sequence[Composition], texts: Mapping[Path, str | bytes], progress: Progress | None = None
) -> None:
    """Write all files or none. Each source tensor is read once, however many models hold it.

    Args:
        models: large files.
        texts: further files, as text or as bytes in UTF-8.
        progress: called with bytes written and bytes to write, from any thread.

    Raises:
        OutputError: A file cannot be written; earlier files are untouched.
        ModelFileError: A source file was truncated meanwhile; earlier files are untouched.
    """
    first: Path = models[0].path if models else next(iter(texts))
    where = first
    try:
        with Transaction() as transaction:
            jobs: dict[int, _Job] = {}
            total = 0
            for composed in models:
                where = composed.path
                handles = [transaction.open(composed.path)]
                _check_space(composed.path, composed.size + composed.data_size)
                if composed.external:
                    handles.append(transaction.open(composed.data_path))
                elif os.path.lexists(composed.data_path):
                    transaction.remove(composed.data_path)
                for position, content in composed.head:
                    write_fully(handles[0], content, position)
                for handle, pieces in zip(handles, (composed.inline, composed.external), strict=False):
                    for piece in pieces:
                        key = getattr(piece.tensor, "key", id(piece.tensor))
                        job = jobs.setdefault(key, _Job(piece.tensor))
                        job.targets.append((handle, piece.position, piece.tensor.dtype))
                        total += piece.tensor.nbytes
            for path, text in texts.items():
                where = path
                write_fully(transaction.open(path), text.encode() if isinstance(text, str) else text, 0)
            where = first
            _stream(list(jobs.values()), total, progress or (lambda done, total: None))
            transaction.commit()
    except OSError as error:
        if isinstance(error, AmctError):
            raise
        # the user gave neither the hidden names under which files are written nor the folder alone
        named = error.filename and not is_hidden(error.filename) and Path(os.fsdecode(error.filename)) != where.parent
        place = error.filename if named else where
        raise OutputError(
            f"{place}: cannot be written ({error.strerror or error}). Choose a writable place with enough space."
        ) from error


def write_texts(texts: Mapping[str | os.PathLike[str], str]) -> None:
    """Write text files, all or none; links to their folders are followed, a link in a file's place is replaced.

    Raises:
        OutputError: A file cannot be written, or is a folder, a pipe or a device; earlier files are untouched.
    """
    contents: dict[Path, str | bytes] = {in_real_folder(path): text for path, text in texts.items()}
    if contents:
        check_targets(list(contents))
        write_outputs([], contents)


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OutputError(f"{path}: needs {size} bytes, its disk has {free} left. Choose another place.")


def blocks_of(tensor: Any) -> Iterator[Array]:
    """The bytes of a tensor, as they stand in a file."""
    if hasattr(tensor, "blocks"):
        yield from tensor.blocks()
    else:
        yield np.frombuffer(tensor.tobytes(), np.uint8)


def _stream(jobs: Iterable[_Job], total: int, progress: Progress) -> None:
    """Run the jobs on the workers; the first error stops them all."""
    waiting = deque(jobs)
    stop = threading.Event()
    lock = threading.Lock()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done, total)

    def work() -> None:
        while not stop.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            try:
                _run(job, stop, advance)
            except BaseException:
                stop.set()
                raise

    workers = max(1, min(MAX_WORKERS, len(waiting), cpu_count()))
    handles = {handle for job in waiting for handle, _, _ in job.targets}
    finished = threading.Event()
    flush_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync

    def flush() -> None:
        while not finished.wait(FLUSH_SECONDS):
            for handle in handles:
                flush_data(handle)

    with ThreadPoolExecutor(workers + 1) as pool:
        try:
            # an error of the disk is reported to one flush only, so the result of this one counts as well
            flushing = pool.submit(flush)
            futures = [pool.submit(work) for _ in range(workers)]
            for future in futures:
                future.result()
            finished.set()
            flushing.result()
        except BaseException:
            stop.set()
            raise
        finally:
            finished.set()


def _run(job: _Job, stop: threading.Event, advance: Callable[[int], None]) -> None:
    written = [0] * len(job.targets)
    for block in blocks_of(job.tensor):
        if stop.is_set():
            return
        count = 0
        for index, (handle, position, dtype) in enumerate(job.targets):
            # an int8 block of a weight that this model holds as float32
            content = block.astype(np.float32) if block.dtype == np.int8 and dtype == ir.DataType.FLOAT else block
            view = np.ascontiguousarray(content).reshape(-1).view(np.uint8).data
            write_fully(handle, view, position + written[index])
            written[index] += len(view)
            count += len(view)
        advance(count)
