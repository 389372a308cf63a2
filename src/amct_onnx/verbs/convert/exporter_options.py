"""What a user of a known exporter has to type, so that nothing but what int8 layers read is quantized."""

from __future__ import annotations

from collections.abc import Sequence

from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.verbs.convert.pair_gains import PairGains
from amct_onnx.verbs.convert.remedies import LayerUses

QUANTIZE_STATIC = "onnx.quantize"
"""What onnxruntime's quantize_static, and others that grew out of it, write as the producer of their models."""
IF_IT_MADE_THIS = "If onnxruntime's quantize_static or onnx-neural-compressor made this model"
"""The second has the same options."""
INTEGERS = "QLinear"
"""How the names of QOperator's operators begin."""


def exporter_options(producer: str | None, layers: Sequence[str], plan: Plan, gains: PairGains) -> str:
    """One or two sentences; "" for an exporter that the file does not name, and where nothing would go.

    Args:
        producer: what the file names as its producer.
        layers: operator types of the int8 layers.
        plan: of the conversion.
        gains: of its pairs.
    """
    if producer != QUANTIZE_STATIC or not gains.pairs:
        return ""
    if all(p.quantizer is not None and p.quantizer.bits == 16 for p in gains.pairs):
        return f"{IF_IT_MADE_THIS}: activation_type=QuantType.QInt8 quantizes with 8 bits."
    uses, sentences = LayerUses(plan), []
    types = sorted({kind.removeprefix(INTEGERS) for kind in layers})
    going = [p for p in gains.pairs if uses.of(p) != "same" and not _is_for_a_layer(p, types)]
    gain = gains.of(going, _coming_back(going, types, plan))
    if types and gain.elements > 0:
        quoted = f"[{', '.join(map(repr, types))}]"
        sentences.append(
            f"{IF_IT_MADE_THIS}: op_types_to_quantize={quoted} with extra_options="
            f"{{'OpTypesToExcludeOutputQuantization': {quoted}}} quantizes what these layers read and nothing else: "
            f"{gain.text()} would go."
        )
    if any(uses.of(p) == "same" for p in gains.pairs):
        sentences.append("quantize_static has no option that lets another reader past the quantizer of an int8 layer.")
    return " ".join(sentences)


def _coming_back(going: Sequence[Pair], types: Sequence[str], plan: Plan) -> list[Pair]:
    """Pairs that are left out because one that goes rounds alike, and that are quantized for a layer all the same."""
    elided = {p.output: p for p in plan.pairs if p.elided}
    found: dict[Pair, None] = {}
    for alike in (a for pair in going for a in (*pair.before, *pair.behind)):
        pairs = [elided[output] for output in alike.outputs]
        if alike.for_a_layer or any(_is_for_a_layer(p, types) for p in pairs):
            found.update(dict.fromkeys(pairs[:1]))
    return list(found)


def _is_for_a_layer(pair: Pair, types: Sequence[str]) -> bool:
    """Whether a layer of one of these types reads what it rounds, in float."""
    return any(r.kind == "layer" and r.op_type.removeprefix(INTEGERS) in types for r in pair.readers)
