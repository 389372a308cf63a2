"""One layer in detail: what its quantizer met, its channels, its nodes in both models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amct_onnx.common.counted import counted
from amct_onnx.verbs.compare.job import deploy_key
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.present.html.charts import Tick, compared_models, fault_models
from amct_onnx.verbs.compare.present.html.graph_picture import Picture, graph_picture

WIDTH, HEIGHT = 360.0, 130.0
LEFT, RIGHT, TOP, FOOT = 40.0, 14.0, 14.0, 34.0
BASE = TOP + HEIGHT
SIDE, RANGE = 17, 32
"""Bins below (and above) a quantizer's range, and in it, see ``InputHistogram``."""
MARGIN_BINS = 3
DEPLOY = deploy_key("")
WRONG = {"node-missing": "missing in", "node-added": "added in", "node-replaced": "replaced in"}
"""What a picture says of the node that a fault names, by its cause."""


@dataclass(frozen=True)
class InputChart:
    """Bars of a layer's input: inside the range, and what is clipped; heights are logarithmic."""

    inside: str
    clipped: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    text: str


@dataclass(frozen=True)
class ChannelChart:
    """Mean error of each channel, a line for each model: its number, key and path."""

    lines: tuple[tuple[int, str, str], ...]
    ticks: tuple[Tick, ...]
    top: str
    unit: str
    text: str


@dataclass(frozen=True)
class Detail:
    """What the page shows of one layer when it is opened."""

    input: InputChart | None
    channels: ChannelChart | None
    source: Picture | None
    deploy: Picture | None
    source_name: str
    deploy_name: str
    opened: bool


def detail(report: Mapping[str, Any], index: int) -> Detail:
    """Of one layer of a report."""
    layer = report["layers"][index]
    faults = [d for d in report["divergences"] if d["index"] == index and fault_models([d])]
    source, deploy = layer["source_nodes"], layer["deploy_nodes"]
    # in the source stands what the deploy model lacks, and what is wrong in the fake-quant model
    wrong: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for d in faults:
        drawn = any(n["name"] == d["node"] for n in (*source, *deploy))
        name = d["node"] if drawn else layer["name"]
        in_deploy = d["model"].startswith(DEPLOY) and any(n["name"] == name for n in deploy)
        told = wrong[in_deploy]
        what = WRONG.get(d["cause"], "wrong in")
        told[name] = f"{told[name]}, {d['model']}" if name in told else f"{what} {d['model']}"
    return Detail(
        input=_input_chart(layer, report["models"][0]["key"]),
        channels=_channel_chart(layer, compared_models(report)),
        source=graph_picture(source, wrong[0]) if source else None,
        deploy=graph_picture(deploy, wrong[1]) if deploy else None,
        source_name=next((n["name"] for n in source if n["layer"]), ""),
        deploy_name=next((n["name"] for n in deploy if n["layer"]), ""),
        opened=bool(faults),
    )


def _input_chart(layer: Mapping[str, Any], source: str) -> InputChart | None:
    met = layer["input"]
    counts = met["counts"] if met else []
    if not met or not any(counts):
        return None
    filled = [i for i, n in enumerate(counts) if n]
    first = max(0, min(filled[0], SIDE) - (MARGIN_BINS if filled[0] >= SIDE else 0))
    end = min(len(counts), max(filled[-1] + 1, SIDE + RANGE) + (MARGIN_BINS if filled[-1] < SIDE + RANGE else 0))
    step = (WIDTH - LEFT - RIGHT) / (end - first)
    tallest = math.log1p(max(counts))

    def place(edge: int) -> float:
        return round(LEFT + step * (edge - first), 2)

    def bars(wanted: range) -> str:
        made = ""
        for i in wanted:
            if counts[i]:
                height = HEIGHT * math.log1p(counts[i]) / tallest
                made += f"M{place(i):g} {BASE:g}v{-height:.1f}h{step - 0.6:.1f}v{height:.1f}"
        return made

    low, high = place(SIDE), place(SIDE + RANGE)
    ticks = [Tick(low, figure(met["low"])), Tick(high, figure(met["high"]))]
    return InputChart(
        inside=bars(range(SIDE, SIDE + RANGE)),
        clipped=bars(range(first, SIDE)) + bars(range(SIDE + RANGE, end)),
        low=low,
        high=high,
        ticks=tuple(ticks),
        text=_clipped_text(layer, counts, source),
    )


def _clipped_text(layer: Mapping[str, Any], counts: list[int], source: str) -> str:
    binned = layer["input"]["values"]
    below, above, nan = sum(counts[:SIDE]), sum(counts[SIDE + RANGE :]), binned - sum(counts)
    met = next((c for c in layer["counts"] if c["model"] == source), None)
    values, lost = (met["values"], met["saturated"]) if met is not None else (binned, below + above + nan)
    parts = [("below the range", below), ("above it", above), ("NaN", nan)]
    told = ", ".join(f"{_percent(n, binned)} {where}" for where, n in parts if n)
    bars = "" if binned == values else f" The bars count every eighth batch, {binned:,} values"
    held = f"The quantizer holds {figure(layer['input']['low'])} to {figure(layer['input']['high'])}."
    if not lost:
        return f"{held} None of {values:,} values is clipped.{bars}{'.' if bars else ''}"
    clipped = f"{held} Clipped: {_percent(lost, values)} of {values:,} values"
    sides = f" ({told})" if told else ""
    return f"{clipped}.{bars}{sides}." if bars else f"{clipped}{sides}."


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    return "less than 0.001 %" if 0 < share < 0.001 else f"{figure(share)} %"


def _channel_chart(layer: Mapping[str, Any], models: list[str]) -> ChannelChart | None:
    found = layer["channels"]
    numbers = [e for c in found for e in c["errors"] if e is not None]
    if not numbers:
        return None
    top = max(numbers) or 1.0
    count = max(len(c["errors"]) for c in found)
    step = (WIDTH - LEFT - RIGHT) / count
    lines = []
    for c in found:
        path, joined = "", False
        for i, error in enumerate(c["errors"]):
            if error is None:
                joined = False
                continue
            x, y = LEFT + step * i, BASE - HEIGHT * error / top
            path += f"{'L' if joined else 'M'}{x:.1f} {y:.1f}h{step:.1f}"
            joined = True
        if c["model"] in models:
            lines.append((models.index(c["model"]), c["model"], path))
    together, channels = found[0]["together"], found[0]["channels"]
    every = max(1, math.ceil(count / 8))
    ticks = tuple(Tick(round(LEFT + step * (i + 0.5), 2), str(i * together)) for i in range(0, count, every))
    unit = "LSB" if layer["lsb_of"] == "next quantizer" else "absolute"
    worst = max(found, key=lambda c: max((e for e in c["errors"] if e is not None), default=-1.0))
    size = max((e for e in worst["errors"] if e is not None), default=0.0)
    text = f"{counted(channels, 'channel')}; the worst is number {worst['worst']} of {worst['model']} "
    text += f"({figure(size)} {unit})."
    if together > 1:
        text += f" Each step stands for {together} neighbours, with the largest error of them."
    return ChannelChart(tuple(lines), ticks, figure(top), unit, text)
