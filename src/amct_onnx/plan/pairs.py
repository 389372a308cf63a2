"""Which quantizer pairs stay, and where: the cheapest that give every reader the numbers of the source, bit for bit.

Three rewrites, each of which is exact in the arithmetic of the source and of every chip:

* A pair goes where all that reads it rounds alike, or needs no numbers. What moves may bring together with other
  tensors, a Concat of several grids, only has to be rounded alike in the end.
* A pair moves through what only selects elements. The pairs that stay are the minimum cut between where numbers enter
  and who needs them rounded, by the number of elements that pass: the result depends on no order.
* A pair whose quantizer restores the integers of the pairs before it takes them from the tensor that those quantize.
  What lies in between, a scalar factor perhaps, goes with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace

import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.plan.demands import Demands
from amct_onnx.plan.element_counts import UNKNOWN, counts_of
from amct_onnx.plan.factors import Pair, Quantizer, Reader
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.minimum_cut import minimum_cut
from amct_onnx.plan.open_sizes import OpenSizes
from amct_onnx.plan.pair_graph import PairGraph, Track, live_nodes
from amct_onnx.plan.restoring_pairs import restoring_outputs, restoring_pairs

USUALLY = 1 << 160
"""Between cuts of as many elements at most, the one with fewer elements usually wins."""
TIES = 1 << 12
"""Between cuts of as many elements, the one with fewer pairs at new places wins."""
MOVED = ".on_grid"
"""End of the name of what a pair makes at a place where the source has none."""

Shared = dict[tuple[int, str], list[Quantizer]]
"""Identity of a graph, and name of a tensor -> as what the layers in that graph quantize it."""


@dataclass(frozen=True)
class Quantization:
    """What an AscendQuant reads and which factors it has.

    Attributes:
        source: name of a float tensor.
        quantizer: the factors.
    """

    source: str
    quantizer: Quantizer


@dataclass(frozen=True)
class PairPlan:
    """What becomes of the per-tensor pairs of 8 bits.

    Attributes:
        pairs: output of a DequantizeLinear -> what becomes of it.
        moved: pairs at new places.
        readers: input of a layer, or of a QuantizeLinear that makes a graph output -> what its AscendQuant reads.
    """

    pairs: dict[str, Pair]
    moved: tuple[Pair, ...]
    readers: dict[Reader, Quantization]


def plan_pairs(
    nodes: list[ir.Node],
    model: ir.Model,
    layers: Mapping[Reader, Quantizer],
    outputs: Mapping[ir.Node, Quantizer],
    grids: Grids,
    constants: ConstantEvaluator,
    apart: Collection[Reader] = (),
    *,
    drop: bool = False,
) -> PairPlan:
    """Decide on every per-tensor pair of 8 bits.

    Args:
        nodes: of the model, sorted.
        model: the normalised source.
        layers: the quantizer of each input of a layer that becomes int8.
        outputs: the QuantizeLinear nodes that make graph outputs, and their factors.
        grids: grids of the model.
        constants: constants of the model.
        apart: those of ``layers`` that quantize their input in another form, with an AscendQuant of their own.
        drop: whether a pair goes that shares no AscendQuant with a layer.
    """
    pairs = PairGraph(grids, constants, layers, outputs, nodes, live_nodes(model.graph))
    return _Decision(pairs, model, apart, drop=drop).plan()


class _Decision:
    """The steps of the decision, each of which reads what those before it found."""

    def __init__(self, graph: PairGraph, model: ir.Model, apart: Collection[Reader], *, drop: bool) -> None:
        self._graph, self._main, self._apart, self._drops = graph, model.graph, apart, drop
        names = {v.name or "" for n in graph.nodes for v in n.outputs}
        self._suffix = MOVED
        while any(name + self._suffix in names for name in names):
            self._suffix += "_"
        self._area = graph.areas()
        self._members: dict[ir.Value, list[ir.Value]] = {}
        for vertex, first in self._area.items():
            self._members.setdefault(first, []).append(vertex)
        self._rooted, self._given = restoring_pairs(graph), restoring_outputs(graph)
        self._demands = Demands(graph)
        self._other_unit = {self._area[v] for v in self._rooted}
        self._tensors: dict[ir.Value, list[ir.Value]] = {}
        for tensor, vertex in graph.vertex.items():
            self._tensors.setdefault(vertex, []).append(tensor)
        self._pure = {a for a in self._members if self._is_pure(a)}
        self._counted = counts_of(graph, self._area, OpenSizes(model))
        # a pair that shares an AscendQuant costs less, but is not dropped
        self._quantized = set() if drop else self._read_by_layers()
        self._cut = self._cheapest()
        self._held = {self._area[v] for v in self._cut}
        self._taken: dict[ir.Value, Quantization] = {}
        for node, (source, quantizer) in graph.pairs.items():
            vertex = graph.of(node.outputs[0])
            if vertex not in self._taken:
                self._taken[vertex] = self._quantization(vertex, source, quantizer)

    def _track(self, vertex: ir.Value) -> Track:
        node = vertex.producer()
        assert node is not None
        return self._graph.tracks[self._graph.pairs[node][0]]

    def _starts(self, area: ir.Value) -> list[ir.Value]:
        return [v for v in self._members[area] if v in self._graph.starts]

    def _is_pure(self, area: ir.Value) -> bool:
        """Whether all pairs of an area take their integers from the same pairs, and nothing moves them on.

        Only then can all of them go. What moved would hold the numbers of the first pairs, in another unit than the
        source's tensor.
        """
        starts = self._starts(area)
        if not starts or not self._rooted.issuperset(starts):
            return False
        if not self._graph.vertex.keys() >= set(self._members[area]):
            return False
        before = {self._area[r] for v in starts for r in self._track(v).roots}
        first = self._track(starts[0]).quantizer
        return len(before) == 1 and all(self._track(v).quantizer.same_grid(first) for v in starts)

    def _cheapest(self) -> frozenset[ir.Value]:
        """The vertices at which a pair stays."""
        demanding = self._demanding(self._rooted)
        cut = {v for v in self._rooted if self._area[v] not in self._pure and self._graph.edges.get(v)}
        for area in dict.fromkeys(self._area[v] for v in self._area if v in demanding):
            members, starts = self._members[area], self._starts(area)
            if area in self._pure:
                cut.update(starts)
                continue
            cut.update(demanding & self._rooted & set(starts))
            place = {v: i for i, v in enumerate(members)}
            edges = [(place[v], place[t]) for v in members for t in self._graph.edges.get(v, ())]
            ends = [place[v] for v in members if v in demanding]
            ways = [place[v] for v in starts if v not in self._rooted]
            found = minimum_cut([self._cost(v) for v in members], edges, ways, ends)
            cut.update(members[i] for i in found)
        return frozenset(cut)

    def _demanding(self, rooted: Set[ir.Value]) -> set[ir.Value]:
        """The vertices whose numbers a reader computes with."""
        rooted = rooted | self._given
        return {v for v, area in self._area.items() if self._is_demanding(v, rooted, area not in self._other_unit)}

    def _is_demanding(self, vertex: ir.Value, rooted: Set[ir.Value], own_unit: bool) -> bool:
        return any(self._demands.demands(t, rooted, own_unit=own_unit) for t in self._tensors.get(vertex, [vertex]))

    def _read_by_layers(self) -> set[ir.Value]:
        """The vertices for which an AscendQuant is needed anyway."""
        found = {self._graph.of(self._track(v).moved) for v in self._rooted}
        for node in self._graph.nodes:
            readers = ((node.name or "", i) for i in range(2))
            if node.graph is self._main and any(r in self._graph.layers and r not in self._apart for r in readers):
                found.update(self._graph.of(v) for v in node.inputs[:2] if v is not None)
        return found

    def _cost(self, vertex: ir.Value) -> int | None:
        """Elements that pass AscendQuant and AscendAntiQuant of a pair there; None where no pair may stand."""
        node, count = vertex.producer(), self._counted[vertex]
        passes = 1 if vertex in self._quantized else 2
        is_pair = node in self._graph.pairs
        if count is None:
            return passes * UNKNOWN * USUALLY if is_pair else None
        cost = passes * (count.most * USUALLY + count.usual * TIES)
        if is_pair:
            return cost
        outside = node is None or node.graph is not self._main
        return None if outside or vertex in self._graph.tainted else cost + 1

    def _quantization(self, vertex: ir.Value, source: ir.Value, quantizer: Quantizer) -> Quantization:
        """What stands for the quantizer of a pair; that of the pairs before it is known."""
        if vertex not in self._rooted:
            in_front = self._taken.get(self._graph.of(source))
            if in_front is not None and vertex not in self._graph.starts:
                return in_front  # a pair right behind another
            if self._graph.repeats(source, quantizer):
                return Quantization(source.name or "", self._factors(vertex))
            return Quantization(self.alias(source), quantizer)
        return self._of_first(self._graph.tracks[source])

    def _of_first(self, track: Track) -> Quantization:
        """What makes the integers of the pairs in front of a tensor."""
        before = self._graph.of(track.moved)
        return self._taken.get(before) or Quantization(track.moved.name or "", self._factors(before))

    def _factors(self, vertex: ir.Value) -> Quantizer:
        """The factors that quantize a vertex: where all before it is left out, those of the first pairs."""
        vertex = self._graph.of(vertex)
        area, own = self._area[vertex], self._graph.on_grid(vertex)
        assert own is not None
        if area in self._held or area not in self._pure:
            return own
        return self._taken[self._starts(area)[0]].quantizer

    def alias(self, value: ir.Value) -> str:
        """The name of a tensor behind the pair that has moved there, if one has."""
        name = value.name or ""
        return name + self._suffix if value in self._cut and value not in self._graph.vertex else name

    def plan(self) -> PairPlan:
        """The decision by names; see ``plan_pairs``."""
        readers: dict[Reader, Quantization] = {}
        shared: Shared = {}
        for node in self._graph.nodes:
            for index, value in enumerate(node.inputs):
                reader = node.name or "", index
                if value is None or not (reader in self._graph.layers or (node in self._graph.outputs and not index)):
                    continue
                taken = self._reader(node, value)
                if taken is None:
                    continue
                readers[reader] = taken
                if reader in self._graph.layers and reader not in self._apart:
                    shared.setdefault((id(node.graph), taken.source), []).append(taken.quantizer)
        pairs = {n: self._pair(n, source, quantizer) for n, (source, quantizer) in self._graph.pairs.items()}
        moved = {
            value: Pair(self.alias(value), value.name or "", own, False, float(own.scale_d), (value.name or "",))
            for value in self._area
            if self.alias(value) != value.name and (own := self._graph.on_grid(value)) is not None
        }
        # each graph, main or body, has AscendQuants of its own
        for node, pair in pairs.items():
            pairs[node] = replace(pair, shared=not pair.elided and _is_among(pair, shared, node.graph))
        for value, pair in moved.items():
            moved[value] = replace(pair, shared=_is_among(pair, shared, value.graph))
        if self._drops:
            self._drop(pairs, moved, shared)
        return PairPlan({p.output: p for p in pairs.values()}, tuple(moved.values()), readers)

    def _pair(self, node: ir.Node, source: ir.Value, quantizer: Quantizer) -> Pair:
        name, vertex = node.outputs[0].name or "", self._graph.of(node.outputs[0])
        taken, kept = self._taken[vertex], vertex in self._cut
        read = taken.source if kept or vertex in self._rooted else self.alias(source)
        return Pair(name, read, taken.quantizer, not kept, float(quantizer.scale_d))

    def _drop(self, pairs: dict[ir.Node, Pair], moved: dict[ir.Value, Pair], shared: Shared) -> None:
        """Drop what shares no AscendQuant, and each pair that was left out because one of these rounds in its place."""
        going = {v for v, p in moved.items() if not p.shared}
        going |= {self._graph.of(n.outputs[0]) for n, p in pairs.items() if not (p.elided or p.shared)}
        unrounded = self._unrounded(going)
        for node, pair in pairs.items():
            dropped = self._graph.of(node.outputs[0]) in unrounded if pair.elided else not pair.shared
            if dropped:
                source, quantizer = self._graph.pairs[node]
                made = Pair(pair.output, self.alias(source), quantizer, names=pair.names, dropped=True)
                pairs[node] = replace(made, shared=_is_among(made, shared, node.graph))
        for value in moved:
            moved[value] = replace(moved[value], dropped=not moved[value].shared)

    def _unrounded(self, going: Collection[ir.Value]) -> set[ir.Value]:
        """The vertices that held the source's numbers, or stood before such, and whose readers get others now.

        Args:
            going: the vertices at which a pair no longer rounds.
        """
        demanding = self._demanding(self._rooted.difference(going))
        stay, edges = self._cut.difference(going), self._graph.edges
        loose, needed = set(self._graph.starts) - stay, set(demanding)
        for vertex in self._area:  # in the order of the nodes
            if vertex in loose:
                loose.update(t for t in edges.get(vertex, ()) if t not in stay)
        for vertex in reversed(self._area):
            alike = (b for t in self._tensors.get(vertex, [vertex]) for b in self._demands.rounded_alike(t))
            if any(t in needed and t not in stay for t in (*edges.get(vertex, ()), *alike)):
                needed.add(vertex)
        return loose & needed

    def _reader(self, node: ir.Node, value: ir.Value) -> Quantization | None:
        """What a layer or a graph output quantizes; None where that is all its own."""
        own = self._graph.outputs.get(node)
        if node.outputs[0] in self._given:
            return self._of_first(self._graph.tracks[value])
        if own is not None and not self._graph.repeats(value, own):
            return Quantization(self.alias(value), own)
        if self._graph.of(value) in self._taken and own is None:
            return self._taken[self._graph.of(value)]
        return Quantization(value.name or "", self._factors(value)) if self._graph.of(value) in self._area else None


def _is_among(pair: Pair, shared: Shared, graph: object) -> bool:
    """Whether a layer in the pair's graph quantizes the same tensor alike."""
    assert pair.quantizer is not None
    return any(pair.quantizer.same_grid(q) for q in shared.get((id(graph), pair.source), ()))
