"""Rules on what AscendQuant and AscendAntiQuant compute: their factors as a pair, float16."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.verbs.check.model_view import ANTIQUANT, QUANT, ModelView, float_attribute, source_of
from amct_onnx.verbs.check.report import NOTE, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import ANTIQUANT_PLUGIN

RECIPROCAL_TOLERANCE = 1e-6
"""Relative; a float32 reciprocal times its scale is within one or two units of 2^-23 of 1."""


@rule(
    id="antiquant-factors",
    severity=WARNING,
    title="AscendAntiQuant with another offset than AscendQuant",
    why="The plugin flips the offset's sign itself, so that the pair carries the same offset.",
    source=ANTIQUANT_PLUGIN,
    remedy="Write offset_d in both.",
)
def antiquant_factors(view: ModelView) -> Iterator[Hit]:
    """AscendAntiQuant whose offset is not that of the AscendQuant in front."""
    for node, quant in _pairs(view):
        ours, theirs = float_attribute(node, "offset") or 0.0, float_attribute(quant, "offset") or 0.0
        if ours != theirs:
            yield Hit(f"its offset is {ours:g}, that of '{view.names[quant]}' is {theirs:g}", view.names[node])


@rule(
    id="antiquant-rescales",
    severity=NOTE,
    title="AscendAntiQuant with another scale than AscendQuant",
    why="The pair multiplies by the ratio of its scales. convert writes so where a second quantizer restores the "
    "integers of a first one behind a scalar factor, so that the factor needs no operator.",
    source=ANTIQUANT_PLUGIN,
    remedy="None needed where that is meant; else write 1/scale_d in AscendQuant and scale_d in AscendAntiQuant.",
)
def antiquant_rescales(view: ModelView) -> Iterator[Hit]:
    """AscendAntiQuant whose scale is not the reciprocal of that of the AscendQuant in front."""
    for node, quant in _pairs(view):
        back, there = float_attribute(node, "scale"), float_attribute(quant, "scale")
        if back and there and abs(back * there - 1) > RECIPROCAL_TOLERANCE:
            yield Hit(f"its scale {back:.9g} is not 1/{there:.9g} of '{view.names[quant]}'", view.names[node])


def _pairs(view: ModelView) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Each AscendAntiQuant and the AscendQuant that it reads."""
    for node in view.nodes(ANTIQUANT):
        quant, _ = source_of(node.inputs[0] if node.inputs else None, QUANT)
        if quant is not None:
            yield node, quant


@rule(
    id="float16-chain",
    severity=NOTE,
    title="Activations quantized in float16",
    why="The product rounds input, scale, offset and every intermediate to float16; 1 to 4 % of the integers "
    "differ by one step from a float32 evaluation.",
    source="ops-nn: quant/ascend_quant/tests/assets/golden.py",
    remedy="None needed; compare with that tolerance.",
    chips=lambda p: p.float16_chain,
)
def float16_chain(view: ModelView) -> Iterator[Hit]:
    """AscendQuant on a product that computes it in float16, one finding for the model."""
    nodes = list(view.nodes(QUANT))
    if nodes:
        yield Hit(f"{len(nodes)} AscendQuant nodes; the first is this one", view.names[nodes[0]])
