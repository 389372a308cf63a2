"""A raw dump of a device: the inputs and outputs of one operator, as the runtime writes them (protobuf and numbers).

The file holds eight bytes with the length of a message, the message, and the numbers of its tensors one after the
other: inputs, outputs, buffers. Field numbers, types and formats are those of the public schema (ge:
dflow/udf/proto/ff_dump_data.proto, toolkit.dumpdata.DumpData). What a file claims is held against its length before
anything is allocated; numbers are mapped, not read.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from amct_onnx.common.arrays import Array
from amct_onnx.common.proto_classes import message_classes

INPUT, OUTPUT = "input", "output"
MAX_HEADER = 1 << 20
"""Of the message; usual ones have some hundred bytes."""
MAX_TENSORS, MAX_DIMENSIONS = 4096, 16
MESSAGES = {
    "OriginalOp": (("name", 1, "bytes"), ("output_index", 2, "uint32")),
    "Shape": (("dim", 1, "repeated uint64"),),
    "OpOutput": (
        ("data_type", 1, "int32"),
        ("format", 2, "int32"),
        ("shape", 3, "Shape"),
        ("original_op", 4, "OriginalOp"),
        ("size", 6, "uint64"),
        ("original_shape", 7, "Shape"),
    ),
    "OpInput": (
        ("data_type", 1, "int32"),
        ("format", 2, "int32"),
        ("shape", 3, "Shape"),
        ("size", 5, "uint64"),
        ("original_shape", 6, "Shape"),
    ),
    "DumpData": (("output", 3, "repeated OpOutput"), ("input", 4, "repeated OpInput"), ("op_name", 6, "bytes")),
}
TYPES = {
    1: "<f4",
    2: "<f2",
    3: "<i1",
    4: "<u1",
    5: "<i2",
    6: "<u2",
    7: "<i4",
    8: "<i8",
    9: "<u4",
    10: "<u8",
    11: "<u1",
    12: "<f8",
    27: "<u2",
}
"""Of ``data_type``: little-endian numbers; a bool is a byte, and bfloat16 the upper half of a float32."""
BFLOAT16 = 27
FORMATS = {
    0: "NCHW",
    1: "NHWC",
    2: "ND",
    3: "NC1HWC0",
    4: "FRACTAL_Z",
    12: "NC1HWC0_C04",
    16: "HWCN",
    27: "NDHWC",
    29: "FRACTAL_NZ",
    30: "NCDHW",
    32: "NDC1HWC0",
    33: "FRACTAL_Z_3D",
    35: "NC",
}
FORMAT_BITS = 0xFF
"""The upper bits of ``format`` hold a sub-format."""


class DumpError(ValueError):
    """A file is not a dump, or contradicts itself."""


@dataclass(frozen=True)
class DeviceTensor:
    """One input or output of an operator.

    Attributes:
        path: the dump.
        end, index: ``input`` or ``output``, and its number.
        data_type: number of the element type, see ``TYPES``.
        layout: name of the format, or its number as text.
        shape, original_shape: on the device, and in the model; () when the file does not say it.
        original: name of the model's node whose output it is, and its number; None when not told.
        start, size: bytes in the file.
        op_name: of the operator, "" when the file does not say it.
    """

    path: Path
    end: str
    index: int
    data_type: int
    layout: str
    shape: tuple[int, ...]
    original_shape: tuple[int, ...]
    original: tuple[str, int] | None
    start: int
    size: int
    op_name: str

    def numbers(self) -> Array:
        """The elements in the device's shape, bfloat16 as float32.

        Raises:
            DumpError: An element type without numbers here, or fewer bytes than the shape needs.
        """
        kind = TYPES.get(self.data_type)
        if kind is None:
            raise DumpError(f"its element type {self.data_type} is none that can be compared")
        dtype, count = np.dtype(kind), math.prod(self.shape) if self.shape else None
        if count is None:
            count = self.size // dtype.itemsize
        if count * dtype.itemsize > self.size:
            raise DumpError(f"{self.end} {self.index} of shape {list(self.shape)} has {self.size} bytes only")
        if not count:
            return np.empty(self.shape, dtype)
        flat: Array = np.memmap(self.path, dtype, "r", self.start, (count,))
        if self.data_type == BFLOAT16:
            flat = (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return flat.reshape(self.shape) if self.shape else flat


def read_dump(path: Path) -> tuple[DeviceTensor, ...]:
    """The tensors of one dump; their numbers stay in the file.

    Raises:
        DumpError: It is not a dump, or claims more than it holds.
        OSError: It cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DumpError("it is not a regular file")
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(status.st_size - 8, MAX_HEADER):
            raise DumpError(f"it claims a header of {length:,} bytes, and has {status.st_size:,}")
        header = file.read(length)
    message = _message_class()()
    try:
        message.ParseFromString(header)
    except DecodeError as error:
        raise DumpError("it is not a dump of an operator") from error
    count = len(message.input) + len(message.output)
    if not 0 < count <= MAX_TENSORS:
        raise DumpError(f"it holds {count} tensors")
    op_name = message.op_name.decode(errors="replace")
    places = _behind(message, 8 + length, status.st_size)
    return tuple(_tensor(path, *place, op_name) for place in places)


@cache
def _message_class() -> Any:
    """Built once: a network has thousands of dumps."""
    return message_classes("amct_onnx.dump", MESSAGES)["DumpData"]


Place = tuple[str, int, Any, int, int]
"""End, index, message, start and size of one tensor."""


def _behind(message: Any, start: int, length: int) -> Iterator[Place]:
    """The numbers stand behind the header, inputs first."""
    for end, tensors in ((INPUT, message.input), (OUTPUT, message.output)):
        for index, tensor in enumerate(tensors):
            if tensor.size > length - start:
                raise DumpError(f"{end} {index} claims {tensor.size:,} bytes, {length - start:,} are left")
            yield end, index, tensor, start, tensor.size
            start += tensor.size


def _tensor(path: Path, end: str, index: int, tensor: Any, start: int, size: int, op_name: str) -> DeviceTensor:
    shape, original_shape = tuple(tensor.shape.dim), tuple(tensor.original_shape.dim)
    if max(len(shape), len(original_shape)) > MAX_DIMENSIONS:
        raise DumpError(f"{end} {index} has {max(len(shape), len(original_shape))} dimensions")
    original = None
    if end == OUTPUT and tensor.original_op.name:
        original = tensor.original_op.name.decode(errors="replace"), tensor.original_op.output_index
    number = tensor.format & FORMAT_BITS
    return DeviceTensor(
        path,
        end,
        index,
        tensor.data_type,
        FORMATS.get(number, str(number)),
        shape,
        original_shape,
        original,
        start,
        size,
        op_name,
    )
