"""What a deploy model costs on a device: multiply-accumulates in int8, and the quantizers that pass over memory.

Sizes are those of one sample: a free dimension counts as 1. Tensors of unknown rank are counted apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.copied_model import copy_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from amct_onnx.graph.shapes import infer_shapes

QUANT, DEQUANT, ANTI_QUANT = "AscendQuant", "AscendDequant", "AscendAntiQuant"
MAX_CHANGES = 3
"""Changes in the exporter that are named."""
GRAPH_INPUT = "graph input"


@dataclass(frozen=True)
class Passes:
    """Quantizers of one model.

    Attributes:
        nodes: how many there are.
        elements: that pass them in one sample; tensors of unknown size count none.
    """

    nodes: int
    elements: int


@dataclass(frozen=True)
class Change:
    """What a user may change in the exporter.

    Attributes:
        producer: operator whose output is quantized.
        readers: operators that read it in float.
        pairs: pairs of AscendQuant and AscendAntiQuant that would go.
        elements: that pass these pairs in one sample.
        advice: one sentence.
    """

    producer: str
    readers: str
    pairs: int
    elements: int
    advice: str


@dataclass(frozen=True)
class Cost:
    """The cost of a deploy model, beside its source's.

    Attributes:
        macs: multiply-accumulates of all Conv, ConvTranspose, Gemm and MatMul in one sample.
        constant_macs: of those with a constant weight.
        int8_macs: of all that are int8.
        int8_constant_macs: of those with a constant weight that are int8.
        unknown: layers whose size is unknown, which count nowhere.
        int8_layers: layers that are int8.
        float_operators: float operators that stand between two int8 layers.
        source: activation quantizers of the source, before.
        quant: AscendQuant left, after.
        anti_quant: AscendAntiQuant left.
        changes: what would gain most, the most elements first.
    """

    macs: int
    constant_macs: int
    int8_macs: int
    int8_constant_macs: int
    unknown: int
    int8_layers: int
    float_operators: int
    source: Passes
    quant: Passes
    anti_quant: Passes
    changes: tuple[Change, ...]

    def sentences(self) -> list[str]:
        """What a user reads of it."""
        lines = []
        if self.macs:
            share, constant = self.int8_macs / self.macs, self.int8_constant_macs / max(1, self.constant_macs)
            unknown = f"; {self.unknown} layers of unknown size not counted" if self.unknown else ""
            lines.append(
                f"Int8 work: {share:.1%} of {self.macs:,} multiply-accumulates a sample, {constant:.1%} of those with "
                f"constant weights{unknown}. {self.float_operators} float operators stand between int8 layers."
            )
        lines.append(
            f"Quantizers: {self.source.nodes} for {self.source.elements:,} elements a sample in the source; "
            f"{self.quant.nodes} AscendQuant for {self.quant.elements:,} and {self.anti_quant.nodes} AscendAntiQuant "
            f"for {self.anti_quant.elements:,} in the deploy model."
        )
        return lines


def cost_of(source: ir.Model, deploy: ir.Model) -> Cost:
    """The cost of a deploy model.

    Args:
        source: the normalised source.
        deploy: the model that was emitted for it, with its shapes.
    """
    nodes = list(nodes_of(deploy))
    layers = [n for n in nodes if n.op_type in LAYER_KINDS and n.domain == ""]
    sizes = _Sizes(source)
    constants = _Constants()
    macs = {n: sizes.macs(n) for n in layers}
    constant = {n for n in layers if n.inputs[1] in constants}
    int8 = {n for n in layers if _producer_type(n.inputs[0]) == QUANT}
    return Cost(
        macs=_total(macs.values()),
        constant_macs=_total(macs[n] for n in constant),
        int8_macs=_total(macs[n] for n in int8),
        int8_constant_macs=_total(macs[n] for n in int8 & constant),
        unknown=sum(m is None for m in macs.values()),
        int8_layers=len(int8),
        float_operators=_between(nodes, int8),
        source=sizes.passes(
            n for n in nodes_of(source) if n.op_type == "QuantizeLinear" and n.inputs[0] not in constants
        ),
        quant=sizes.passes(n for n in nodes if n.op_type == QUANT),
        anti_quant=sizes.passes(n for n in nodes if n.op_type == ANTI_QUANT),
        changes=_changes((n for n in nodes if n.op_type == ANTI_QUANT), sizes),
    )


MAX_ELEMENTS = 1 << 31
"""Of one sample's tensor; a file may declare any size, and a JSON number has 64 bits."""


class _Sizes:
    """Elements of the tensors of one sample; what the graph does not tell is inferred once, on a copy of the source."""

    def __init__(self, source: ir.Model) -> None:
        self._source = source
        self._inferred: dict[str, ir.Shape] | None = None

    def elements(self, value: ir.Value | None) -> int | None:
        """None when no size is known, or one is declared that no tensor has."""
        shape = self._shape(value)
        if shape is None:
            return None
        # old exporters write -1 for a free size
        count = math.prod(d if isinstance(d, int) and d >= 0 else 1 for d in shape)
        return count if count <= MAX_ELEMENTS else None

    def _shape(self, value: ir.Value | None) -> ir.Shape | None:
        while value is not None and value.shape is None:
            inferred = self._of_source().get(value.name or "")
            if inferred is not None:
                return inferred
            node = value.producer()
            keeps = node is not None and node.op_type in (QUANT, DEQUANT, ANTI_QUANT)
            value = node.inputs[0] if node is not None and keeps else None
        return None if value is None else value.shape

    def _of_source(self) -> dict[str, ir.Shape]:
        if self._inferred is None:
            copy = copy_model(self._source)
            infer_shapes(copy, strict=False)
            values = (v for n in nodes_of(copy) for v in n.outputs)
            self._inferred = {v.name: v.shape for v in values if v.name and v.shape is not None}
        return self._inferred

    def macs(self, node: ir.Node) -> int | None:
        """Products that a layer adds in one sample; those of a ConvTranspose are spread from its input."""
        weight = self._shape(node.inputs[1]) if len(node.inputs) > 1 else None
        if weight is None:
            return None
        layout = Layout(LAYER_KINDS[node.op_type], attribute(node, "group", 1), bool(attribute(node, "transB", 0)))
        shape = tuple(d if isinstance(d, int) else 1 for d in weight)
        if len(shape) < (2 if layout.kind.convolution else 1):  # no such layer runs
            return None
        if layout.kind.groups_on_inputs:
            spread, terms = self.elements(node.inputs[0]), math.prod(shape[1:])
        else:
            spread, terms = self.elements(node.outputs[0]), layout.terms(shape)
        return None if spread is None else spread * terms

    def passes(self, quantizers: Iterable[ir.Node]) -> Passes:
        """How many there are, and what passes them."""
        found = list(quantizers)
        return Passes(len(found), _total(self.elements(n.inputs[0]) for n in found))


def _total(sizes: Iterable[int | None]) -> int:
    return sum(size for size in sizes if size is not None)


class _Constants:
    """Tells which values no graph input reaches, which is what matters for a weight; each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, bool] = {}

    def __contains__(self, value: ir.Value | None) -> bool:
        if value is None:
            return True
        stack = [value]
        while stack:
            current = stack[-1]
            node = current.producer()
            inputs = [] if node is None or current.is_initializer() else [v for v in node.inputs if v is not None]
            left = [v for v in inputs if v not in self._known]
            if current in self._known or not left:
                self._known[current] = current.is_initializer() or (
                    node is not None and all(self._known[v] for v in inputs)
                )
                stack.pop()
            else:
                stack += left  # no cycle can occur: the graph is sorted
        return self._known[value]


def _producer_type(value: ir.Value | None) -> str:
    node = None if value is None else value.producer()
    return "" if node is None else node.op_type


def _producer(value: ir.Value | None) -> str:
    """The operator that makes a tensor; AscendDequant also in front of the Mul that restores a scale per channel."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Mul" and _producer_type(node.inputs[0]) == DEQUANT:
        return DEQUANT
    return "" if node is None else node.op_type


def _between(nodes: list[ir.Node], int8: set[ir.Node]) -> int:
    """Float operators behind one int8 layer and in front of another."""
    behind = _reached(int8, lambda n: [user for output in n.outputs for user, _ in output.uses()])
    before = _reached(int8, lambda n: [p for v in n.inputs if v is not None and (p := v.producer()) is not None])
    ours = (QUANT, DEQUANT, ANTI_QUANT)
    return sum(n in behind and n in before and n not in int8 and n.op_type not in ours for n in nodes)


def _reached(starts: set[ir.Node], neighbours: Callable[[ir.Node], list[ir.Node]]) -> set[ir.Node]:
    """Nodes that follow a start, the start itself only when a path leads back to it."""
    seen: set[ir.Node] = set()
    stack = list(starts)
    while stack:
        for node in neighbours(stack.pop()):
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def _changes(pairs: Iterable[ir.Node], sizes: _Sizes) -> tuple[Change, ...]:
    """The pairs grouped by what makes and what reads their numbers."""
    counts: Counter[tuple[str, str]] = Counter()
    elements: Counter[tuple[str, str]] = Counter()
    for node in pairs:
        quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
        producer = _producer(quantizer.inputs[0]) if quantizer is not None else ""
        readers = sorted({user.op_type for user, _ in node.outputs[0].uses()})
        key = (producer or GRAPH_INPUT, ", ".join(readers) or "graph output")
        counts[key] += 1
        elements[key] += sizes.elements(node.inputs[0]) or 0
    best = sorted(counts, key=lambda k: (-elements[k], k))[:MAX_CHANGES]
    return tuple(Change(*key, counts[key], elements[key], _advice(*key)) for key in best)


def _advice(producer: str, readers: str) -> str:
    made = {GRAPH_INPUT: "a graph input", DEQUANT: "an int8 layer"}.get(producer, producer)
    return f"between {made} and {readers}. Leave {readers} out of the operators that the exporter quantizes."
