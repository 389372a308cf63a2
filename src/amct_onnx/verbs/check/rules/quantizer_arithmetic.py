"""Rules on what AscendQuant and AscendAntiQuant compute: their factors as a pair, float16."""

from __future__ import annotations

from collections.abc import Iterator

from amct_onnx.verbs.check.model_view import ANTIQUANT, QUANT, ModelView, float_attribute, source_of
from amct_onnx.verbs.check.report import NOTE, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import ANTIQUANT_PLUGIN

RECIPROCAL_TOLERANCE = 1e-6
"""Relative; a float32 reciprocal times its scale is within one or two units of 2^-23 of 1."""


@rule(
    id="antiquant-factors",
    severity=WARNING,
    title="AscendAntiQuant with other factors than AscendQuant",
    why="The plugin flips the offset's sign itself, so that the pair carries the same offset; scales are reciprocal.",
    source=ANTIQUANT_PLUGIN,
    remedy="Write offset_d in both, 1/scale_d in AscendQuant and scale_d in AscendAntiQuant.",
)
def antiquant_factors(view: ModelView) -> Iterator[Hit]:
    """AscendAntiQuant whose factors are not those of the AscendQuant in front."""
    for node in view.nodes(ANTIQUANT):
        quant, _ = source_of(node.inputs[0] if node.inputs else None, QUANT)
        if quant is None:
            continue
        ours, theirs = float_attribute(node, "offset") or 0.0, float_attribute(quant, "offset") or 0.0
        back, there = float_attribute(node, "scale"), float_attribute(quant, "scale")
        if ours != theirs:
            yield Hit(f"its offset is {ours:g}, that of '{view.names[quant]}' is {theirs:g}", view.names[node])
        elif back and there and abs(back * there - 1) > RECIPROCAL_TOLERANCE:
            yield Hit(f"its scale {back:.9g} is not 1/{there:.9g} of '{view.names[quant]}'", view.names[node])


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
