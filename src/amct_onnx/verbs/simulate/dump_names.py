"""Names of dumped tensors: as a board's dump is named after its conversion, or as golden data for msaccucmp."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.compiled_names import flattened
from amct_onnx.device.session import LayerTensors

BOARD, GOLDEN = "board", "golden"
MAX_NAME = 180
"""Characters of a name within a file name; file systems take 255 bytes, with operator, index and suffix."""
Files = list[tuple[str, Array]]
"""Names without suffix, and contents."""


def file_name(name: str) -> str:
    """A node's or tensor's name as a board's dump spells it: all but letters, digits, _ and - become _.

    File systems limit the length of names: a longer one is cut, and a digest keeps it distinct.
    """
    spelt = flattened(name)
    if len(spelt) <= MAX_NAME:
        return spelt
    return f"{spelt[:MAX_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def board_files(outputs: Iterable[tuple[str, Array]], layers: Iterable[LayerTensors]) -> Files:
    """Graph outputs under their names; of layers op_type.op_name.input/output.index, as msaccucmp converts a dump."""
    files = [(file_name(n), v) for n, v in outputs]
    for layer in layers:
        own, behind = f"{layer.op_type}.{file_name(layer.name)}", f"AscendDequant.{file_name(layer.dequantizer)}"
        files += [
            (f"{own}.input.0", layer.input),
            (f"{own}.output.0", layer.accumulator),
            (f"{behind}.output.0", layer.output),
        ]
    return files


def golden_files(
    outputs: Iterable[tuple[str, Array]],
    layers: Iterable[LayerTensors],
    makers: dict[str, tuple[str, int]],
    microseconds: int,
) -> Files:
    """Every tensor once, as op_name.output_index.timestamp: what msaccucmp takes as golden data.

    Args:
        outputs: of the graph, by name.
        layers: their int8 inputs, integer sums and outputs.
        makers: see ``makers_of``.
        microseconds: the timestamp.
    """
    made: dict[tuple[str, int], Array] = {}
    for layer in layers:
        if layer.producer:
            made.setdefault((layer.producer, 0), layer.input)
        made.setdefault((layer.name, 0), layer.accumulator)
        made.setdefault((layer.dequantizer, 0), layer.output)
    for name, value in outputs:
        made.setdefault(makers.get(name, (name, 0)), value)
    return [(f"{file_name(name)}.{index}.{microseconds}", value) for (name, index), value in made.items()]


def makers_of(outputs: Sequence[ir.Value]) -> dict[str, tuple[str, int]]:
    """Tensor -> the node that makes it and the number of its output; left out where no named node does."""
    found = {}
    for value in outputs:
        node = value.producer()
        if node is not None and node.name:
            found[value.name or ""] = (node.name, value.index() or 0)
    return found
