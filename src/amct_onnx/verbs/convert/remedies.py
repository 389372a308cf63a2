"""What needs a pair of quantizers that stays, and what in the exporter would be without it.

An exporter quantizes a tensor for the operator that makes it and for those that read it: the pair goes only where it
does so for none of them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from amct_onnx.plan.factors import Pair

KINDS = {"operator": "{}", "layer": "{} that stays float", "quantizer": "another quantizer", "output": "a graph output"}
"""What a reader of floats is called, by its kind."""
MAKERS = {"an int8 layer": "the output of the int8 layer", "a graph input": "the graph input"}
"""What a tensor is called by what makes it; that of an operator by the operator."""
ANOTHER = {"DequantizeLinear": "another quantizer"}


def stays_as_pair(pair: Pair) -> bool:
    """Whether it becomes AscendQuant and AscendAntiQuant of its own."""
    kept = pair.quantizer is not None and not (pair.elided or pair.dropped or pair.merged)
    return kept and pair.quantizer is not None and pair.quantizer.per_tensor_int8 and bool(pair.source)


def known_name(names: Sequence[str], tensors: Set[str]) -> str:
    """The first of several names of one tensor that the user's file holds."""
    return next((n for n in names if n in tensors), next((n for n in names if n), ""))


def maker_of(pair: Pair) -> str:
    """What stands in front of it, in the words of the user's file."""
    return ANOTHER.get(pair.maker, pair.maker)


def readers_of(pair: Pair) -> str:
    """What reads its floats."""
    return listed([KINDS[kind].format(listed(types)) for kind, types in _kinds(pair).items()])


def why_it_stays(pair: Pair, *, shared: bool) -> str:
    """Who reads floats of its steps, and what in the exporter would be without it.

    Args:
        pair: one that ``stays_as_pair``.
        shared: see ``remedy_of``.
    """
    kinds = _kinds(pair)
    output = kinds.pop("output", None)
    told = []
    if kinds:
        several = sum(map(len, kinds.values())) > 1
        readers = listed([KINDS[kind].format(listed(types)) for kind, types in kinds.items()])
        told.append(f"{readers} {'read' if several else 'reads'} what it rounds")
    if output is not None:
        told.append("a graph output holds what it rounds")
    text = f"{listed(told)}, behind {maker_of(pair)}. To remove it, {remedy_of(pair, shared=shared)}"
    return f"shared with an int8 layer: {text}" if pair.shared else f"{text}, or drop it (residual_quantizers)"


def remedy_of(pair: Pair, *, shared: bool) -> str:
    """What to change in the exporter, as the end of a sentence.

    Args:
        pair: one that ``stays_as_pair``.
        shared: whether an int8 layer reads its integers as well, so that the quantizer itself has to stay.
    """
    kinds = _kinds(pair)
    operators, output = kinds.pop("operator", []), "output" in kinds
    parts = []
    if "layer" in kinds:
        parts.append(f"let {listed(kinds['layer'])} become int8 as its row in the ledger says")
    if "quantizer" in kinds:
        parts.append("give both quantizers the same factors")
    if shared and (operators or output):
        readers = listed([*operators, *(["the graph output"] if output else [])])
        parts.append(f"let {readers} get the numbers in front of the quantizer, which the int8 layer needs")
    elif operators or output:
        made = MAKERS.get(pair.maker, f"the output of {maker_of(pair)}") + (", a graph output," if output else "")
        if operators:
            parts.append(f"let the exporter quantize neither {made} nor the inputs of {listed(operators)}")
        else:
            parts.append(f"let the exporter not quantize {made.rstrip(',')}")
    return listed(parts)


def listed(parts: Sequence[str]) -> str:
    """Several names in a sentence."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _kinds(pair: Pair) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for reader in pair.readers:
        kinds.setdefault(reader.kind, []).append(reader.op_type)
    return kinds
