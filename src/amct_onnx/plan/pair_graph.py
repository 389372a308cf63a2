"""The pairs of a model as a graph: where a quantizer's numbers go, and who needs them rounded.

A vertex is a float tensor whose numbers lie on the grid of one per-tensor quantizer of 8 bits. Edges are operators that
only move elements, so that quantizing in front of them is quantizing behind them. Numbers enter at the pairs. A reader
that computes with them demands that they are rounded; a layer that becomes int8 rounds for itself, Shape needs none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from amct_onnx.device.restored_integers import Step, keeps, restores
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.moves import data_inputs, fills
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, is_op
from amct_onnx.graph.scalar_factors import Factor, factor_of
from amct_onnx.plan.factors import Quantizer, Reader
from amct_onnx.plan.grids import Grids, clip_limits, moved_inputs


@dataclass(frozen=True)
class Track:
    """How a tensor comes from the pairs in front of it.

    Attributes:
        quantizer: of these pairs.
        roots: the vertices of these pairs.
        moved: the tensor in front of the factors; behind it nothing moves elements.
        steps: the scalar factors, in order.
    """

    quantizer: Quantizer
    roots: frozenset[ir.Value]
    moved: ir.Value
    steps: tuple[Step, ...] = ()


@dataclass(eq=False)
class PairGraph:
    """See the module.

    Attributes:
        grids, constants: of the model.
        layers: the quantizer of each input of a layer that becomes int8.
        outputs: the QuantizeLinear nodes that make graph outputs, and their factors.
        nodes: of the model, sorted.
        live: those that an output depends on.
        pairs: DequantizeLinear -> the float tensor behind its QuantizeLinear and the factors; per-tensor, 8 bits.
        vertex: the output of each of these -> the one that stands for all pairs of that tensor and those factors.
        edges: from vertex to vertex.
        starts: vertices where numbers enter unrounded.
        tracks: tensor -> how it comes from the pairs in front of it.
        tainted: tensors that hold constants which a chip's arithmetic does not keep, or that were rounded to float16:
            what lies there may be quantized again, but no pair may move there.
    """

    grids: Grids
    constants: ConstantEvaluator
    layers: Mapping[Reader, Quantizer]
    outputs: Mapping[ir.Node, Quantizer]
    nodes: list[ir.Node]
    live: Collection[ir.Node]
    pairs: dict[ir.Node, tuple[ir.Value, Quantizer]] = field(default_factory=dict)
    vertex: dict[ir.Value, ir.Value] = field(default_factory=dict)
    edges: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)
    starts: set[ir.Value] = field(default_factory=set)
    tracks: dict[ir.Value, Track] = field(default_factory=dict)
    tainted: set[ir.Value] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Go through the nodes once, in their order."""
        known: dict[tuple[ir.Value, Quantizer], ir.Value] = {}
        for node in self.nodes:
            if is_op(node, DEQUANTIZE):
                pair = None if self.constants.is_constant(node.outputs[0]) else self.grids.pair(node)
                if pair is not None and pair[1].per_tensor_int8:
                    self._add_pair(node, pair, known)
            else:
                self._add_moves(node)
                self._track(node)

    def _add_pair(
        self, node: ir.Node, pair: tuple[ir.Value, Quantizer], known: dict[tuple[ir.Value, Quantizer], ir.Value]
    ) -> None:
        source, quantizer = pair
        output = node.outputs[0]
        self.pairs[node] = pair
        first = known.setdefault(pair, output)
        self.vertex[output] = first
        self.tracks[output] = Track(quantizer, frozenset({first}), output)
        if first is not output:
            return
        held = self.on_grid(source)
        alike = held is not None and held.float_type == quantizer.float_type
        if alike and self.repeats(source, quantizer) and source not in self.tainted:
            self._join(source, output)
        else:
            self.starts.add(output)

    def repeats(self, source: ir.Value, quantizer: Quantizer) -> bool:
        """Whether a quantizer gives the integers again on whose grid its source lies already."""
        return repeats(self.on_grid(source), quantizer)

    def on_grid(self, value: ir.Value) -> Quantizer | None:
        """The quantizer of a vertex; None for other tensors."""
        held = None if self.constants.is_constant(value) else self.grids.of(value)
        return held if held is not None and held.per_tensor_int8 else None

    def of(self, value: ir.Value) -> ir.Value:
        """The vertex of a tensor."""
        return self.vertex.get(value, value)

    def _join(self, source: ir.Value, target: ir.Value) -> None:
        self.edges.setdefault(self.of(source), []).append(target)

    def _add_moves(self, node: ir.Node) -> None:
        for output in node.outputs:
            quantizer = self.on_grid(output)
            if quantizer is None:
                continue
            numbers = self._numbers(node, quantizer)
            inputs = [v for i in moved_inputs(node, quantizer, self.constants) if (v := node.inputs[i]) is not None]
            moved = [v for v in inputs if not self.constants.is_constant(v)]
            narrowed = narrows(node)
            kept = all(keeps(float(n), quantizer) for n in numbers)
            if narrowed or not kept or any(v in self.tainted for v in moved):
                self.tainted.add(output)
            if not narrowed:
                for value in moved:
                    self._join(value, output)

    def _numbers(self, node: ir.Node, quantizer: Quantizer) -> np.ndarray:
        """The constants that a mover lets in beside the elements that it moves."""
        found: list[np.ndarray] = [np.zeros(0, np.float32)]
        if node.op_type == "Clip" and node.domain == "":
            found.append(clip_limits(node, quantizer, self.constants))
        elif fills(node):
            fill = node.inputs[2] if len(node.inputs) > 2 else None
            found.append(np.zeros(1, np.float32) if fill is None else np.asarray(self.constants.array(fill)))
        for index in data_inputs(node):
            value = node.inputs[index]
            if value is not None and self.constants.is_constant(value):
                found.append(np.asarray(self.constants.array(value)))
        numbers = np.concatenate([f.reshape(-1).astype(np.float32) for f in found])
        return np.unique(numbers) if numbers.size > 1 else numbers  # its first call imports numpy.ma

    def _track(self, node: ir.Node) -> None:
        factor = self.factor(node)
        if factor is not None:
            before = self.tracks[factor.value]
            step = factor.op_type, factor.number
            self.tracks[node.outputs[0]] = replace(before, steps=(*before.steps, step))
            return
        if node.op_type == "Cast":  # to another float type than the quantizer's
            return
        for output in node.outputs:
            held = self.on_grid(output)
            if held is None or output in self.tainted:
                continue
            inputs = [v for i in moved_inputs(node, held, self.constants) if (v := node.inputs[i]) is not None]
            found = [self.tracks.get(v) for v in inputs if not self.constants.is_constant(v)]
            tracks = [t for t in found if t is not None and not t.steps and _alike(t, found[0])]
            if tracks and len(tracks) == len(found):
                roots = frozenset().union(*(t.roots for t in tracks))
                self.tracks[output] = Track(tracks[0].quantizer, roots, output)

    def factor(self, node: ir.Node) -> Factor | None:
        """The factor that a node is to a tensor that comes from a pair."""
        if not any(v in self.tracks for v in node.inputs):
            return None
        factor = factor_of(node, self.constants)
        return factor if factor is not None and factor.value in self.tracks else None

    def areas(self) -> dict[ir.Value, ir.Value]:
        """Each vertex -> the first vertex of those that edges join it with; in the order of the nodes."""
        first: dict[ir.Value, ir.Value] = {}
        for node in self.nodes:
            for output in node.outputs:
                if self.on_grid(output) is not None and (vertex := self.of(output)) not in first:
                    first[vertex] = vertex
        for tail, heads in self.edges.items():
            for head in heads:
                a, b = _leader(first, tail), _leader(first, head)
                first[b if a is not b else a] = a
        return {v: _leader(first, v) for v in first}


def repeats(held: Quantizer | None, quantizer: Quantizer) -> bool:
    """Whether a quantizer gives the integers again on whose grid a tensor lies; None for a tensor on no grid."""
    return held is not None and held.same_grid(quantizer) and restores(held, (), quantizer)


def live_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes on which an output of the graph depends, those of the bodies of such nodes included."""
    found: set[ir.Node] = set()
    waiting = [v for v in graph.outputs]
    while waiting:
        node = waiting.pop().producer()
        if node is None or node in found:
            continue
        found.add(node)
        waiting.extend(v for v in node.inputs if v is not None)
        for body in bodies_of(node):
            waiting.extend(body.outputs)
    return found


def _leader(first: dict[ir.Value, ir.Value], vertex: ir.Value) -> ir.Value:
    while first[vertex] is not vertex:
        first[vertex] = first[first[vertex]]
        vertex = first[vertex]
    return vertex


def _alike(track: Track, other: Track | None) -> bool:
    mine, theirs = track.quantizer, other.quantizer if other is not None else None
    return theirs is not None and mine.same_grid(theirs) and mine.float_type == theirs.float_type


def narrows(node: ir.Node) -> bool:
    """Whether a node rounds to float16."""
    return node.op_type == "Cast" and node.domain == "" and node.attributes["to"].as_int() == int(ir.DataType.FLOAT16)
