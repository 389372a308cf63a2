"""Where the boxes and lines of a small graph stand: each node below those that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amct_onnx.common.short_names import distinct, middle_out

MIN_WIDTH, BOX_HEIGHT = 200, 38
GAP_X, GAP_Y = 14, 20
MARGIN = 6
NAME = 28
"""Characters of a line in a box, where names differ in so many."""
LETTER = 6.6
"""Width of a letter, at most on average."""


@dataclass(frozen=True)
class Box:
    """One node; ``mark`` is ``own``, ``layer`` or ``beside``, ``fault`` tells what is wrong with it in which models."""

    x: float
    y: float
    op_type: str
    head: str
    name: str
    whole: str
    mark: str
    fault: str


@dataclass(frozen=True)
class Picture:
    """One model's nodes around a layer."""

    width: float
    height: float
    box_width: float
    text: str
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]


def graph_picture(nodes: Sequence[Mapping[str, Any]], faults: Mapping[str, str]) -> Picture:
    """Lay out the nodes of a report's layer.

    Args:
        nodes: see ``GraphNode``, in network order.
        faults: name of a node -> what is wrong with it, in which models.
    """
    names = distinct((n["name"] for n in nodes), NAME)
    box_width = max(MIN_WIDTH, LETTER * max(map(len, names.values()), default=0) + 16)
    rows: list[int] = []
    for node in nodes:
        rows.append(max((rows[i] + 1 for i in node["reads"]), default=0))
    _pull_down(nodes, rows)
    filled: dict[int, int] = {}
    places = []
    for row in rows:
        column = filled.get(row, 0)
        filled[row] = column + 1
        places.append((MARGIN + column * (box_width + GAP_X), MARGIN + row * (BOX_HEIGHT + GAP_Y)))
    boxes = tuple(
        _box(x, y, n, faults.get(n["name"], ""), names[n["name"]]) for (x, y), n in zip(places, nodes, strict=True)
    )
    lines = tuple(_line(places[i], places[k], box_width) for k, node in enumerate(nodes) for i in node["reads"])
    # room for a line beside the last column
    width = 2 * MARGIN + max(filled.values(), default=1) * (box_width + GAP_X)
    height = 2 * MARGIN + (max(rows, default=0) + 1) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    return Picture(round(width, 2), height, round(box_width, 2), ", ".join(b.op_type for b in boxes), boxes, lines)


def _pull_down(nodes: Sequence[Mapping[str, Any]], rows: list[int]) -> None:
    """What nobody shown makes stands right above what reads it."""
    for index, node in enumerate(nodes):
        readers = [rows[k] for k, other in enumerate(nodes) if index in other["reads"]]
        if not node["reads"] and readers:
            rows[index] = min(readers) - 1


def _box(x: float, y: float, node: Mapping[str, Any], fault: str, shown: str) -> Box:
    op_type, name = node["op_type"], node["name"]
    head = f"{op_type} – {fault}" if fault else op_type
    if fault and len(head) > NAME:
        head = f"{op_type} – {fault.split()[0]}"
    mark = "layer" if node["layer"] else "own" if node["own"] else "beside"
    return Box(x, y, op_type, middle_out(head, NAME), shown, name, mark, fault)


def _line(start: tuple[float, float], end: tuple[float, float], box_width: float) -> str:
    """From the foot of one box to the head of another."""
    x, y = start[0] + box_width / 2, start[1] + BOX_HEIGHT
    to_x, to_y = end[0] + box_width / 2, end[1]
    if to_y - y <= GAP_Y:
        return f"M{x:g} {y:g}C{x:g} {y + 12:g} {to_x:g} {to_y - 12:g} {to_x:g} {to_y:g}"
    side = max(x, to_x) + box_width / 2 + GAP_X / 2  # beside the boxes in between
    return f"M{x:g} {y:g}C{x:g} {y + 14:g} {side:g} {y:g} {side:g} {y + 20:g}L{side:g} {to_y - 20:g}" + (
        f"C{side:g} {to_y:g} {to_x:g} {to_y - 14:g} {to_x:g} {to_y:g}"
    )
