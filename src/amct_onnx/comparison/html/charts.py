"""Where the marks of the report's charts stand; the templates only draw them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WIDTH = 760
LEFT, RIGHT, TOP = 52, 18, 34
PANEL_HEIGHT, LABELS_HEIGHT = 170, 30
NARROWEST_STEP = 14
"""Distance of two layers in user units; a long network makes the chart wider, and its box scrolls."""
SMALLEST_LSB = 1e-4
"""Smaller errors stand at the foot of the chart."""
LONGEST_NAME = 34
BAR_HEIGHT, BAR_FOOT, BAR_TOP = 120, 34, 18
DIGIT = 6.5
"""Width of a digit of the charts' font, in user units."""


@dataclass(frozen=True)
class Mark:
    """One value of one model at one layer; ``text`` tells it in words."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Series:
    """The marks of one model, and the lines between neighbours; a gap is where a layer was not compared."""

    model: str
    number: int
    marks: tuple[Mark, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Tick:
    """A label at a place on an axis; a strong one marks a threshold."""

    at: float
    label: str
    strong: bool = False


@dataclass(frozen=True)
class Panel:
    """One chart over the layers."""

    title: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    refused: tuple[float, ...]
    step: float
    first: tuple[Tick, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    x: float
    y: float
    width: float
    height: float
    count: int
    text: str


@dataclass(frozen=True)
class Bars:
    """A histogram."""

    title: str
    unit: str
    width: float
    height: float
    base: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]


def layer_panels(report: dict[str, Any]) -> tuple[Panel, ...]:
    """SQNR and mean error in LSB of each layer, in network order; empty when no layer was compared."""
    found = [d for layer in report["layers"] for d in layer["differences"]]
    if not found:
        return ()
    return (_sqnr_panel(report, found), _lsb_panel(report, found))


def _sqnr_panel(report: dict[str, Any], found: list[dict[str, Any]]) -> Panel:
    values = [d["sqnr_db"] for d in found if d["sqnr_db"] is not None]
    low = min(0, math.floor(min(values, default=0) / 10) * 10)
    high = max(low + 10, math.ceil(max(values, default=40) / 10) * 10)
    stride = max(10, math.ceil((high - low) / 60) * 10)
    top, bottom = TOP + 16, TOP + PANEL_HEIGHT

    def place(db: float) -> float:
        return bottom - (db - low) / (high - low) * (bottom - top)

    rows = [Tick(place(n), str(n)) for n in range(low, high + 1, stride)]
    rows.append(Tick(TOP, "exact"))

    def mark(d: dict[str, Any]) -> tuple[float, str] | None:
        if d["exact"]:
            return TOP, "exact"
        return None if d["sqnr_db"] is None else (place(d["sqnr_db"]), f"{d['sqnr_db']:.1f} dB")

    return _panel("Signal to quantization noise, dB (higher is better)", report, rows, mark)


def _lsb_panel(report: dict[str, Any], found: list[dict[str, Any]]) -> Panel:
    values = [max(d["mean_lsb"], SMALLEST_LSB) for d in found if d["mean_lsb"]]
    low = min(-2, math.floor(math.log10(min(values, default=0.01))))
    high = max(1, math.ceil(math.log10(max(values, default=1.0))))
    top, bottom = TOP, TOP + PANEL_HEIGHT - 16

    def place(power: float) -> float:
        return bottom - (power - low) / (high - low) * (bottom - top)

    rows = [Tick(place(p), f"{10.0**p:g}", p == 0) for p in range(low, high + 1)]
    rows.append(Tick(TOP + PANEL_HEIGHT, "0"))

    def mark(d: dict[str, Any]) -> tuple[float, str] | None:
        if d["mean_lsb"] is None and not d["exact"]:
            return None
        if not d["mean_lsb"]:
            return TOP + PANEL_HEIGHT, "0 LSB"
        return place(math.log10(max(d["mean_lsb"], SMALLEST_LSB))), f"{d['mean_lsb']:.3g} LSB on average"

    return _panel("Mean error in LSB of the layer's output (lower is better)", report, rows, mark)


def _panel(
    title: str,
    report: dict[str, Any],
    rows: list[Tick],
    mark: Callable[[dict[str, Any]], tuple[float, str] | None],
) -> Panel:
    layers = report["layers"]
    step = max(NARROWEST_STEP, (WIDTH - LEFT - RIGHT) / max(1, len(layers)))
    width = LEFT + RIGHT + step * len(layers)

    def middle(index: int) -> float:
        return round(LEFT + step * (index + 0.5), 2)

    every = max(1, math.ceil(26 / step))
    columns = [Tick(middle(i), str(i + 1)) for i in range(0, len(layers), every)]
    series = []
    for number, model in enumerate(m["key"] for m in report["models"][1:]):
        marks, lines = [], []
        run: list[Any] = []
        for index, layer in enumerate(layers):
            placed = next((mark(d) for d in layer["differences"] if d["model"] == model), None)
            if placed is None:
                lines.append(run)
                run = []
                continue
            marks.append(Mark(middle(index), round(placed[0], 2), f"{index + 1} {layer['name']}, {model}: {placed[1]}"))
            run.append(f"{middle(index)},{placed[0]:.2f}")
        lines.append(run)
        series.append(Series(model, number, tuple(marks), tuple(" ".join(r) for r in lines if len(r) > 1)))
    first = {d["index"]: d["layer"] for d in report["divergences"]}
    return Panel(
        title=title,
        width=round(width, 2),
        height=TOP + PANEL_HEIGHT + LABELS_HEIGHT,
        left=LEFT,
        right=round(width - RIGHT, 2),
        top=TOP,
        bottom=TOP + PANEL_HEIGHT,
        rows=tuple(rows),
        columns=tuple(columns),
        refused=tuple(middle(i) for i, layer in enumerate(layers) if layer["verdict"] == "refused"),
        step=round(step, 2),
        first=tuple(Tick(middle(i), f"{i + 1} {_short(name)}") for i, name in sorted(first.items())),
        series=tuple(series),
    )


def _short(name: str) -> str:
    """The end of a long name, where names differ."""
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def histogram(entry: dict[str, Any]) -> Bars:
    """The bars of one histogram; bins are drawn equally wide, whatever their edges."""
    counts, edges = entry["counts"], entry["edges"]
    width, left = 360.0, 26.0  # room for half a label
    step = (width - 2 * left) / max(1, len(counts))
    tallest = max([*counts, 1])
    base = float(BAR_TOP + BAR_HEIGHT)
    bars = []
    for index, count in enumerate(counts):
        height = BAR_HEIGHT * count / tallest
        text = f"{edges[index]:.3g} to {edges[index + 1]:.3g}: {count}"
        bars.append(Bar(left + step * index + 1, base - height, step - 2, height, count, text))
    labels = [f"{edge:.2g}" for edge in edges]
    # as many as stand side by side with a gap of two digits
    every = max(1, math.ceil((max(map(len, labels), default=1) + 2) * DIGIT / step))
    ticks = tuple(Tick(left + step * i, labels[i]) for i in range(0, len(edges), every))
    return Bars(entry["title"], entry["unit"], width, base + BAR_FOOT, base, tuple(bars), ticks)
