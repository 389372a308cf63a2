"""What needs a quantizer that stays, and what in the exporter would be without it.

An exporter quantizes a tensor for the operator that makes it and for those that read it: the quantizer goes only where
it does so for none of them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Literal

from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE
from amct_onnx.plan.factors import AlikePair, Pair, Plan, Quantizer

KINDS = {
    "operator": "{}",
    "layer": "{} that stays float",
    "quantizer": "another quantizer",
    "mover": "another quantizer behind {}",
    "output": "a graph output",
}
"""What a reader of floats is called, by its kind."""
ANOTHER = "another quantizer"
LayerUse = Literal["none", "same", "other"]
"""Whether int8 layers quantize the tensor of a pair as well, with its factors or with others alone."""


class LayerUses:
    """Looks up how the int8 layers of a plan quantize a tensor.

    Args:
        plan: of the conversion.
    """

    def __init__(self, plan: Plan) -> None:
        self._quantizers: dict[str, list[Quantizer]] = {}
        for site in plan.sites:
            for activation in site.activations:
                self._quantizers.setdefault(activation.source, []).append(activation.quantizer)

    def of(self, pair: Pair) -> LayerUse:
        """How int8 layers use the tensor that a pair quantizes, also behind data movement."""
        return "same" if pair.for_a_layer else self.of_tensor(pair)

    def of_tensor(self, pair: Pair) -> LayerUse:
        """How they use that tensor itself."""
        own, found = pair.quantizer, self._quantizers.get(pair.source, [])
        if own is not None and any(own.same_grid(quantizer) for quantizer in found):
            return "same"
        return "other" if found else "none"


def stays_as_pair(pair: Pair) -> bool:
    """Whether it becomes AscendQuant and AscendAntiQuant of its own."""
    return stays(pair) and why_in_float(pair) == ""


def stays(pair: Pair) -> bool:
    """Whether nodes of its own stand for it in the outputs."""
    return pair.quantizer is not None and not (pair.elided or pair.dropped or pair.merged)


def why_in_float(pair: Pair) -> str:
    """What of a pair AscendQuant cannot do; empty where it can do all."""
    return _beyond_ascend_quant(pair)[0]


def _beyond_ascend_quant(pair: Pair) -> tuple[str, str]:
    """What of a pair AscendQuant cannot do, and what would make AscendQuant of it; both empty where it can do all."""
    quantizer = pair.quantizer
    assert quantizer is not None
    if not pair.source:
        return "it reads integers that no QuantizeLinear made", "give the graph floats at this place"
    if quantizer.per_tensor_int8:
        return "", ""
    if quantizer.small_float is not None:
        return f"it rounds to {quantizer.small_float.name}, and AscendQuant to int8 alone", "quantize it to int8"
    if quantizer.bits != 8:
        return f"it has {quantizer.bits} bits, and AscendQuant 8", "quantize it to int8"
    if len(quantizer.scale) == 1:
        why = "AscendQuant takes float32 and float16 and a scale whose reciprocal is finite"
        return why, "quantize such a tensor"
    return "it has several scales or zero points, and AscendQuant one", "quantize it per tensor"


def known_name(names: Sequence[str], tensors: Set[str]) -> str:
    """The first of several names of one tensor that the user's file holds."""
    return next((n for n in names if n in tensors), next((n for n in names if n), ""))


def maker_of(pair: Pair | AlikePair) -> str:
    """What stands in front of it, in the words of the user's file."""
    return ANOTHER if pair.maker == DEQUANTIZE else pair.maker


def _made_by(maker: str) -> str:
    """What a tensor is called by what makes it; "" where no operator of the exporter does."""
    if maker == ANOTHER:
        return ""
    return "the graph input" if maker == "a graph input" else f"the output of {maker.replace('an int8', 'the int8')}"


def readers_of(pair: Pair) -> str:
    """What reads its floats."""
    return listed([KINDS[kind].format(listed(types)) for kind, types in _kinds(pair).items()])


def why_it_stays(pair: Pair, use: LayerUse) -> str:
    """Who reads floats of its steps, and what in the exporter would be without it.

    Args:
        pair: one that ``stays``.
        use: of its tensor by int8 layers.
    """
    kinds, reason = _kinds(pair), why_in_float(pair)
    output = kinds.pop("output", None)
    told = []
    if kinds:
        several = sum(map(len, kinds.values())) > 1
        readers = listed([KINDS[kind].format(listed(types)) for kind, types in kinds.items()])
        told.append(f"{readers} {'read' if several else 'reads'} what it rounds")
    if output is not None:
        told.append("a graph output holds what it rounds")
    text = f"{listed(told)}, behind {maker_of(pair)}. To remove it, {remedy_of(pair, use)}"
    if pair.shared:
        return f"shared with an int8 layer: {text}"
    text = f"{reason}; {text}" if reason else text
    return f"{text}, or drop it (residual_quantizers)" if pair.source else text


def remedy_of(pair: Pair, use: LayerUse) -> str:
    """What to change in the exporter, as the end of a sentence.

    Args:
        pair: one that ``stays``.
        use: of its tensor by int8 layers.
    """
    _, instead = _beyond_ascend_quant(pair)
    if not pair.source:
        return instead
    kinds = _kinds(pair)
    operators, output = kinds.pop("operator", []), "output" in kinds
    if instead:  # of those that AscendQuant does not hold, none makes another unnecessary
        operators = [*operators, *kinds.pop("mover", [])]
    parts = []
    if "layer" in kinds and not instead:
        parts.append(f"let {listed(kinds['layer'])} become int8 as its row in the ledger says")
    if "quantizer" in kinds:
        parts.append("give both quantizers the same factors")
    if "mover" in kinds:
        parts.append(f"give the quantizers in front of and behind {listed(kinds['mover'])} the same factors")
    readers = listed([*operators, *(["the graph output"] if output else [])])
    if readers and use == "same":
        parts.append(f"let {readers} get the numbers in front of the quantizer, which the int8 layer needs")
    elif readers and use == "other":
        parts.append(f"give {readers} the quantizer of the int8 layer that reads the same tensor, or none")
    elif readers:
        parts.append(f"let the exporter {_not_quantized(maker_of(pair), operators, output=output)}")
    if readers and use != "other":
        parts += _alike_too(pair.before, "", f", which {maker_of(pair)} hands on")
        parts += _alike_too(pair.behind, " behind it", "")
    if instead:
        layers = listed(kinds.get("layer", []))
        instead += f", so that {layers} becomes int8" if layers else ", which leaves two operators in its place"
    return ", or ".join(part for part in (listed(parts), instead) if part)


def _alike_too(pairs: Sequence[AlikePair], where: str, why: str) -> list[str]:
    """That pairs which are left out must not come back.

    Args:
        pairs: those before or those behind another one.
        where: they stand, as a part of the sentence.
        why: they have to do with the other one, as its end.
    """
    tensors = list(dict.fromkeys(_tensor(p) for p in pairs if not p.for_a_layer))
    parts = [f"let the exporter not quantize {listed(tensors)}{where} either{why}"] if tensors else []
    needed = dict.fromkeys((pair.readers, _tensor(pair)) for pair in pairs if pair.for_a_layer)
    for readers, tensor in needed:
        read = listed([ANOTHER if r == QUANTIZE else r or "the graph output" for r in readers])
        parts.append(f"let {read} get {tensor}{where} in front of the quantizer that an int8 layer needs")
    return parts


def _tensor(pair: AlikePair) -> str:
    return _made_by(maker_of(pair)) or f"what {ANOTHER} makes"


def _not_quantized(maker: str, operators: Sequence[str], *, output: bool) -> str:
    """That neither what makes a tensor nor what reads it is a reason to quantize it.

    Args:
        maker: of the tensor.
        operators: that read it.
        output: whether a graph output holds it.
    """
    made, inputs = _made_by(maker), f"the inputs of {listed(operators)}"
    if not operators:
        made = made.replace("the output of", "the graph output behind", 1) if output else made
        return f"not quantize {made or 'the graph output'}"
    if not made:
        return f"not quantize {inputs}"
    return f"quantize neither {made}{', a graph output,' if output else ''} nor {inputs}"


def listed(parts: Sequence[str]) -> str:
    """Several names in a sentence."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _kinds(pair: Pair) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for reader in pair.readers:
        kinds.setdefault(reader.kind, []).append(reader.op_type)
    return kinds
