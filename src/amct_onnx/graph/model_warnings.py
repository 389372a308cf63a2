"""Warnings that a rule has for the user, kept with the model until the conversion's report takes them."""

from __future__ import annotations

import onnx_ir as ir

KEY = "amct_onnx.warnings"


def warn(model: ir.Model, text: str) -> None:
    """Note a sentence; one that is noted already is not repeated.

    Args:
        model: what the sentence is about.
        text: names the node or tensor, and says what was done or what to do.
    """
    noted: list[str] = model.graph.meta.setdefault(KEY, [])
    if text not in noted:
        noted.append(text)


def warnings_of(model: ir.Model) -> tuple[str, ...]:
    """The sentences noted so far, in their order."""
    return tuple(model.graph.meta.get(KEY, ()))


def take_over_warnings(model: ir.Model, before: ir.Model) -> None:
    """Give a model that stands for another one the other's warnings."""
    for text in warnings_of(before):
        warn(model, text)
