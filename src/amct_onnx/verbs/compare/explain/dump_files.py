"""The files of a board's dumps: which feed, operator and tensor each holds.

Known are raw dumps of the runtime, what msprobe (msaccucmp) and ``amct_onnx simulate`` make of them, golden data, and
outputs of ais_bench.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.typed_json import ContentError, read_bounded
from amct_onnx.data.loaded_array import load_file, loaded_array
from amct_onnx.errors import DataError
from amct_onnx.files.device_dump import FORMATS, INPUT, OUTPUT, DeviceTensor, DumpError, read_dump
from amct_onnx.verbs.simulate.dump_names import file_name

CONVERTED = re.compile(
    r"(?P<type>[^.]+)\.(?P<op>[^.]+)\.(?:.+\.)?(?P<end>input|output)\.(?P<index>\d+)(?P<rest>(?:\.[^.]+)*)\.(?:npy|bin)"
)
"""op_type.op_name[.task.stream.time].input/output.index[.shape.type.format]; the op_type is the device's own."""
GOLDEN = re.compile(r"(?P<op>[A-Za-z0-9_.-]+)\.(?P<index>\d+)\.\d{1,255}\.npy")
"""op_name.index.time"""
RAW = re.compile(r"(?P<type>[A-Za-z0-9_-]+)\.(?P<op>[A-Za-z0-9_-]+)\.\d+(?:\.\d+)?\.\d{1,255}(?:\.\d+)*")
"""op_type.op_name.task[.stream].time, and the thread of an operator in parts."""
PARTS = 6
"""Dots in the name of a dump of one thread: context, thread and device stand behind the time."""
BENCH = re.compile(r"(?P<feed>.+)_(?P<index>\d+)\.(?:npy|bin)")
"""Name of the input's file, and number of the model's output."""
MAPPING, MAX_MAPPING = "mapping.csv", 64 << 20
"""Long names, of which a number stands in the folder: lines number,name."""
MAX_DEPTH = 12
"""Folders above the dumps: time, device, model, its number, number of the run."""
MAX_RUN = 10**9
"""Names of folders above it are times, not numbers of runs."""
ARRAYS = (".npy", ".bin")
SHAPE = re.compile(r"\d{1,18}(?:[_x]\d{1,18}){0,15}")
NUMBERS = frozenset("float16 float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64".split())
NET_OUTPUT = "NetOutput"
"""GE's operator whose inputs are the model's outputs."""


@dataclass(frozen=True)
class Dumped:
    """One dumped tensor.

    Attributes:
        path: the file.
        op: operator's name as the file spells it; of the model's output when ``end`` is "".
        end: ``input``, ``output``, or "" for an output of the model.
        index: number of that input or output.
        tensor: of a raw dump.
        layout: format of the device, "" when the file does not name it.
        dtype, shape: of a .bin that names them, else "" and ().
        problem: why a raw dump cannot be read, or "".
        in_parts: each thread of the operator dumped its part of the tensor.
    """

    path: Path
    op: str
    end: str
    index: int
    tensor: DeviceTensor | None = None
    layout: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    problem: str = ""
    in_parts: bool = False

    @property
    def origin(self) -> tuple[str, int] | None:
        """The model's node and the number of its output, where a raw dump tells it."""
        return self.tensor.original if self.tensor is not None else None

    def numbers(self, types: dict[int, Any], size: int) -> Array:
        """The elements as they lie on the device.

        Args:
            types: type of the numbers in a .bin by their size.
            size: how many the model's tensor has, for a .bin.

        Raises:
            DataError: The file cannot be read, or a .bin holds another number of elements.
        """
        try:
            if self.problem:
                raise ValueError(self.problem)
            if self.tensor is not None:
                return self.tensor.numbers()
            if self.path.suffix == ".npy":
                return loaded_array(load_file(self.path))
            length = self.path.stat().st_size
            if self.dtype and self.shape and length == math.prod(self.shape) * np.dtype(self.dtype).itemsize:
                return np.fromfile(self.path, self.dtype).reshape(self.shape)
            dtype = types.get(length // max(1, size))
            if dtype is None or length % max(1, size):
                raise DataError(f"{self.path}: {length} bytes are not {size} numbers of the tensor. Dump it again.")
            return np.fromfile(self.path, dtype)
        except DataError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read as an array ({error}). Dump it again.") from error


def feeds_of(root: Path, outputs: Sequence[str]) -> dict[int, Callable[[], Iterable[Dumped]]]:
    """What finds the dumps of each feed, by its number: headers are read when a feed's turn comes.

    Args:
        root: folder of the dumps of one feed, of folders of feeds, or above it as the runtime makes them.
        outputs: names of the model's outputs, in their order.

    Raises:
        DataError: There is no such folder, or its mapping of names cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Give the folder of the dumps.")
    root = _with_dumps(root)
    inner = sorted(p for p in root.iterdir() if p.is_dir())
    if not inner:
        return _flat(root, outputs)
    folders = {int(p.name): p for p in inner} if all(map(_is_run, inner)) else dict(enumerate(inner))
    return {number: partial(_dumps, folder, outputs) for number, folder in folders.items()}


def _with_dumps(root: Path) -> Path:
    """The folder whose own files or whose folders' files are dumps."""
    for _ in range(MAX_DEPTH):
        inner = [p for p in root.iterdir() if p.is_dir()]
        if len(inner) != 1 or any(_files(root)) or (_is_run(inner[0]) and any(_files(inner[0]))):
            break
        root = inner[0]
    return root


def _is_run(folder: Path) -> bool:
    return folder.name.isdecimal() and int(folder.name) < MAX_RUN


def _flat(folder: Path, outputs: Sequence[str]) -> dict[int, Callable[[], Iterable[Dumped]]]:
    """One feed, or the outputs of ais_bench for many."""
    dumps = tuple(_dumps(folder, outputs))
    matches = [BENCH.fullmatch(d.path.name) if _of_bench(d) else None for d in dumps]
    stems = sorted({m["feed"] for m in matches if m is not None})
    if len(stems) < 2 or not all(matches):
        return {0: lambda: dumps}
    numbers = {s: int(s) for s in stems} if all(s.isdecimal() for s in stems) else {s: i for i, s in enumerate(stems)}
    found: dict[int, list[Dumped]] = {number: [] for number in numbers.values()}
    for dump, match in zip(dumps, matches, strict=True):
        assert match is not None
        found[numbers[match["feed"]]].append(dump)
    return {number: partial(iter, held) for number, held in found.items()}


def _of_bench(dump: Dumped) -> bool:
    return dump.end == "" and dump.path.stem != dump.op


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Regular files that may be dumps, and their full names."""
    names = _mapping(folder)
    for path in sorted(folder.iterdir()):
        name = names.get(path.name, path.name)
        if (path.suffix in ARRAYS or RAW.fullmatch(name)) and path.is_file():
            yield path, name


def _mapping(folder: Path) -> dict[str, str]:
    path = folder / MAPPING
    if not path.is_file():
        return {}
    try:
        rows = csv.reader(read_bounded(path, MAX_MAPPING).decode().splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}
    except (OSError, ContentError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Dump again.") from error


def _dumps(folder: Path, outputs: Sequence[str]) -> Iterator[Dumped]:
    named = {file_name(n): n for n in outputs}
    for path, name in _files(folder):
        if (match := CONVERTED.fullmatch(name)) is not None:
            yield Dumped(path, match["op"], match["end"], int(match["index"]), **_told(match["rest"]))
        elif path.stem in named:
            yield Dumped(path, path.stem, "", 0)
        elif (match := GOLDEN.fullmatch(name)) is not None:
            yield Dumped(path, match["op"], OUTPUT, int(match["index"]))
        elif path.suffix not in ARRAYS and (match := RAW.fullmatch(name)) is not None:
            yield from _raw(path, match, outputs)
        elif (match := BENCH.fullmatch(name)) is not None and int(match["index"]) < len(outputs):
            yield Dumped(path, file_name(outputs[int(match["index"])]), "", 0)


def _told(words: str) -> dict[str, Any]:
    """Shape, type and format, as msprobe writes them into the name of a converted file."""
    told: dict[str, Any] = {}
    for word in words.split("."):
        if word in FORMATS.values():
            told["layout"] = word
        elif word in NUMBERS:
            told["dtype"] = word
        elif SHAPE.fullmatch(word):
            told["shape"] = tuple(map(int, re.split("[_x]", word)))
    return told


def _raw(path: Path, match: re.Match[str], outputs: Sequence[str]) -> Iterator[Dumped]:
    try:
        tensors = read_dump(path)
    except (OSError, DumpError) as error:
        yield Dumped(path, match["op"], OUTPUT, 0, problem=str(error))
        return
    in_parts = match.string.count(".") >= PARTS
    for tensor in tensors:
        if match["type"] == NET_OUTPUT and tensor.end == INPUT and tensor.index < len(outputs):
            yield Dumped(path, file_name(outputs[tensor.index]), "", 0, tensor, tensor.layout)
        yield Dumped(path, match["op"], tensor.end, tensor.index, tensor, tensor.layout, in_parts=in_parts)
