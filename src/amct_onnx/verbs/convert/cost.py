"""What a deploy model costs on a device: multiply-accumulates in int8, and the quantizers that pass over memory.

Sizes are those of one run: of as many samples as the model declares, and with 1 for each free axis, which is told.
The body of a Loop counts once, both branches of an If. Tensors of unknown rank are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.emit.quantizing_nodes import QuantizingNodes
from amct_onnx.graph.edit import nodes_of, stands_for
from amct_onnx.graph.quantizer_nodes import QUANTIZE, is_op
from amct_onnx.normalise.moves_before_factors import in_source
from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.verbs.convert.exporter_changes import Change, changes_of
from amct_onnx.verbs.convert.exporter_options import exporter_options
from amct_onnx.verbs.convert.pair_gains import ANTI_QUANT, QUANT, PairGains
from amct_onnx.verbs.convert.remedies import why_in_float
from amct_onnx.verbs.convert.tensor_sizes import UNNAMED, TensorSizes
from amct_onnx.verbs.convert.work import EINSUM, macs_of, multiplies

DEQUANT = "AscendDequant"
MAX_AXES = 4
"""Free axes that a sentence names."""


@dataclass(frozen=True)
class Passes:
    """Operators of one kind that quantize in one model.

    Attributes:
        nodes: how many there are.
        elements: that pass them in one run, once for each operator; tensors of unknown size count none.
    """

    nodes: int
    elements: int


@dataclass(frozen=True)
class Cost:
    """The cost of a deploy model, beside its source's.

    Attributes:
        macs: multiply-accumulates of all Conv, ConvTranspose, Gemm, MatMul, Einsum, LSTM, GRU and RNN in one run.
        constant_macs: of those with a constant weight.
        int8_macs: of all that are int8.
        int8_constant_macs: of those with a constant weight that are int8.
        unknown: operators that may multiply and whose work is unknown, which count nowhere.
        int8_layers: layers that are int8.
        float_operators: float operators that stand between two int8 layers.
        source: activation quantizers of the source, before.
        source_float: of these, those that no AscendQuant holds: 16 bits, float8, several scales.
        quant: AscendQuant left, after.
        anti_quant: AscendAntiQuant left.
        float_quant: float operators that quantize where AscendQuant cannot: those that stand for ``source_float``, and
            a Clip in front of each AscendQuant whose range is narrower than int8.
        changes: what would gain most, the most elements first.
        exporter: what to type for it in the exporter that the file names, where that is known; else "".
        free_axes: names of the axes without a size, each of which counts as 1.
    """

    macs: int
    constant_macs: int
    int8_macs: int
    int8_constant_macs: int
    unknown: int
    int8_layers: int
    float_operators: int
    source: Passes
    source_float: Passes
    quant: Passes
    anti_quant: Passes
    float_quant: Passes
    changes: tuple[Change, ...]
    exporter: str = ""
    free_axes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """What a user reads of it."""
        lines = [self._work()] if self.macs or self.unknown else []
        lines.append(
            f"Quantizers: {self.source.nodes} for {self.source.elements:,} elements a run in the source; "
            f"{self.quant.nodes} AscendQuant for {self.quant.elements:,} and {self.anti_quant.nodes} AscendAntiQuant "
            f"for {self.anti_quant.elements:,} in the deploy model."
        )
        if self.float_quant.nodes:
            lines.append(self._in_float())
        if self.free_axes:
            rest = len(self.free_axes) - MAX_AXES
            more = f" and {rest} more" if rest > 0 else ""
            lines.append(f"Each free axis counts as 1: {', '.join(self.free_axes[:MAX_AXES])}{more}.")
        return lines

    def _in_float(self) -> str:
        """One line on the float operators that quantize where AscendQuant cannot."""
        operators = counted(self.float_quant.nodes, "float operator quantizes", "float operators quantize")
        line = f"{operators} where AscendQuant cannot, for {self.float_quant.elements:,} elements"
        if not self.source_float.nodes:
            return f"{line}: each cuts a range that is narrower than int8."
        held = counted(self.source_float.nodes, "quantizer")
        return f"{line}; they stand for {held} of the source, for {self.source_float.elements:,}."

    def _work(self) -> str:
        operators = counted(self.unknown, "operator")
        if not self.macs:
            return f"Int8 work: unknown, as that of {operators} is."
        line = f"Int8 work: {_share(self.int8_macs, self.macs)} of {self.macs:,} multiply-accumulates a run"
        if self.unknown:
            line += f" that are known, beside {operators} whose work is not"
        if self.constant_macs:
            line += f", {_share(self.int8_constant_macs, self.constant_macs)} of those with constant weights"
        between = counted(self.float_operators, "float operator")
        return f"{line}. {between} {'stands' if self.float_operators == 1 else 'stand'} between int8 layers."


def _share(part: int, whole: int) -> str:
    """In percent; 100 % and 0 % are said of all and of nothing alone."""
    text = f"{part / whole:.1%}"
    if part < whole and text == "100.0%":
        return "over 99.9%"
    return "under 0.1%" if part and text == "0.0%" else text


def cost_of(source: ir.Model, deploy: ir.Model, plan: Plan, quantizing: QuantizingNodes, tensors: Set[str]) -> Cost:
    """The cost of a deploy model.

    Args:
        source: the normalised source.
        deploy: the model that was emitted for it, with its shapes.
        plan: of the conversion.
        quantizing: the nodes of ``deploy`` that quantize outside of its int8 layers.
        tensors: names of the tensors of the user's file.
    """
    nodes = list(nodes_of(deploy))
    ours = {s.node for s in plan.sites}
    # what an asymmetric weight was shifted by is a part of its layer
    parts = {f"{s.node}.sum" for s in plan.sites if s.input_sum is not None}
    layers = [n for n in nodes if multiplies(n) and n.name not in parts]
    sizes = TensorSizes(source, {f"{part}.add" for part in parts})
    constants = _Constants()
    macs = {n: macs_of(n, sizes) for n in layers}
    constant = {n for n in layers if any(v in constants for v in (n.inputs if n.op_type == EINSUM else n.inputs[:2]))}
    int8 = {n for n in layers if n.name in ours}
    values = {v.name or "": v for n in nodes_of(source) for v in (*n.inputs, *n.outputs) if v is not None}
    in_float = [p for p in (*plan.pairs, *plan.moved) if p.quantizer is not None and why_in_float(p)]
    float_quant = _float_quantizers(in_float, quantizing, values)
    gains = PairGains(plan, quantizing, values, sizes)
    before = [n for n in nodes_of(source) if n.op_type == "QuantizeLinear" and n.inputs[0] not in constants]
    places = dict(map(in_source, before))
    return Cost(
        macs=_total(macs.values()),
        constant_macs=_total(macs[n] for n in constant),
        int8_macs=_total(macs[n] for n in int8),
        int8_constant_macs=_total(macs[n] for n in int8 & constant),
        unknown=sum(m is None for m in macs.values()),
        int8_layers=len(int8),
        float_operators=_between(nodes, int8, float_quant.keys()),
        source=Passes(len(places), _total(map(sizes.elements, places.values()))),
        source_float=_passes(_quantizers_of(in_float, values), sizes),
        quant=_passes([n for n in nodes if n.op_type == QUANT], sizes),
        anti_quant=_passes([n for n in nodes if n.op_type == ANTI_QUANT], sizes),
        float_quant=Passes(len(float_quant), _total(map(sizes.elements, float_quant.values()))),
        changes=changes_of(plan, gains, tensors),
        exporter=exporter_options(source.producer_name, [stands_for(n)[1] for n in int8], plan, gains),
        free_axes=tuple(sorted(sizes.free_axes, key=UNNAMED.__eq__)),
    )


def _float_quantizers(
    pairs: Iterable[Pair], quantizing: QuantizingNodes, values: Mapping[str, ir.Value]
) -> dict[ir.Node, ir.Value | None]:
    """The float operators that quantize, each with the tensor of the source whose elements pass it."""
    clips = {node: node.inputs[0] for node in quantizing.clips}
    kept = [p for p in pairs if not p.dropped]
    made = {p.output: values.get(p.source, values.get(p.output)) for p in kept}
    return clips | {n: made[p.output] for p in kept for n in quantizing.pairs.get(p.output, ())}


def _quantizers_of(pairs: Iterable[Pair], values: Mapping[str, ir.Value]) -> list[ir.Node]:
    """The QuantizeLinear of each, once where several DequantizeLinear read it."""
    found: dict[ir.Node, None] = {}
    for pair in pairs:
        value: ir.Value | None = values[pair.output] if pair.source else None
        while value is not None and (node := value.producer()) is not None and not is_op(node, QUANTIZE):
            value = node.inputs[0]
        if value is not None and node is not None:
            found[node] = None
    return list(found)


def _passes(quantizers: list[ir.Node], sizes: TensorSizes) -> Passes:
    return Passes(len(quantizers), _total(sizes.elements(n.inputs[0]) for n in quantizers))


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


def _between(nodes: list[ir.Node], int8: set[ir.Node], quantizing: Set[ir.Node]) -> int:
    """Float operators behind one int8 layer and in front of another, without those that quantize or compute sizes."""
    behind = _reached(int8, lambda n: [user for output in n.outputs for user, _ in output.uses()])
    before = _reached(int8, lambda n: [p for v in n.inputs if v is not None and (p := v.producer()) is not None])
    ours = (QUANT, DEQUANT, ANTI_QUANT)
    others = (n for n in nodes if n.op_type not in ours and n not in int8 and n not in quantizing)
    return sum(n in behind and n in before and any(map(_may_be_float, n.outputs)) for n in others)


def _may_be_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


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
