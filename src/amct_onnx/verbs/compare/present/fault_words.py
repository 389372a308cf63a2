"""The models that are wrong, in words: which of them, where, and why."""

from __future__ import annotations

from collections.abc import Sequence

from amct_onnx.verbs.compare.present.found import listed_models
from amct_onnx.verbs.compare.report import DIVERGES, Divergence, Level

NODES = ("node-missing", "node-added", "node-replaced")
"""Causes that a node's name tells best."""
OF_FILES = {
    "file-unreadable": ("is not a readable model", "are not readable models"),
    "other-model": ("was not made from this model", "were not made from this model"),
}
"""The words for one file and for several, where something else than a node is wrong."""
NAMED_MODELS = 2
"""Models that a headline names; of more it tells the number."""


def of_faults(faults: Sequence[Divergence], models: int) -> tuple[Level, str, list[str]]:
    """The level, its sentence, and the lines below it, the place first.

    Args:
        faults: in the order of the network.
        models: how many there are beside the source.
    """
    groups = grouped(faults)
    first, who = groups[0]
    goes = "goes" if len(who) == 1 else "go"
    node = f" ({first.node})" if first.node and first.node != first.layer else ""
    what = f"{first.cause}: '{first.node}'" if first.cause in NODES else first.cause
    headline = f"{_crowd(who, models)} {goes} wrong {first.place} layer '{first.layer}' ({what})"
    where = f"{first.place} layer {first.index + 1}, '{first.layer}'{node}"
    if first.cause in OF_FILES:
        headline = f"{_crowd(who, models)} {OF_FILES[first.cause][len(who) > 1]}"
        where = "the whole file"
    also = [model for _, others in groups[1:] for model in others]
    if also:
        headline += f"; {_crowd(also, models)} {'goes' if len(also) == 1 else 'go'} wrong as well"
    headline += "."
    others = "".join(
        f"; {_crowd(who, models)} {d.place} layer {d.index + 1}, '{d.layer}' ({d.cause})" for d, who in groups[1:]
    )
    lines = [f"Where: {where}{others}.", f"Why: {first.text}"]
    if first.advice:
        lines.append(f"What to do: {first.advice}")
    return DIVERGES, headline, lines


def _crowd(keys: Sequence[str], models: int) -> str:
    """The models' names where they are few."""
    if len(keys) <= NAMED_MODELS:
        return listed_models(keys)
    return f"All {models} models" if len(keys) == models else f"{keys[0]} and {len(keys) - 1} more models"


def grouped(divergences: Sequence[Divergence]) -> list[tuple[Divergence, list[str]]]:
    """What several models have alike is said once."""
    groups: dict[tuple[int, str, str, str], tuple[Divergence, list[str]]] = {}
    for d in divergences:
        text = d.node if d.cause in NODES else d.text.replace(d.model, "")
        groups.setdefault((d.index, d.place, d.cause, text), (d, []))[1].append(d.model)
    return list(groups.values())
