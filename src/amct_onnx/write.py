"""Write the output models in one pass over the weights, together with the text outputs: all files or none.

A model file is composed here: the graph is serialised without its large tensors, whose bytes are then written at
positions known in advance, block by block, into every output that holds them.
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
import numpy.typing as npt
import onnx
import onnx_ir as ir

from amct_onnx.errors import AmctError, OutputError
from amct_onnx.file_tensor import FileTensor
from amct_onnx.proto_scan import LENGTH, varint
from amct_onnx.transaction import Transaction, write_fully

INLINE_LIMIT = 1_900_000_000
"""Bytes up to which a model is one file: protobuf ends at 2 GiB, and ATC looks for weights in the model file."""
EXTERNAL_FROM = 1 << 16
"""Bytes of a tensor that goes to the data file when a model exceeds INLINE_LIMIT."""
ALIGNMENT = 4096
"""Of tensors in the data file: a memory page, so that a reader may map them."""
DATA_SUFFIX = ".data"
"""Of the data file behind the name of its model file."""
LARGEST_MESSAGE = 2**31 - 1
WORKERS = 4
"""At most; each holds one block, or one int8 tensor where its layout changes."""
FLUSH_SECONDS = 0.1
"""Between flushes while weights are written: the disk works from the start, not only in the fsync at the end."""
GRAPH_TAG, INITIALIZER_TAG, RAW_DATA_TAG = (varint(n << 3 | LENGTH) for n in (7, 5, 9))

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OutputModel:
    """A model to write.

    Attributes:
        model: its initializers are replaced by descriptions while it is written.
        path: of the model file.
        inline: names of initializers that stay in the model file as long as it holds them.
    """

    model: ir.Model
    path: Path
    inline: frozenset[str] = frozenset()

    @property
    def data_path(self) -> Path:
        """Of the data file, when there is one."""
        return self.path.with_name(self.path.name + DATA_SUFFIX)

    @property
    def external(self) -> frozenset[str]:
        """Names of the initializers that go to the data file: none, those not needed inline, or all large ones."""
        tensors = _tensors(self.model)
        large = {n: t.nbytes for n, t in tensors.items() if t.nbytes >= EXTERNAL_FROM and _is_streamed(t)}
        total = sum(t.nbytes for t in tensors.values())
        if total <= INLINE_LIMIT:
            return frozenset()
        movable = frozenset(large) - self.inline
        return movable if total - sum(large[n] for n in movable) <= INLINE_LIMIT else frozenset(large)


@dataclass(frozen=True)
class OutputProto:
    """A model to write as it was read, but for what was edited in its protobuf.

    Attributes:
        proto: initializers in ``tensors`` are described as external data in it.
        path: of the model file.
        tensors: the content of these initializers, by name.
        external: names of those that go to the data file; the others are written into the model file.
    """

    proto: onnx.ModelProto
    path: Path
    tensors: dict[str, FileTensor]
    external: frozenset[str]

    @property
    def data_path(self) -> Path:
        """Of the data file, when there is one."""
        return self.path.with_name(self.path.name + DATA_SUFFIX)


@dataclass
class _Job:
    """One source tensor and every place that its content goes to: file handle, position, type."""

    tensor: ir.TensorProtocol
    targets: list[tuple[int, int, ir.DataType]] = field(default_factory=list)


@dataclass(frozen=True)
class _Piece:
    """A tensor's place in a file."""

    position: int
    tensor: ir.TensorProtocol


@dataclass
class _Composition:
    """The content of a model file and of its data file: bytes at positions, and tensors at positions."""

    head: list[tuple[int, bytes]]
    size: int
    inline: list[_Piece]
    external: list[_Piece]
    data_size: int


def write_outputs(
    models: Sequence[OutputModel | OutputProto], texts: dict[Path, str], prefix: str, progress: Progress | None = None
) -> None:
    """Write all files or none; each source tensor is read once, whatever the number of models that hold it.

    Args:
        models: the first one's folder (without models, that of the first text) is where the set of files is locked
            and, after a kill, undone.
        texts: further files.
        prefix: names the set within the folder.
        progress: called with bytes written and bytes to write, from any thread.

    Raises:
        OutputError: A file cannot be written; earlier files are untouched.
        ModelFileError: A source file was truncated meanwhile; earlier files are untouched.
    """
    first: Path = models[0].path if models else next(iter(texts))
    where = first
    try:
        with Transaction(first.parent, prefix) as transaction:
            jobs: dict[int, _Job] = {}
            total = 0
            for output in models:
                where = output.path
                composed = _compose(output)
                handles = [transaction.open(output.path)]
                _check_space(output.path, composed.size + composed.data_size)
                if composed.external:
                    handles.append(transaction.open(output.data_path))
                elif os.path.lexists(output.data_path):
                    transaction.remove(output.data_path)
                for position, content in composed.head:
                    write_fully(handles[0], content, position)
                for handle, pieces in zip(handles, (composed.inline, composed.external), strict=False):
                    for piece in pieces:
                        key = getattr(piece.tensor, "key", id(piece.tensor))
                        job = jobs.setdefault(key, _Job(piece.tensor))
                        job.targets.append((handle, piece.position, piece.tensor.dtype))
                        total += piece.tensor.nbytes
            where = first
            _stream(list(jobs.values()), total, progress or (lambda done, total: None))
            for path, text in texts.items():
                where = path
                write_fully(transaction.open(path), text.encode(), 0)
            transaction.commit()
    except OSError as error:
        if isinstance(error, AmctError):
            raise
        raise OutputError(
            f"{error.filename or where}: cannot be written ({error.strerror or error}). Choose a writable save_path "
            "with enough space."
        ) from error


def weight_bytes(model: ir.Model) -> int:
    """Summed size of the initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _tensors(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    return {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}


def _is_streamed(tensor: ir.TensorProtocol) -> bool:
    """Lazy tensors always, so that they are computed once; others when they are large."""
    return hasattr(tensor, "blocks") or (tensor.nbytes >= EXTERNAL_FROM and tensor.dtype != ir.DataType.STRING)


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OutputError(f"{path}: needs {size} bytes, its disk has {free} left. Choose another save_path.")


def _compose(output: OutputModel | OutputProto) -> _Composition:
    """Serialise the graph and give every large tensor its position.

    Raises:
        OutputError: What must be in the model file exceeds a protobuf message.
    """
    if isinstance(output, OutputProto):
        return _lay_out(output, output.proto, output.tensors, output.external)
    external_names = output.external
    streamed = {n: t for n, t in _tensors(output.model).items() if _is_streamed(t)}
    for name, tensor in streamed.items():
        output.model.graph.initializers[name].const_value = ir.ExternalTensor(
            "",
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    return _lay_out(output, ir.to_proto(output.model), streamed, external_names)


def _lay_out(
    output: OutputModel | OutputProto,
    proto: onnx.ModelProto,
    streamed: Mapping[str, ir.TensorProtocol],
    external_names: frozenset[str],
) -> _Composition:
    external: list[_Piece] = []
    data_size = 0
    tensors: list[tuple[bytes, ir.TensorProtocol | None]] = []
    for initializer in proto.graph.initializer:
        tensor = streamed.get(initializer.name)
        if tensor is not None:
            del initializer.external_data[:]
            initializer.ClearField("data_location")
        if initializer.name in external_names and tensor is not None:
            offset = -(-data_size // ALIGNMENT) * ALIGNMENT
            data_size = offset + tensor.nbytes
            external.append(_Piece(offset, tensor))
            initializer.data_location = onnx.TensorProto.EXTERNAL
            for key, text in (("location", output.data_path.name), ("offset", offset), ("length", tensor.nbytes)):
                initializer.external_data.add(key=key, value=str(text))
            tensor = None
        tensors.append((initializer.SerializeToString(), tensor))
    try:
        graph, head = _without_initializers(proto)
    except ValueError as error:  # protobuf's own limit
        raise _too_large(output) from error
    framed = [(_frame(content, tensor), tensor) for content, tensor in tensors]
    length = len(graph) + sum(len(c) + (t.nbytes if t is not None else 0) for c, t in framed)
    head = head + GRAPH_TAG + varint(length) + graph
    if len(head) + length - len(graph) > LARGEST_MESSAGE:
        raise _too_large(output)
    parts: list[tuple[int, bytes]] = []
    pieces: list[_Piece] = []
    start, current = 0, bytearray(head)
    for content, body in framed:
        current += content
        if body is not None:
            parts.append((start, bytes(current)))
            position = start + len(current)
            pieces.append(_Piece(position, body))
            start, current = position + body.nbytes, bytearray()
    parts.append((start, bytes(current)))
    return _Composition(parts, start + len(current), pieces, external, data_size)


def _without_initializers(proto: onnx.ModelProto) -> tuple[bytes, bytes]:
    """The graph without its initializers, and the model without its graph; the message is emptied of both."""
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    return graph, proto.SerializeToString()


def _too_large(output: OutputModel | OutputProto) -> OutputError:
    return OutputError(
        f"{output.path}: what must stand in the model file, without its large weights, exceeds the 2 GiB that one ONNX "
        "file can hold. Store the weights of the source as external data."
    )


def _frame(content: bytes, tensor: ir.TensorProtocol | None) -> bytes:
    """An initializer field of the graph, up to the bytes of the tensor that follow."""
    if tensor is None:
        return INITIALIZER_TAG + varint(len(content)) + content
    raw = RAW_DATA_TAG + varint(tensor.nbytes)
    return INITIALIZER_TAG + varint(len(content) + len(raw) + tensor.nbytes) + content + raw


def _blocks(tensor: Any) -> Iterator[npt.NDArray[Any]]:
    if hasattr(tensor, "blocks"):
        yield from tensor.blocks()
    else:
        yield np.frombuffer(tensor.tobytes(), np.uint8)


def _stream(jobs: Iterable[_Job], total: int, progress: Progress) -> None:
    """Let the workers go through the jobs; the first error stops them all."""
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

    workers = max(1, min(WORKERS, len(waiting), len(os.sched_getaffinity(0))))
    handles = {handle for job in waiting for handle, _, _ in job.targets}
    finished = threading.Event()

    def flush() -> None:
        while not finished.wait(FLUSH_SECONDS):
            for handle in handles:
                os.fdatasync(handle)

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
    for block in _blocks(job.tensor):
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
