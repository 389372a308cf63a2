"""What a user may change in the exporter, sorted by what it saves on the device."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass

from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.verbs.convert.pair_gains import Gain, PairGains
from amct_onnx.verbs.convert.remedies import LayerUses, known_name, maker_of, readers_of, remedy_of, why_in_float

MAX_CHANGES = 3
"""Changes that are named."""


@dataclass(frozen=True)
class Change:
    """What a user may change in the exporter.

    Attributes:
        producer: what makes the tensor that is quantized: an operator, "an int8 Conv", "Add of an int8 layer", "a graph
            input" or "another quantizer".
        readers: what reads it in float.
        pairs: quantizers that would go, with their dequantizers.
        quant: AscendQuant that would go.
        anti_quant: AscendAntiQuant that would go.
        float_quant: float operators that would go with them: those that quantize where AscendQuant cannot.
        elements: that pass all these operators in one run.
        advice: where they stand and what to change.
    """

    producer: str
    readers: str
    pairs: int
    quant: int
    anti_quant: int
    float_quant: int
    elements: int
    advice: str

    def gain(self) -> str:
        """What would go, as the beginning of a sentence."""
        return Gain(self.quant, self.anti_quant, self.float_quant, self.elements).text()


def changes_of(plan: Plan, gains: PairGains, tensors: Set[str]) -> tuple[Change, ...]:
    """The quantizers that stay, grouped by what makes and what reads their numbers, the most elements first.

    Args:
        plan: of the conversion.
        gains: of its pairs.
        tensors: names of the tensors of the user's file.
    """
    uses = LayerUses(plan)
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in gains.pairs:
        text = "; ".join(part for part in (why_in_float(pair), remedy_of(pair, uses.of(pair))) if part)
        groups.setdefault((maker_of(pair), readers_of(pair), text), []).append(pair)
    changes = [_change(key, group, gains, tensors) for key, group in groups.items()]
    return tuple(sorted(changes, key=lambda c: (-c.elements, c.producer, c.readers))[:MAX_CHANGES])


def _change(key: tuple[str, str, str], group: Sequence[Pair], gains: PairGains, tensors: Set[str]) -> Change:
    maker, readers, text = key
    others = f" and {len(group) - 1} more" if len(group) > 1 else ""
    largest = max(group, key=gains.elements)
    place = f"at '{known_name(largest.names, tensors)}'{others}, behind {maker} and in front of {readers}"
    gain = gains.of(gains.going(pair) for pair in group)
    return Change(maker, readers, len(group), **asdict(gain), advice=f"{place}: {text}.")
