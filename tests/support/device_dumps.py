"""Raw dumps as the runtime writes them, encoded by hand after the public schema, independently of the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = {"NCHW": 0, "NHWC": 1, "ND": 2, "NC1HWC0": 3, "FRACTAL_Z": 4, "FRACTAL_NZ": 29, "NDC1HWC0": 32}
TYPES = {"float32": 1, "float16": 2, "int8": 3, "uint8": 4, "int32": 7, "int64": 8}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def text(tag: int, content: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(content)) + content


@dataclass
class Tensor:
    """One input or output."""

    array: Any
    layout: str = "ND"
    original_shape: tuple[int, ...] = ()
    original: tuple[str, int] | None = None
    fields: dict[str, int] = field(default_factory=dict)
    """Claims that differ from the array: data_type, format, size, and packed."""

    def message(self, *, output: bool) -> bytes:
        dims = b"".join(map(varint, self.array.shape))
        kind = self.fields.get("data_type", TYPES.get(self.array.dtype.name, 0))
        out = number(1, kind) + number(2, self.fields.get("format", FORMATS[self.layout])) + text(3, text(1, dims))
        if output and self.original is not None:
            out += text(4, text(1, self.original[0].encode()) + number(2, self.original[1]))
        out += number(6 if output else 5, self.fields.get("size", self.array.nbytes))
        unpacked = b"".join(number(1, n) for n in self.original_shape)
        return out + text(7 if output else 6, unpacked)


def dump(inputs: Sequence[Tensor], outputs: Sequence[Tensor], op_name: str = "") -> bytes:
    """A whole file."""
    header = text(1, b"1.0") + number(2, 1700000000000000)
    header += b"".join(text(3, t.message(output=True)) for t in outputs)
    header += b"".join(text(4, t.message(output=False)) for t in inputs)
    header += text(6, op_name.encode())
    data = b"".join(np.ascontiguousarray(t.array).tobytes() for t in [*inputs, *outputs])
    return len(header).to_bytes(8, "little") + header + data


def write_dump(path: Path, inputs: Sequence[Tensor] = (), outputs: Sequence[Tensor] = (), op_name: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump(inputs, outputs, op_name))


def channel_blocks(x: Any, block: int = 16) -> Any:
    """NCHW as NC1HWC0, filled up with 99."""
    n, c, h, w = x.shape
    blocks = -(-c // block)
    filled = np.full((n, blocks * block, h, w), 99, x.dtype)
    filled[:, :c] = x
    return np.ascontiguousarray(filled.reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2))


def matrix_blocks(x: Any, rows: int = 16, columns: int = 16) -> Any:
    """[M, N] as FRACTAL_NZ, filled up with 99."""
    high, wide = (-(-n // b) for n, b in zip(x.shape, (rows, columns), strict=True))
    filled = np.full((high * rows, wide * columns), 99, x.dtype)
    filled[: x.shape[0], : x.shape[1]] = x
    return np.ascontiguousarray(filled.reshape(high, rows, wide, columns).transpose(2, 0, 1, 3))
