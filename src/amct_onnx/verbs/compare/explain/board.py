"""A board's dumps, or those of ``simulate --dump layers``, against the simulated device, layer by layer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.loaded_array import load_file, loaded_array
from amct_onnx.device.session import LAYERS, DeploySession
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.measure.statistics import SourceTensor, TensorStatistics
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.report import BoardResult, BoardTensor
from amct_onnx.verbs.simulate.dump_names import file_name

INPUT, ACCUMULATOR, OUTPUT, GRAPH_OUTPUT = "input", "accumulator", "output", "graph output"
DUMP = re.compile(r"[^.]+\.(?P<op>[^.]+)\.(?:.+\.)?(?P<end>input|output)\.(?P<index>\d+)(?:\.[^.]+)*\.(?:npy|bin)")
"""op_type.op_name[.task.stream.time].input/output.index; the op_type is the device's own."""
RAW_TYPES: dict[str, dict[int, Any]] = {
    INPUT: {1: np.int8},
    ACCUMULATOR: {4: np.int32},
    OUTPUT: {2: np.float16, 4: np.float32},
    GRAPH_OUTPUT: {1: np.int8, 2: np.float16, 4: np.float32},
}
"""Type of a raw file's numbers by their size."""


@dataclass
class _Tensor:
    """One tensor of a layer over all feeds."""

    layer: str
    kind: str
    lsb: float | None
    feeds: int = 0
    statistics: TensorStatistics = field(default_factory=TensorStatistics)

    @property
    def differs(self) -> bool:
        return not self.statistics.exact

    def within_a_step(self) -> bool:
        """Whether no value is off by more than one unit."""
        s = self.statistics
        return not s.not_finite and s.largest <= (self.lsb or 0.0) * (1 + 2.0**-12)


class _Dumpable(NamedTuple):
    """A simulated tensor: of which layer or output, its kind, the file of a dump as ``_files`` names it, values."""

    name: str
    kind: str
    file: tuple[str, str, int]
    values: Array


def compare_board(
    folder: str | os.PathLike[str],
    deploy_model: str | os.PathLike[str],
    device: str,
    units: Mapping[str, float | None],
    feeds: Iterable[Mapping[str, Array]],
    stopped: Callable[[], bool],
) -> BoardResult:
    """Compare every tensor that a dump holds.

    Args:
        folder: one folder of dumps for each feed, named by its number or in its order; or the dumps of one feed.
        deploy_model: that the board ran.
        device: profile that is simulated.
        units: of each layer's output.
        feeds: what the board ran, in the same order.
        stopped: whether to end with what was compared so far.

    Raises:
        DataError: The folder holds no dump of a layer, or a dump does not fit its tensor.
    """
    root = Path(folder)
    dumps = _folders(root)
    tensors: dict[tuple[str, str], _Tensor] = {}
    number = compared = 0
    with DeploySession(deploy_model, device=device, collect=LAYERS) as session:
        layers = [f.name for f in session.facts]
        for number, feed in enumerate(feeds):
            if number not in dumps or stopped():
                continue
            files = _files(dumps[number])
            for dumpable in _simulated(session, feed, number):
                if dumpable.file in files:
                    _add(tensors, dumpable, files[dumpable.file], units)
            compared += 1
    if not compared:
        raise DataError(
            f"{root}: holds no dumps of the {number + 1 if dumps else 0} feeds of the data. Give one folder for each "
            "feed, named by its number, as amct_onnx simulate --dump layers writes them."
        )
    if not any(kind != GRAPH_OUTPUT for _, kind in tensors):
        raise DataError(
            f"{root}: holds no dump of a layer. Name files op_type.op_name.output.0.npy, for example "
            f"Conv.{file_name(layers[0]) if layers else 'name'}.output.0.npy."
        )
    return _result(str(root), device, compared, layers, tensors)


def _simulated(session: DeploySession, feed: Mapping[str, Array], number: int) -> list[_Dumpable]:
    """Everything of one feed that a dump may hold."""
    try:
        outputs, taps = session.run_layers(feed)
    except Exception as error:  # onnxruntime's classes share no base
        raise DataError(f"Feed {number} cannot be run ({error}). Check its shape.") from error
    names = [o.name for o in session.get_outputs()]
    return [
        *(_Dumpable(t.name, INPUT, (file_name(t.name), "input", 0), t.input) for t in taps),
        *(_Dumpable(t.name, ACCUMULATOR, (file_name(t.name), "output", 0), t.accumulator) for t in taps),
        *(_Dumpable(t.name, OUTPUT, (file_name(t.dequantizer), "output", 0), t.output) for t in taps),
        *(_Dumpable(n, GRAPH_OUTPUT, (file_name(n), "", 0), v) for n, v in zip(names, outputs, strict=True)),
    ]


def _add(
    tensors: dict[tuple[str, str], _Tensor], expected: _Dumpable, file: Path, units: Mapping[str, float | None]
) -> None:
    """Compare one dumped tensor and add it to those of the same name and kind."""
    lsb = units.get(expected.name) if expected.kind == OUTPUT else None
    if expected.values.dtype.kind == "i":
        lsb = 1.0
    tensor = tensors.setdefault((expected.name, expected.kind), _Tensor(expected.name, expected.kind, lsb))
    tensor.feeds += 1
    other = _load(file, expected.kind, expected.values)
    tensor.statistics.merge(SourceTensor(expected.values).compare(other, lsb))


def _result(
    folder: str, device: str, compared: int, layers: list[str], tensors: Mapping[tuple[str, str], _Tensor]
) -> BoardResult:
    order = {name: index for index, name in enumerate(layers)}
    kinds = (INPUT, ACCUMULATOR, OUTPUT, GRAPH_OUTPUT)
    ordered = sorted(tensors.values(), key=lambda t: (order.get(t.layer, len(order)), kinds.index(t.kind)))
    first = next((t for t in ordered if t.differs), None)
    wrong = _fault(ordered, tensors)
    chosen = wrong or first
    missing = tuple(n for n in layers if not any(name == n for name, _ in tensors))
    text, advice = f"Board: all {len(ordered)} dumped tensors equal the simulated '{device}' in {compared} feeds.", ""
    if chosen is not None:
        s = chosen.statistics
        size = f"{figure(s.largest / chosen.lsb)} LSB" if chosen.lsb else figure(s.largest)
        off = s.off_by_lsb + s.not_finite
        often = f", {off / s.count:.2%} of the values by 1 LSB or more" if chosen.lsb else ""
        where = f"{chosen.kind} of '{chosen.layer}'" if chosen.kind != GRAPH_OUTPUT else f"output '{chosen.layer}'"
        text = (
            f"Board: the {where} is the first tensor that {'goes wrong' if wrong else 'differs'} from the simulated "
            f"'{device}': by up to {size}{often}. "
            f"{_meaning(chosen, tensors, wrong is not None)}"
        )
        advice = _advice(chosen.kind) if wrong else ""
    return BoardResult(
        folder=folder,
        device=device,
        feeds=compared,
        tensors=tuple(
            BoardTensor(t.layer, t.kind, t.lsb, t.feeds, t.statistics.difference("board", t.lsb)) for t in ordered
        ),
        missing=missing,
        layer=chosen.layer if chosen is not None else "",
        tensor=chosen.kind if chosen is not None else "",
        fault=wrong is not None,
        text=text,
        advice=advice,
    )


def _equal(tensors: Mapping[tuple[str, str], _Tensor], layer: str, kind: str) -> bool:
    found = tensors.get((layer, kind))
    return found is not None and not found.differs


def _fault(ordered: list[_Tensor], tensors: Mapping[tuple[str, str], _Tensor]) -> _Tensor | None:
    """The first tensor that is wrong whatever the device rounds.

    Integer sums of equal inputs are equal; a dequantizer of equal sums, and a quantizer before which nothing differs,
    err by no more than one step. Behind a tensor that differs, others may differ by more.
    """
    clean = True
    for t in ordered:
        if t.kind == ACCUMULATOR:
            wrong = t.differs and _equal(tensors, t.layer, INPUT)
        elif t.kind == OUTPUT:
            wrong = _equal(tensors, t.layer, ACCUMULATOR) and not t.within_a_step() and t.differs
        else:
            wrong = clean and t.kind == INPUT and not t.within_a_step()
        if wrong:
            return t
        clean = clean and not t.differs
    return None


def _meaning(t: _Tensor, tensors: Mapping[tuple[str, str], _Tensor], wrong: bool) -> str:
    if t.kind == ACCUMULATOR and _equal(tensors, t.layer, INPUT):
        return "Its input is equal, so its weights, bias or padding are others there."
    if t.kind == OUTPUT and _equal(tensors, t.layer, ACCUMULATOR):
        return "Its integer sum is equal, so it is the dequantization."
    if t.kind == INPUT:
        how = "more than the rounding of a quantizer" if wrong else "as the rounding of a quantizer may"
        return f"That is {how}; the layers before it are equal or not dumped."
    return "What goes into it is not dumped or differs within a step."


def _advice(kind: str) -> str:
    return {
        ACCUMULATOR: "Check that ATC compiled this deploy model, and that the layer runs in int8 on the product "
        "(some run Conv with few input channels in float16).",
        OUTPUT: "Check which profile the board follows (--device), and whether ATC fused the dequantizer.",
    }.get(kind, "Check that the board was fed the same data in the same layout and order, and the nodes before it.")


def _folders(root: Path) -> dict[int, Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Give the folder of the dumps.")
    inner = sorted(p for p in root.iterdir() if p.is_dir())
    if not inner:
        return {0: root}
    if all(p.name.isdecimal() for p in inner):
        return {int(p.name): p for p in inner}
    return dict(enumerate(inner))


def _files(folder: Path) -> dict[tuple[str, str, int], Path]:
    """By op name, end and index; a graph output's file has no end."""
    found: dict[tuple[str, str, int], Path] = {}
    for path in _data_files(folder):
        match = DUMP.fullmatch(path.name)
        if match:
            found.setdefault((match["op"], match["end"], int(match["index"])), path)
        else:
            found.setdefault((path.stem, "", 0), path)
    return found


def _data_files(folder: Path) -> Iterator[Path]:
    yield from sorted(p for p in folder.iterdir() if p.suffix in (".npy", ".bin") and p.is_file())


def _load(path: Path, kind: str, expected: Array) -> Array:
    try:
        if path.suffix == ".npy":
            array: Array = loaded_array(load_file(path))
        else:
            size = path.stat().st_size
            dtype = RAW_TYPES[kind].get(size // max(1, expected.size))
            if dtype is None or size % max(1, expected.size):
                raise DataError(f"{path}: {size} bytes are no {expected.size} numbers of the {kind}. Dump it again.")
            array = np.fromfile(path, dtype)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an array ({error}). Dump it again.") from error
    if array.size != expected.size or array.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: {array.dtype}{list(array.shape)} is not the {kind} of shape {list(expected.shape)}. Dump the "
            "deploy model beside the ledger with this data."
        )
    return np.array(array)
