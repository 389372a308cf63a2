"""Where the marks of the report's charts stand; the templates only draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amct_onnx.verbs.compare.causes import NOISE_CAUSES
from amct_onnx.verbs.compare.float_model import FLOAT

WIDTH = 760
LEFT, RIGHT, TOP = 52, 18, 34
PANEL_HEIGHT, LABELS_HEIGHT = 170, 30
NARROWEST_STEP = 14
"""Distance of two layers in user units; a long network makes the chart wider, and its box scrolls."""
SMALLEST_LSB = 1e-4
"""Smaller errors stand at the foot of the chart."""
NAMED_MODELS = 2
"""Models that a mark names; of more it tells the number."""
BAR_HEIGHT, BAR_FOOT, BAR_TOP = 120, 34, 18
DIGIT = 6.5
"""Width of a digit of the charts' font, in user units."""
BOLD = 7.5
"""Likewise of a letter of the bold names, on average."""
LANE = 14
"""Height of a row of names above a chart."""
PAPER_LAYERS = 50
"""Layers side by side on paper, which does not scroll."""


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
class Name:
    """A name above its place, in a row of names, of which 0 is the lowest; its middle is at ``text_at``."""

    at: float
    label: str
    lane: int
    text_at: float


@dataclass(frozen=True)
class Panel:
    """One chart over the layers; the rows of names beyond the first take ``head`` more units above."""

    title: str
    width: float
    height: float
    head: float
    left: float
    right: float
    top: float
    bottom: float
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    refused: tuple[float, ...]
    step: float
    first: tuple[Name, ...]
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


def layer_panels(report: dict[str, Any]) -> tuple[tuple[Panel, ...], ...]:
    """SQNR and mean error in LSB of each layer, in network order; empty when no layer was compared.

    Returns:
        For each of the two the chart of all layers; when there are many, its pieces for paper as well.
    """
    found = [d for layer in report["layers"] for d in layer["differences"]]
    if not found:
        return ()
    return (_sqnr_panels(report, found), _lsb_panels(report, found))


def _sqnr_panels(report: dict[str, Any], found: list[dict[str, Any]]) -> tuple[Panel, ...]:
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

    return _panels("Signal to quantization noise, dB (higher is better)", report, rows, mark)


def _lsb_panels(report: dict[str, Any], found: list[dict[str, Any]]) -> tuple[Panel, ...]:
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

    return _panels("Mean error in LSB of the layer's output (lower is better)", report, rows, mark)


def _panels(
    title: str,
    report: dict[str, Any],
    rows: list[Tick],
    mark: Callable[[dict[str, Any]], tuple[float, str] | None],
) -> tuple[Panel, ...]:
    count = len(report["layers"])
    starts = range(0, count, PAPER_LAYERS) if count > PAPER_LAYERS else ()
    spans = [range(count), *(range(i, min(i + PAPER_LAYERS, count)) for i in starts)]
    return tuple(_panel(title, report, rows, mark, span) for span in spans)


def _panel(
    title: str,
    report: dict[str, Any],
    rows: list[Tick],
    mark: Callable[[dict[str, Any]], tuple[float, str] | None],
    span: range,
) -> Panel:
    layers = [report["layers"][i] for i in span]
    widest = PAPER_LAYERS if len(layers) < len(report["layers"]) else len(layers)
    step = max(NARROWEST_STEP, (WIDTH - LEFT - RIGHT) / max(1, widest))
    width = LEFT + RIGHT + step * max(1, widest)

    def middle(index: int) -> float:
        return round(LEFT + step * (index + 0.5), 2)

    every = max(1, math.ceil(26 / step))
    columns = [Tick(middle(i), str(span[i] + 1)) for i in range(0, len(layers), every)]
    models = compared_models(report)
    series = tuple(_series(number, model, layers, span, mark, middle) for number, model in enumerate(models))
    names = _names({middle(i - span.start): label for i, label in fault_labels(report).items() if i in span}, width)
    return Panel(
        title=title,
        width=round(width, 2),
        height=TOP + PANEL_HEIGHT + LABELS_HEIGHT,
        head=LANE * max((n.lane for n in names), default=0),
        left=LEFT,
        right=round(LEFT + step * len(layers), 2),
        top=TOP,
        bottom=TOP + PANEL_HEIGHT,
        rows=tuple(rows),
        columns=tuple(columns),
        refused=tuple(middle(i) for i, layer in enumerate(layers) if layer["verdict"] == "refused"),
        step=round(step, 2),
        first=names,
        series=series,
    )


def _series(
    number: int,
    model: str,
    layers: list[dict[str, Any]],
    span: range,
    mark: Callable[[dict[str, Any]], tuple[float, str] | None],
    middle: Callable[[int], float],
) -> Series:
    """A model's marks, and lines through those of layers in a row."""
    marks: list[Mark] = []
    lines: list[list[str]] = [[]]
    for index, layer in enumerate(layers):
        placed = next((mark(d) for d in layer["differences"] if d["model"] == model), None)
        if placed is None:
            lines.append([])
            continue
        text = f"{span[index] + 1} {layer['name']}, {model}: {placed[1]}"
        marks.append(Mark(middle(index), round(placed[0], 2), text))
        lines[-1].append(f"{middle(index)},{placed[0]:.2f}")
    return Series(model, number, tuple(marks), tuple(" ".join(line) for line in lines if len(line) > 1))


def _names(labels: dict[float, str], width: float) -> tuple[Name, ...]:
    """Each in the lowest row where it stands clear of the others; the keys are their places, rising."""
    made: list[Name] = []
    taken: list[list[tuple[float, float]]] = []
    for at, label in labels.items():
        half = BOLD * len(label) / 2
        middle = max(half, min(at, width - half))
        left, right = middle - half, middle + half
        clear = (i for i, row in enumerate(taken) if all(right < a or left > b for a, b in row))
        lane = next(clear, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((left, right))
        made.append(Name(at, label, lane, round(middle, 2)))
    return tuple(made)


def compared_models(report: Mapping[str, Any]) -> list[str]:
    """Keys of the models that are held against the source layer by layer; their places give the marks."""
    return [m["key"] for m in report["models"][1:] if m["key"] != FLOAT]


def fault_models(divergences: Sequence[Mapping[str, Any]]) -> str:
    """The models that have a fault there, "" for noise."""
    return ", ".join(dict.fromkeys(d["model"] for d in divergences if d["cause"] not in NOISE_CAUSES))


def fault_labels(report: Mapping[str, Any]) -> dict[int, str]:
    """By number of the layer, rising: the models whose first fault is there, in few letters, and where that is."""
    labels = {}
    for index in sorted({d["index"] for d in report["divergences"]}):
        here = [d for d in report["divergences"] if d["index"] == index and d["cause"] not in NOISE_CAUSES]
        places = {d["place"]: [o for o in here if o["place"] == d["place"]] for d in here}
        if here:
            told = "; ".join(f"{_briefly(found)}: {place}" for place, found in places.items())
            labels[index] = f"{told} {index + 1}"
    return labels


def _briefly(divergences: Sequence[Mapping[str, Any]]) -> str:
    """The models, or of many the first and how many more."""
    first, *more = fault_models(divergences).split(", ")
    return f"{first} +{len(more)}" if len(more) >= NAMED_MODELS else ", ".join((first, *more))


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
