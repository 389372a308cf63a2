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
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from amct_onnx.errors import ModelFileError

BLOCK_BYTES = 1 << 19
"""Of a tensor that are in memory at once; fits a second-level cache together with its quotient."""


class SourceFile:
    """An open regular file. Reads go to the opened file whatever happens to its name."""

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
                raise ModelFileError(f"{self.path}: cannot be read ({error.strerror or error}).") from error
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
        offset: of the first byte.
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


def row_blocks(tensor: ir.TensorProtocol) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Consecutive rows (axis 0) of a tensor with the index of the first; a block is overwritten by the next one."""
    shape = tuple(tensor.shape.numpy())
    if not shape or not tensor.size:
        yield 0, tensor.numpy()
        return
    source = tensor.source if isinstance(tensor, FileTensor) and tensor.dtype.bitwidth >= 8 else None
    row_bytes = max(1, tensor.nbytes // shape[0])
    count = min(shape[0], max(1, BLOCK_BYTES // row_bytes))
    array = np.empty((count, *shape[1:]), tensor.dtype.numpy()) if source is not None else tensor.numpy()
    for start in range(0, shape[0], count):
        stop = min(shape[0], start + count)
        if not isinstance(tensor, FileTensor) or source is None:
            yield start, array[start:stop]
            continue
        part = array[: stop - start]
        source.read_into(part.reshape(-1).view(np.uint8).data, tensor.offset + start * row_bytes)
        yield start, part
