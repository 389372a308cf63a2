"""Tensors whose content stays in a file and is read in blocks of rows with pread.

Plain reads, no memory map: pages of a map count as resident memory, and a file that is truncated while it is read would
kill the process (SIGBUS) instead of giving an error.
"""

from __future__ import annotations

import math
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import ModelFileError

BLOCK_BYTES = 1 << 20
"""Bytes of a tensor that are in memory at once. Smaller blocks cost more calls than the cache saves."""

Index = tuple[slice, ...]
"""Where a block lies in its tensor, by the leading axes."""


class SourceFile:
    """An open regular file. Reads go to the opened file, even when its name is given to another."""

    def __init__(self, path: Path) -> None:
        """Open without following a link in the last component and without blocking on a pipe.

        Raises:
            ModelFileError: Not a regular file.
            OSError: It cannot be opened.
        """
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._handle)
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{path}: not a regular file. Copy the data into a file beside the model.")
        self.size = status.st_size
        self.identity = (status.st_dev, status.st_ino)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer from a position.

        Raises:
            ModelFileError: The file ends before the buffer is full, or cannot be read.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._handle, [buffer[done:]], offset + done)
            except OSError as error:
                raise ModelFileError(
                    f"{self.path}: cannot be read ({error.strerror or error}). Copy it again."
                ) from error
            if count == 0:
                raise ModelFileError(f"{self.path}: ends at byte {offset + done}; it is truncated. Copy it again.")
            done += count

    def read(self, offset: int, length: int) -> bytearray:
        """Bytes from a position."""
        content = bytearray(length)
        self.read_into(memoryview(content), offset)
        return content


class FileTensor(ir.LazyTensor):
    """A tensor in a file, little-endian; its content is read on demand and never kept.

    Attributes:
        source: the file.
        offset: offset of the first byte.
        key: names the source of ``blocks``; targets with equal keys are written in one pass.
    """

    def __init__(self, tensor: ir.TensorProtocol, source: SourceFile, offset: int) -> None:
        """Take type, shape and name from a tensor; the caller has checked that the bytes lie inside the file."""
        dtype, shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
        super().__init__(
            lambda: _load(source, offset, dtype, shape),
            dtype=dtype,
            shape=shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
        self.source, self.offset = source, offset
        self.key = id(self)

    def read(self, start: int, length: int) -> bytes:
        """Some of the content as bytes."""
        return bytes(self.source.read(self.offset + start, length))

    def blocks(self) -> Iterator[npt.NDArray[np.uint8]]:
        """The content as bytes, block by block; a block is overwritten by the next one."""
        buffer = np.empty(min(self.nbytes, BLOCK_BYTES), np.uint8)
        for start in range(0, self.nbytes, BLOCK_BYTES):
            part = buffer[: min(BLOCK_BYTES, self.nbytes - start)]
            self.source.read_into(part.data, self.offset + start)
            yield part


def _load(source: SourceFile, offset: int, dtype: ir.DataType, shape: ir.Shape) -> ir.TensorProtocol:
    if dtype.bitwidth < 8:
        size = -(-math.prod(shape.numpy()) * dtype.bitwidth // 8)
        raw = bytes(source.read(offset, size))
        return ir.serde.deserialize_tensor(onnx.TensorProto(dims=shape.numpy(), data_type=int(dtype), raw_data=raw))
    array = np.empty(shape.numpy(), dtype.numpy())
    if array.size:
        source.read_into(array.reshape(-1).view(np.uint8).data, offset)
    return ir.Tensor(array, dtype=dtype)


def row_blocks(tensor: ir.TensorProtocol) -> Iterator[tuple[Index, Array]]:
    """Consecutive parts of a tensor, of its rank, with where they lie; a block is overwritten by the next one."""
    shape = tuple(tensor.shape.numpy())
    if not shape or not tensor.size:
        yield (), tensor.numpy()
        return
    in_file = isinstance(tensor, FileTensor) and tensor.dtype.bitwidth >= 8
    whole = None if in_file else tensor.numpy()
    dtype = tensor.dtype.numpy()
    # a block runs along the first axis of which it holds a slice
    axis, row_bytes = 0, dtype.itemsize * math.prod(shape[1:])
    while row_bytes > BLOCK_BYTES and axis + 1 < len(shape):
        axis += 1
        row_bytes //= shape[axis]
    count = min(shape[axis], max(1, BLOCK_BYTES // row_bytes))
    buffer = np.empty((*(1,) * axis, count, *shape[axis + 1 :]) if in_file else 0, dtype)
    done = 0
    for outer in np.ndindex(shape[:axis]):
        for start in range(0, shape[axis], count):
            stop = min(shape[axis], start + count)
            index = (*(slice(i, i + 1) for i in outer), slice(start, stop))
            if whole is not None:
                yield index, whole[index]
                continue
            assert isinstance(tensor, FileTensor)
            part = buffer[(0,) * axis][: stop - start].reshape(*(1,) * axis, stop - start, *shape[axis + 1 :])
            tensor.source.read_into(part.reshape(-1).view(np.uint8).data, tensor.offset + done)
            done += part.nbytes
            yield index, part
