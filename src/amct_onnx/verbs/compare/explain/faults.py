"""The cause of a fault, in words: from the form of a piece's own error, what its quantizer met, and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT32_MAX
from amct_onnx.graph.layers import along
from amct_onnx.plan.ledger import CONVERTED, LayerEntry
from amct_onnx.verbs.compare.causes import FaultCause, Side
from amct_onnx.verbs.compare.explain.change import ADDED
from amct_onnx.verbs.compare.explain.cut_source import Segment
from amct_onnx.verbs.compare.explain.error_shape import look
from amct_onnx.verbs.compare.explain.local_errors import BEFORE, Piece
from amct_onnx.verbs.compare.explain.stated_factors import (
    antiquant_contradiction,
    dequantizer_contradiction,
    has_bias,
    quantizer_contradiction,
)
from amct_onnx.verbs.compare.explain.strange_nodes import nan_constant
from amct_onnx.verbs.compare.key import LAYER, NODE
from amct_onnx.verbs.compare.measure.statistics import QuantizerStatistics
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.figures import figure, percent
from amct_onnx.verbs.compare.report import Divergence

SATURATES = 0.002
"""Share of a layer's inputs that saturate beyond those of the source, from which on that is a cause."""
SIMPLE = 0.8
"""Share of the squared error that a constant or factor must explain to be called the fault."""
OPPOSITE = 0.05
"""How far from -1 a factor may lie to be called a flipped sign: noise moves it a little."""
NAMED_NODES = 4
BETWEEN: FaultCause = "fault-between-layers"
NOT_FINITE: FaultCause = "not-finite"
OVERFLOW: FaultCause = "accumulator-overflow"
SATURATION: FaultCause = "saturation"

NOT_FINITE_ADVICE = (
    "No constant in front of it is known to be NaN: look at the values there, and scale them down (float16 ends at "
    "65504, float32 at 3.4e38)."
)
OVERFLOW_ADVICE = "Use larger scales in that layer, and calibrate again."
CONVERT_AGAIN = "Convert the source again, and use the models as they were written."


@dataclass(frozen=True)
class Place:
    """Where a piece stands in the model.

    Attributes:
        members: the layer's nodes in the deploy model; empty for another model.
        segment: gives the nodes of the model that make the piece.
        counts: what the model's quantizer met, or None.
        extra_saturation: share of the layer's inputs that saturate beyond those of the source.
        unknown: gives those of these nodes that neither the source nor the conversion has.
        leads_to: gives the first layer of the model that reads the tensor, directly or not; None when none does.
    """

    members: tuple[ir.Node, ...]
    segment: Callable[[], Segment]
    counts: QuantizerStatistics | None
    extra_saturation: float
    unknown: Callable[[], tuple[ir.Node, ...]]
    leads_to: Callable[[], int | None]


def fault(piece: Piece, model: str, layers: Sequence[Paired], place: Place) -> Divergence:
    """What a faulty piece is called: by what its nodes tell by themselves, else by the form of its error."""
    found = (_layer_fault if piece.kind == LAYER else _fault_between)(piece, model, layers, place)
    strange = place.unknown()
    if strange:
        named = ", ".join(f"{n.op_type} '{n.name}'" for n in strange[:NAMED_NODES])
        text = f"Neither the source nor the ledger has {named}, which the {model} model has here. {found.text}"
        return replace(found, cause=ADDED, node=strange[0].name or "", text=text, advice=CONVERT_AGAIN)
    node, said = nan_constant(place.segment().nodes) if piece.not_finite else ("", "")
    return replace(found, node=node, text=f"{said} {found.text}", advice=CONVERT_AGAIN) if said else found


def size(value: float, lsb: float | None) -> str:
    """A figure in its unit."""
    return f"{figure(value / lsb)} LSB" if lsb else figure(value)


def _figures(piece: Piece) -> tuple[float, float]:
    """Mean error and what is explained of it, of the worst channel."""
    worst = int((piece.measured * piece.wrong).argmax())
    return float(piece.measured[worst]), float(piece.explained[worst if piece.explained.size > 1 else 0])


def told_by_counts(counts: QuantizerStatistics | None, extra_saturation: float) -> tuple[FaultCause, str, str] | None:
    """Cause, its figures and advice, where what the quantizer and the accumulator met tells it; else None."""
    if counts is not None and counts.largest_accumulator > INT32_MAX:
        why = f"Its accumulator reaches {counts.largest_accumulator}, beyond 2^31 - 1."
        return OVERFLOW, why, OVERFLOW_ADVICE
    if extra_saturation > SATURATES:
        why = f"{percent(extra_saturation, 1)} more of its inputs saturate than in the source."
        return SATURATION, why, "Check the factors of the quantizer in front of it, widen it, and convert again."
    return None


def _largest_sum(piece: Piece, entry: LayerEntry) -> float:
    """Largest absolute accumulator in the wrong channels, from what the source makes of the same input.

    A wrapped sum fits int32 again, so that the sums that were met do not tell.
    """
    if entry.read_scale is None or piece.axis is None and len(entry.scale_w) > 1:
        return 0.0
    deq_scale = entry.read_scale * np.asarray(entry.scale_w)
    step = along(deq_scale, piece.own.shape, piece.axis if entry.scale_w[1:] else None)
    sums = np.where(piece.finite, np.abs(piece.own), 0.0) / step
    if piece.axis is not None:
        sums = np.compress(piece.wrong, sums, axis=piece.axis)
    return float(sums.max(initial=0.0))


def _layer_fault(piece: Piece, model: str, layers: Sequence[Paired], place: Place) -> Divergence:
    entry = layers[piece.index].entry
    if piece.not_finite:
        return _piece_not_finite(piece, model, f"'{entry.name}'", entry.name, piece.index)
    measured, explained = _figures(piece)
    seen = look(piece.own, piece.other, piece.axis, piece.wrong)
    wrong, total = int(piece.wrong.sum()), piece.wrong.size
    channel = f" in channel {seen.worst}" if piece.axis is not None else ""
    channels = f" ({wrong} of {total} channels {'is' if wrong == 1 else 'are'} wrong)" if channel else ""
    start = (
        f"'{entry.name}' of {model} differs by {size(measured, piece.lsb)} on average{channel}{channels} from what the "
        f"source makes of the same input; quantization explains at most {size(explained, piece.lsb)}."
    )
    kind, stated = quantizer_contradiction(place.members, entry)
    told = told_by_counts(place.counts, place.extra_saturation)
    largest = _largest_sum(piece, entry) if place.members and told is None else 0.0
    cause: FaultCause
    if told is not None:
        cause, why, advice = told
        why += f" {stated}" if kind == "scale" else ""
    elif largest > INT32_MAX:
        cause, advice = OVERFLOW, OVERFLOW_ADVICE
        why = f"Its accumulator should reach {largest:.4g}, beyond 2^31 - 1, and wraps."
    elif kind == "zero point":
        cause, why, advice = "zero-point-fault", stated, CONVERT_AGAIN
    elif seen.constant > SIMPLE and kind != "scale":
        cause = "bias-fault"
        why = f"{percent(seen.constant)} of the squared error is a constant per channel ({seen.offset:+.4g}{channel}): "
        missing = entry.bias_error is not None and place.members and not has_bias(place.members, entry)
        why += "it has no bias there, the source has." if missing else "its bias is wrong or missing."
        advice = f"Check the layer's bias. {CONVERT_AGAIN}"
    elif seen.linear > SIMPLE and abs(seen.factor + 1) < OPPOSITE:
        cause = "sign-fault"
        why = f"It is the source's with the other sign{channel}."
        advice = f"Check the signs of its weights and scales. {CONVERT_AGAIN}"
    elif seen.linear > SIMPLE or kind == "scale":
        cause = "scale-fault"
        held = stated or dequantizer_contradiction(place.members, entry)
        why = f"{percent(seen.linear)} of the squared error is a factor: {seen.factor:.4g} times the source's{channel}."
        why += f" {held}" if held else ""
        advice = f"Check the scales of its quantizer and its dequantizer. {CONVERT_AGAIN}"
    else:
        cause = "weight-fault"
        why = "It is neither a constant nor a factor per channel, nor saturation: what is left are the weights, and "
        why += "attributes such as padding."
        advice = f"Compare its weights with the source's. {CONVERT_AGAIN}"
    return Divergence(model, entry.name, piece.index, cause, f"{start} {why}", advice, measured, explained)


def _fault_between(piece: Piece, model: str, layers: Sequence[Paired], place: Place) -> Divergence:
    """What stands before a layer's quantizer or an output."""
    at: Side
    if piece.kind == NODE:
        next_layer = place.leads_to()
        index, at = (len(layers) - 1, "behind") if next_layer is None else (next_layer, "before")
        layer = layers[index].entry.name if layers else ""
        where = f"Tensor '{piece.tracked.source}'"
    elif piece.kind == BEFORE:
        layer, index, at = layers[piece.index].entry.name, piece.index, "before"
        where = f"What stands before the quantizer of '{layer}'"
    else:
        index, at = len(layers) - 1, "behind"
        layer = layers[index].entry.name if layers else ""
        where = f"What makes output '{piece.tracked.source}'"
    if piece.not_finite:
        return _piece_not_finite(piece, model, where, layer, index)
    measured, explained = _figures(piece)
    found = place.segment()
    nodes = sorted(found.nodes, key=lambda n: not n.op_type.startswith("Ascend"))
    named = ", ".join(f"{n.op_type} '{n.name}'" for n in nodes[:NAMED_NODES])
    more = f" and {len(nodes) - NAMED_NODES} more" if len(nodes) > NAMED_NODES else ""
    starts, end = ", ".join(map(repr, found.starts)) or "constants", piece.tracked.others[model]
    made = (
        f"Between {starts} and '{end}' stand: {named}{more}."
        if nodes
        else f"In {model} no node makes it: it is '{end}' itself."
    )
    text = (
        f"{where} differs by {size(measured, piece.lsb)} on average in {model} from what the source makes of the same "
        f"input; quantization explains at most {size(explained, piece.lsb)}. {made}"
    )
    stated = antiquant_contradiction(found.nodes, found.ratios)
    text += f" {stated}" if stated else ""
    advice = f"Check the quantizers and constants among these nodes. {CONVERT_AGAIN}"
    return Divergence(model, layer, index, BETWEEN, text, advice, measured, explained, at)


def not_finite(model: str, where: str, layer: str, index: int, share: float, measured: float) -> Divergence:
    """A fault of NaN or infinite values in one model alone."""
    text = f"{percent(share, 2)} of the values of {where} are NaN or infinite in {model} or in the source, not in both."
    return Divergence(model, layer, index, NOT_FINITE, text, NOT_FINITE_ADVICE, measured, 0.0)


def _piece_not_finite(piece: Piece, model: str, where: str, layer: str, index: int) -> Divergence:
    share = piece.not_finite / piece.own.size
    return not_finite(model, where, layer, index, share, float(piece.measured.max(initial=0.0)))


def contradiction(
    model: str, layers: Sequence[Paired], members: Callable[[Paired], tuple[ir.Node, ...]]
) -> Divergence | None:
    """The first layer whose factors in the deploy model are not those of the ledger, though no number shows it yet."""
    for index, pair in enumerate(layers):
        if pair.deploy is None or pair.entry.verdict != CONVERTED:
            continue
        nodes = members(pair)
        stated = quantizer_contradiction(nodes, pair.entry)[1] or dequantizer_contradiction(nodes, pair.entry)
        if stated:
            text = f"'{pair.entry.name}' is not what was converted: {stated} These data show no error beyond noise."
            return Divergence(model, pair.entry.name, index, "ledger-contradiction", text, CONVERT_AGAIN, 0.0, 0.0)
    return None
