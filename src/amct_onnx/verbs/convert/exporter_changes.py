"""What a user may change in the exporter, sorted by what it saves on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.emit.quantizing_nodes import QuantizingNodes
from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.verbs.convert.remedies import (
    LayerUses,
    known_name,
    listed,
    maker_of,
    readers_of,
    remedy_of,
    stays,
    why_in_float,
)
from amct_onnx.verbs.convert.tensor_sizes import TensorSizes

QUANT, ANTI_QUANT = "AscendQuant", "AscendAntiQuant"
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
        nodes = ((self.quant, QUANT), (self.anti_quant, ANTI_QUANT))
        gone = [f"{count} {name}" for count, name in nodes if count]
        if self.float_quant:
            gone.append(counted(self.float_quant, "float operator"))
        return f"{listed(gone)} for {self.elements:,} elements"


def changes_of(
    plan: Plan, quantizing: QuantizingNodes, values: Mapping[str, ir.Value], tensors: Set[str], sizes: TensorSizes
) -> tuple[Change, ...]:
    """The quantizers that stay, grouped by what makes and what reads their numbers, the most elements first.

    Args:
        plan: of the conversion.
        quantizing: the nodes of the deploy model that stand for them.
        values: of the normalised source, by name.
        tensors: names of the tensors of the user's file.
        sizes: of the source's tensors.
    """
    uses = LayerUses(plan)
    groups: dict[tuple[str, str, str], list[tuple[int, Pair]]] = {}
    for pair in (*plan.pairs, *plan.moved):
        nodes = quantizing.pairs.get(pair.output, ())
        if nodes and stays(pair):
            reason = why_in_float(pair)
            text = f"{reason}; {remedy_of(pair, uses.of(pair))}" if reason else remedy_of(pair, uses.of(pair))
            elements = sizes.elements(values.get(pair.source or pair.output)) or 0
            groups.setdefault((maker_of(pair), readers_of(pair), text), []).append((elements * len(nodes), pair))
    changes = [_change(key, group, quantizing, tensors) for key, group in groups.items()]
    return tuple(sorted(changes, key=lambda c: (-c.elements, c.producer, c.readers))[:MAX_CHANGES])


def _change(
    key: tuple[str, str, str], group: Sequence[tuple[int, Pair]], quantizing: QuantizingNodes, tensors: Set[str]
) -> Change:
    maker, readers, text = key
    kinds = [node.op_type for _, pair in group for node in quantizing.pairs[pair.output]]
    quant, anti_quant = kinds.count(QUANT), kinds.count(ANTI_QUANT)
    others = f" and {len(group) - 1} more" if len(group) > 1 else ""
    largest = max(group, key=lambda g: g[0])[1]
    return Change(
        producer=maker,
        readers=readers,
        pairs=len(group),
        quant=quant,
        anti_quant=anti_quant,
        float_quant=len(kinds) - quant - anti_quant,
        elements=sum(elements for elements, _ in group),
        advice=f"at '{known_name(largest.names, tensors)}'{others}, behind {maker} and in front of {readers}: {text}.",
    )
