"""Who needs the numbers of a quantizer: what computes with them, and neither what moves them nor what rounds alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.needs import MEASURES
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.factors import Quantizer
from amct_onnx.plan.grids import moved_inputs
from amct_onnx.plan.pair_graph import PairGraph, narrows, repeats


class Demands:
    """Asks the readers of the tensors of a graph of pairs.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: PairGraph) -> None:
        self._graph = graph
        self._rounded: dict[tuple[tuple[ir.Node, int], Quantizer], bool] = {}
        # a tensor that moves bring together of several grids is rounded again by these alone
        self._behind_moves = {q for s, q in graph.pairs.values() if _is_moved(s) and graph.on_grid(s) is None}
        self._behind_moves |= {
            q for n, q in graph.outputs.items() if n.inputs[0] is not None and _is_moved(n.inputs[0])
        }

    def demands(self, value: ir.Value, rooted: Collection[ir.Value], *, own_unit: bool) -> bool:
        """Whether a reader of a tensor computes with its numbers.

        Args:
            value: on a quantizer's grid, or behind a factor.
            rooted: vertices of pairs, and graph outputs, that take the integers of pairs before them.
            own_unit: whether the tensor would hold its own numbers, only unrounded, if no pair in front of it stayed.
        """
        waiting = [value]
        while waiting:
            current = waiting.pop()
            if current.is_graph_output():
                return True
            for node, index in self._readers(current):
                if self._graph.factor(node) is not None:
                    waiting.append(node.outputs[0])
                elif self._reader_demands(node, index, current, rooted, own_unit):
                    return True
        return False

    def rounded_alike(self, value: ir.Value) -> Iterator[ir.Value]:
        """The vertices of the pairs that round like a tensor's own pair what its readers bring together with others."""
        held = self._graph.on_grid(value)
        waiting, seen = list(self._readers(value)), set[tuple[ir.Node, int]]()
        waiting = [r for r in waiting if held is not None and not self._moves(*r, value)]
        while waiting and held is not None:
            reader = waiting.pop()
            if reader in seen or not self._is_rounded_behind(*reader, held):
                continue
            seen.add(reader)
            waiting += self._onward(*reader, held) or ()
            for dequantize in (self._dequantizers(reader[0]) or ()) if is_op(reader[0], QUANTIZE) else ():
                yield self._graph.of(dequantize.outputs[0])

    def _readers(self, value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
        """The uses of a tensor that any output of the model depends on."""
        for use in value.uses():
            if use.node in self._graph.live:
                yield use.node, use.idx

    def _dequantizers(self, quantize: ir.Node) -> list[ir.Node] | None:
        """The DequantizeLinear nodes behind a QuantizeLinear; None where its integers go elsewhere."""
        stack, found = [quantize.outputs[0]], list[ir.Node]()
        while stack:
            value = stack.pop()
            if value.is_graph_output() and value is not quantize.outputs[0]:
                return None
            for reader, _ in self._readers(value):
                if is_op(reader, *BETWEEN):
                    stack.extend(reader.outputs)
                elif is_op(reader, DEQUANTIZE) and reader in self._graph.pairs:
                    found.append(reader)
                else:
                    return None
        return found

    def _reader_demands(
        self, node: ir.Node, index: int, value: ir.Value, rooted: Collection[ir.Value], own_unit: bool
    ) -> bool:
        """Whether one reader of a tensor computes with its numbers; not of a scalar factor."""
        own, held = self._graph.layers.get((node.name or "", index)), self._graph.on_grid(value)
        if own is not None:
            return held is None or not own.same_grid(held)
        if is_op(node, QUANTIZE) and index == 0:
            return self._quantizer_demands(node, held, rooted)
        if node.op_type in MEASURES and node.domain == "":
            return False
        if self._moves(node, index, value):
            return False
        return held is None or not own_unit or not self._is_rounded_behind(node, index, held)

    def _moves(self, node: ir.Node, index: int, value: ir.Value) -> bool:
        """Whether a reader moves the elements of a vertex to vertices."""
        held = self._graph.on_grid(value)
        if held is None or narrows(node) or index not in moved_inputs(node, held, self._graph.constants):
            return False
        return all(self._graph.on_grid(o) is not None for o in node.outputs)

    def _quantizer_demands(self, node: ir.Node, held: Quantizer | None, rooted: Collection[ir.Value]) -> bool:
        """Whether a QuantizeLinear rounds to other integers than those that its input has on the grid ``held``."""
        behind, own = self._dequantizers(node), self._graph.outputs.get(node)
        if behind is None or not (own is None or node.outputs[0] in rooted or repeats(held, own)):
            return True
        return not all(self._graph.of(d.outputs[0]) in rooted or repeats(held, self._graph.pairs[d][1]) for d in behind)

    def _is_rounded_behind(self, node: ir.Node, index: int, held: Quantizer) -> bool:
        """Whether QuantizeLinear nodes round, as ``held`` does, all that a reader and those behind it move.

        What the reader brings together, as a Concat of several grids, lies on none.
        """
        if held not in self._behind_moves:
            return False
        stack = [(node, index)]
        while stack:
            reader = stack[-1]
            onward = None if (reader, held) in self._rounded else self._onward(*reader, held)
            pending = [r for r in onward or () if (r, held) not in self._rounded]
            if pending:
                stack += pending  # no cycle can occur: the graph is sorted
                continue
            if (reader, held) not in self._rounded:
                self._rounded[reader, held] = onward is not None and all(self._rounded[r, held] for r in onward)
            stack.pop()
        return self._rounded[(node, index), held]

    def _onward(self, node: ir.Node, index: int, held: Quantizer) -> list[tuple[ir.Node, int]] | None:
        """Who reads what a reader moves; none behind a QuantizeLinear that rounds as ``held`` does, None elsewhere."""
        if is_op(node, QUANTIZE) and index == 0:
            return None if self._quantizer_demands(node, held, ()) else []
        moves = node.op_type != "Cast" and index in moved_inputs(node, held, self._graph.constants)
        if not moves or any(v.is_graph_output() for v in node.outputs):
            return None
        readers = (r for v in node.outputs for r in self._readers(v))
        return [r for r in readers if r[0].op_type not in MEASURES or r[0].domain]


def _is_moved(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and bool(data_inputs(node))
