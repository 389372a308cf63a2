"""Which file of a feed's dumps holds a tensor of the model: by names, and by what a raw dump says of its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.compiled_names import CompiledNames
from amct_onnx.common.device_layouts import LayoutError, in_model_layout
from amct_onnx.device.session import LayerTensors
from amct_onnx.errors import DataError
from amct_onnx.files.device_dump import INPUT as AT_INPUT
from amct_onnx.files.device_dump import OUTPUT as AT_OUTPUT
from amct_onnx.verbs.compare.explain.dump_files import Dumped
from amct_onnx.verbs.compare.report import BoardTensorKind
from amct_onnx.verbs.simulate.dump_names import file_name

INPUT, ACCUMULATOR, OUTPUT, GRAPH_OUTPUT = get_args(BoardTensorKind)
RAW_TYPES: dict[str, dict[int, Any]] = {
    INPUT: {1: np.int8},
    ACCUMULATOR: {4: np.int32},
    OUTPUT: {2: np.float16, 4: np.float32},
    GRAPH_OUTPUT: {1: np.int8, 2: np.float16, 4: np.float32},
}
"""Type of a raw file's numbers by their size."""
TYPES = {INPUT: ("iu", 1), ACCUMULATOR: ("i", 4), OUTPUT: ("f", 0)}
"""Kind and size of a tensor's elements; a size of 0 is any."""
BIAS, CUBE, PRODUCT = "add", ("conv", "depthwise", "matmul", "batchmatmul", "gemm"), ("matmul", "batchmatmul", "gemm")
"""Operators of a layer's small graph: the sum with the bias, the layer itself, and that which has no bias."""


class Dumpable(NamedTuple):
    """A simulated tensor that a dump may hold.

    Attributes:
        name: of the layer or output.
        kind: ``input``, ``accumulator``, ``output`` or ``graph output``.
        places: node, end and index under which a dump holds it, the likeliest first.
        values: the simulation's.
    """

    name: str
    kind: BoardTensorKind
    places: tuple[tuple[str, str, int], ...]
    values: Array


class NotJudged(ValueError):
    """A dumped tensor cannot be compared; the text says why."""


class OtherType(NotJudged):
    """Its elements are of another type than the model's tensor."""


class Found(NamedTuple):
    """A file, and whether it may hold a part of the sum only."""

    dumped: Dumped
    partial: bool = False


def dumpables(
    layers: Iterable[LayerTensors], outputs: Iterable[tuple[str, Array]], makers: Mapping[str, tuple[str, int]]
) -> Iterator[Dumpable]:
    """Everything of one feed that a dump may hold.

    Args:
        layers: their tensors.
        outputs: of the model, by name.
        makers: output -> its node and that node's output.
    """
    taken = set()
    for t in layers:
        taken |= {t.name, t.dequantizer}
        inputs = [(t.name, AT_INPUT, 0)] + ([(t.producer, AT_OUTPUT, 0)] if t.producer else [])
        yield Dumpable(t.name, INPUT, tuple(inputs), t.input)
        yield Dumpable(t.name, ACCUMULATOR, ((t.name, AT_OUTPUT, 0),), t.accumulator)
        # a device that dequantizes within the layer has the result under its name
        yield Dumpable(t.name, OUTPUT, ((t.dequantizer, AT_OUTPUT, 0), (t.name, AT_OUTPUT, 0)), t.output)
    for name, values in outputs:
        node, index = makers.get(name, ("", 0))
        made = ((node, AT_OUTPUT, index),) if node and node not in taken else ()
        yield Dumpable(name, GRAPH_OUTPUT, ((name, "", 0), *made), values)


class DumpsOfFeed:
    """The dumps of one feed by the model's tensors."""

    def __init__(self, dumps: Iterable[Dumped], nodes: Sequence[str]) -> None:
        """Sort the files by node.

        Args:
            dumps: of the feed.
            nodes: names of the model's nodes that are looked for.
        """
        names, known = CompiledNames(nodes), set(nodes)
        cut = {file_name(n): n for n in nodes}  # long names, as amct_onnx simulate writes them
        self._found: dict[tuple[str, str, int], list[tuple[str, Dumped]]] = {}
        self._outputs: dict[str, Dumped] = {}
        for dumped in dumps:
            if dumped.end == "":
                self._outputs.setdefault(dumped.op, dumped)
                continue
            origin = dumped.origin
            if origin is not None and origin[0] in known:
                self._add((origin[0], dumped.end, origin[1]), "", dumped)
                continue
            node, operator = names.part(dumped.op)
            node = node or cut.get(dumped.op)
            if node is not None:
                self._add((node, dumped.end, dumped.index), operator.lower(), dumped)

    def _add(self, place: tuple[str, str, int], operator: str, dumped: Dumped) -> None:
        self._found.setdefault(place, []).append((operator, dumped))

    def find(self, wanted: Dumpable) -> Iterator[Found]:
        """The files that may hold it, the likeliest first."""
        for node, end, index in wanted.places:
            if not end:
                if file_name(node) in self._outputs:
                    yield Found(self._outputs[file_name(node)])
                continue
            files = self._found.get((node, end, index), [])
            if wanted.kind == OUTPUT and (node, end, index) != wanted.places[0]:
                files = [f for f in files if f[1].path.suffix != ".bin"]  # without a type it is the integer sum
            whole = [d for op, d in files if not op]
            if end == AT_INPUT:
                yield from (Found(d) for d in [*whole, *(d for op, d in files if op.startswith(CUBE))])
                continue
            sums = [d for op, d in files if op == BIAS]
            yield from (Found(d) for d in [*whole, *sums])
            for op, d in files:
                if op.startswith(CUBE):
                    yield Found(d, partial=not sums and op.startswith(PRODUCT))


def values_of(found: Found, wanted: Dumpable) -> Array:
    """The dumped elements in the model's shape.

    Raises:
        NotJudged: They are of another type, or lie in a layout that the shapes do not tell.
        DataError: The file cannot be read, or holds fewer elements than the tensor.
    """
    expected, dumped = wanted.values, found.dumped
    if dumped.in_parts:
        raise NotJudged("each thread of the operator dumped its part, and the file does not tell which")
    array = dumped.numbers(RAW_TYPES[wanted.kind], expected.size)
    kinds, size = TYPES.get(wanted.kind, ("iuf", 0))
    if array.dtype.kind not in "iuf":
        raise DataError(f"{dumped.path}: {array.dtype} is not a type of numbers here. Dump it again.")
    if array.dtype.kind not in kinds or (size and array.dtype.itemsize != size):
        raise OtherType(
            f"the board has {array.dtype} there, not {expected.dtype}: it computes or fuses the layer otherwise"
        )
    if array.size < expected.size or (array.size != expected.size and dumped.layout in ("ND", "NCHW", "NCDHW")):
        raise DataError(
            f"{dumped.path}: {array.dtype}{list(array.shape)} is not the {wanted.kind} of shape "
            f"{list(expected.shape)}. Dump the deploy model beside the ledger with this data."
        )
    try:
        return np.array(in_model_layout(array, dumped.layout, expected.shape))
    except LayoutError as error:
        raise NotJudged(str(error)) from error
