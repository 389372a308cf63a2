"""What the device is spared where quantizers of a deploy model go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.emit.quantizing_nodes import QuantizingNodes
from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.verbs.convert.remedies import LayerUses, listed, stays
from amct_onnx.verbs.convert.tensor_sizes import TensorSizes

QUANT, ANTI_QUANT = "AscendQuant", "AscendAntiQuant"


@dataclass(frozen=True)
class Gain:
    """Operators that would go.

    Attributes:
        quant: AscendQuant.
        anti_quant: AscendAntiQuant.
        float_quant: float operators that quantize where AscendQuant cannot.
        elements: that pass all of them in one run.
    """

    quant: int
    anti_quant: int
    float_quant: int
    elements: int

    def text(self) -> str:
        """``2 AscendQuant and 2 AscendAntiQuant for 8,192 elements``."""
        gone = [f"{n:,} {kind}" for n, kind in ((self.quant, QUANT), (self.anti_quant, ANTI_QUANT)) if n]
        if self.float_quant:
            gone.append(counted(self.float_quant, "float operator"))
        return f"{listed(gone)} for {self.elements:,} elements"


class PairGains:
    """Looks up what goes with pairs of one conversion.

    Args:
        plan: of the conversion.
        quantizing: the nodes of the deploy model that quantize outside of its int8 layers.
        values: of the normalised source, by name.
        sizes: of its tensors.

    Attributes:
        pairs: those for which a node of its own stands in the deploy model.
    """

    def __init__(
        self, plan: Plan, quantizing: QuantizingNodes, values: Mapping[str, ir.Value], sizes: TensorSizes
    ) -> None:
        self._nodes, self._values, self._sizes = quantizing.pairs, values, sizes
        self._uses = LayerUses(plan)
        self.pairs = tuple(p for p in (*plan.pairs, *plan.moved) if stays(p) and self._nodes.get(p.output))
        self._behind: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            self._behind.setdefault(pair.source, []).append(pair)

    def of(self, pairs: Iterable[Pair], back: Iterable[Pair] = ()) -> Gain:
        """What goes when all of these pairs do, and nothing else changes.

        Args:
            pairs: that go.
            back: pairs that are left out and come back then, each with an AscendAntiQuant, and with an AscendQuant
                where no int8 layer has one for the tensor.
        """
        pairs = list(pairs)
        kinds = [node.op_type for pair in pairs for node in self._nodes[pair.output]]
        quant, anti_quant = kinds.count(QUANT), kinds.count(ANTI_QUANT)
        others, elements = len(kinds) - quant - anti_quant, sum(map(self.elements, pairs))
        for pair in back:
            own = self._uses.of_tensor(pair) != "same"
            anti_quant, quant = anti_quant - 1, quant - own
            elements -= (1 + own) * (self._sizes.elements(self._tensor(pair)) or 0)
        return Gain(quant, anti_quant, others, elements)

    def going(self, pair: Pair) -> Pair:
        """What goes by the remedy of a pair: of two in a row, which become one with the same factors, the dearer."""
        behind = self._behind.get(pair.output, []) if all(r.kind == "quantizer" for r in pair.readers) else []
        return max([pair, *behind], key=self.elements)

    def elements(self, pair: Pair) -> int:
        """That pass the operators of a pair."""
        return (self._sizes.elements(self._tensor(pair)) or 0) * len(self._nodes[pair.output])

    def _tensor(self, pair: Pair) -> ir.Value | None:
        # behind a pair at a new place no value of the source has the name of what is quantized
        return self._values.get(pair.source, self._values.get(pair.output))
