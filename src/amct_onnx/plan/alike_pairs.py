"""Pairs that are left out because another one rounds alike, in front of it or behind it: they come back without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import onnx_ir as ir

from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.needs import MEASURES
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.factors import AlikePair, Pair, Quantizer, Reader
from amct_onnx.plan.grids import CONDITIONAL

Answer = TypeVar("Answer")


class AlikePairs:
    """Looks at the pairs of one model; what is found of a tensor is remembered, as many pairs may reach it.

    Args:
        pairs: of the plan.
        moved: those at places where the source has none.
        layers: the quantizer of each input of a layer that becomes int8.
        maker: tells what makes a tensor.
        readers: tells what reads the floats of a pair.
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        moved: Iterable[Pair],
        layers: Mapping[Reader, Quantizer],
        maker: Callable[[ir.Value], str],
        readers: Callable[[ir.Value], tuple[str, ...]],
    ) -> None:
        self._pairs = {p.output: p for p in pairs}
        self._moved = {p.source for p in moved}
        self._layers, self._maker, self._readers = layers, maker, readers
        self._fed: dict[ir.Value, bool] = {}
        self._needed: dict[ir.Value, bool] = {}
        self._demanded: dict[Quantizer, dict[ir.Value, bool]] = {}
        self._before: dict[Quantizer, dict[ir.Value, tuple[AlikePair, ...]]] = {}
        self._behind: dict[Quantizer, dict[ir.Value, tuple[AlikePair, ...]]] = {}

    def before(self, value: ir.Value, quantizer: Quantizer) -> tuple[AlikePair, ...]:
        """Those whose elements reach a pair.

        Args:
            value: what it quantizes.
            quantizer: its factors.
        """
        known = self._before.setdefault(quantizer, {})

        def sources(current: ir.Value) -> list[tuple[ir.Value, str]]:
            """Where elements come from; of what a pair makes, what it quantizes, and the operator that reads that."""
            node = current.producer()
            own = is_op(node, DEQUANTIZE)
            given = [current] if own else _sources(node) if node is not None else ()
            found = ((v, self._quantized(v, quantizer)) for v in given)
            reader = "" if own or node is None else node.op_type  # of a pair behind another one, that one is named
            return [
                (v, "") if floats is None else (floats, reader)
                for v, floats in found
                if floats is not None or not is_op(v.producer(), DEQUANTIZE)
            ]

        def solve(current: ir.Value) -> tuple[AlikePair, ...]:
            found: dict[AlikePair, None] = {}
            for source, reader in sources(current):
                if reader:
                    found[self._named(self._root(source, quantizer), (reader,), quantizer)] = None
                found.update(dict.fromkeys(known[source]))
            return tuple(found)

        found = _solved(value, known, lambda v: [source for source, _ in sources(v)], solve)
        if self._quantized(value, quantizer) is None:
            return found
        first = self._named(self._root(value, quantizer), self._read_by(value, quantizer), quantizer)
        return tuple(dict.fromkeys((first, *found)))

    def behind(self, value: ir.Value, quantizer: Quantizer) -> tuple[AlikePair, ...]:
        """Those that the elements of a pair reach, and whose floats something computes with.

        Args:
            value: what reads that pair reads this.
            quantizer: its factors.
        """
        known = self._behind.setdefault(quantizer, {})

        def solve(current: ir.Value) -> tuple[AlikePair, ...]:
            found: dict[AlikePair, None] = {}
            behind_another = is_op(current.producer(), DEQUANTIZE)  # without that one this one goes as well
            for reached, pair in self._onward(current, quantizer):
                if pair and not behind_another and self._is_demanded(reached, quantizer):
                    found[self._named(current, self._read_by(reached, quantizer), quantizer)] = None
                found.update(dict.fromkeys(known[reached]))
            return tuple(found)

        return _solved(value, known, lambda v: [reached for reached, _ in self._onward(v, quantizer)], solve)

    def feeds_layer(self, value: ir.Value) -> bool:
        """Whether an int8 layer reads a tensor as it is, or moved, without a quantizer in between."""

        def moved(current: ir.Value) -> list[ir.Value]:
            return [v for use in current.uses() if moves(use.node, use.idx) for v in use.node.outputs]

        def solve(current: ir.Value) -> bool:
            read = any((use.node.name or "", use.idx) in self._layers for use in current.uses())
            return read or any(self._fed[v] for v in moved(current))

        return _solved(value, self._fed, moved, solve)

    def leaves_out(self, quantize: ir.Node, quantizer: Quantizer | None) -> bool:
        """Whether a QuantizeLinear goes because one with these factors has rounded alike."""
        results = results_of(quantize)
        return quantizer is not None and bool(results) and all(self._quantized(v, quantizer) for v in results)

    def _named(self, floats: ir.Value, readers: tuple[str, ...], quantizer: Quantizer) -> AlikePair:
        """A pair by what it quantizes, what reads its floats and its factors."""

        def results(current: ir.Value) -> list[ir.Value]:
            return [v for u in current.uses() if is_op(u.node, QUANTIZE) and u.idx == 0 for v in results_of(u.node)]

        def solve(current: ir.Value) -> bool:
            return any(self.feeds_layer(v) or self._needed[v] for v in results(current))

        needed = _solved(floats, self._needed, results, solve)
        outputs = tuple(v.name or "" for v in results(floats) if self._quantized(v, quantizer) is not None)
        return AlikePair(self._maker(floats), readers if needed else (), needed, outputs)

    def _root(self, value: ir.Value, quantizer: Quantizer) -> ir.Value:
        """What the first of such pairs quantizes that stand behind one another in front of a tensor."""
        while (floats := self._quantized(value, quantizer)) is not None:
            value = floats
        return value

    def _read_by(self, result: ir.Value, quantizer: Quantizer) -> tuple[str, ...]:
        """Operators that read the floats of a pair, or of one behind it that is left out as well."""
        found, waiting = dict[str, None](), [result]
        while waiting:
            current = waiting.pop()
            quantizing = [u.node for u in current.uses() if is_op(u.node, QUANTIZE) and u.idx == 0]
            behind = [v for n in quantizing if self.leaves_out(n, quantizer) for v in results_of(n)]
            found.update((r, None) for r in self._readers(current) if not (behind and r == QUANTIZE))
            waiting += behind
        return tuple(found)

    def _quantized(self, value: ir.Value, quantizer: Quantizer) -> ir.Value | None:
        """What a pair quantizes that makes a tensor, is left out and rounds with these factors; else None."""
        pair, node = self._pairs.get(value.name or ""), value.producer()
        if pair is None or node is None or not pair.elided or not _rounds_alike(pair, quantizer):
            return None
        while node is not None and node.inputs and not is_op(node, QUANTIZE):
            node = None if node.inputs[0] is None else node.inputs[0].producer()
        return None if node is None else node.inputs[0]

    def _onward(self, value: ir.Value, quantizer: Quantizer) -> list[tuple[ir.Value, bool]]:
        """Where the elements of a tensor go, and whether through such a pair; not where a pair stays."""
        found = []
        for use in value.uses():
            if is_op(use.node, QUANTIZE) and use.idx == 0:
                found += [(v, True) for v in results_of(use.node) if self._quantized(v, quantizer) is not None]
            elif moves(use.node, use.idx):
                found += [(v, False) for v in use.node.outputs if v.name not in self._moved]
        return found

    def _is_demanded(self, value: ir.Value, quantizer: Quantizer) -> bool:
        """Whether anything behind a tensor computes with its numbers, or rounds otherwise."""
        known = self._demanded.setdefault(quantizer, {})

        def solve(current: ir.Value) -> bool:
            demanding = any(self._demands(use.node, use.idx, quantizer) for use in current.uses())
            onward = (reached for reached, _ in self._onward(current, quantizer))
            return current.is_graph_output() or demanding or any(known[v] for v in onward)

        return _solved(value, known, lambda v: [reached for reached, _ in self._onward(v, quantizer)], solve)

    def _demands(self, node: ir.Node, index: int, quantizer: Quantizer) -> bool:
        """Whether one reader does, which hands nothing on."""
        own = self._layers.get((node.name or "", index))
        if own is not None:
            return not own.same_grid(quantizer)
        if not is_op(node, QUANTIZE) or index:
            return not moves(node, index) and node.op_type not in MEASURES
        results = results_of(node)
        pairs = [self._pairs[v.name] for v in results if v.name in self._pairs]
        layers = [q for v in results for u in v.uses() if (q := self._layers.get((u.node.name or "", u.idx)))]
        alike = all(_rounds_alike(p, quantizer) for p in pairs) and all(q.same_grid(quantizer) for q in layers)
        return not results or not alike


def moves(node: ir.Node, index: int) -> bool:
    """Whether a node hands the elements of an input on."""
    return index in ((0,) if node.op_type in CONDITIONAL and not node.domain else data_inputs(node))


def results_of(quantize: ir.Node) -> list[ir.Value]:
    """What the DequantizeLinear nodes behind a QuantizeLinear make."""
    found, waiting = list[ir.Value](), [quantize.outputs[0]]
    while waiting:
        for use in waiting.pop().uses():
            if is_op(use.node, DEQUANTIZE) and use.idx == 0:
                found.append(use.node.outputs[0])
            elif is_op(use.node, *BETWEEN):
                waiting += use.node.outputs
    return found


def _rounds_alike(pair: Pair, quantizer: Quantizer) -> bool:
    return pair.quantizer is not None and pair.quantizer.same_grid(quantizer)


def _sources(node: ir.Node) -> Iterator[ir.Value]:
    """What the elements of a node's results come from."""
    yield from (v for index, v in enumerate(node.inputs) if v is not None and moves(node, index))


def _solved(
    start: ir.Value,
    known: dict[ir.Value, Answer],
    nexts: Callable[[ir.Value], list[ir.Value]],
    solve: Callable[[ir.Value], Answer],
) -> Answer:
    """The answer for a tensor, behind those for the tensors that it follows from; without recursion.

    Args:
        start: the tensor.
        known: the answers that are known; more are added.
        nexts: the tensors from whose answers that of a tensor follows; no circle occurs, as the graph is sorted.
        solve: gives the answer once these are known.
    """
    stack = [start]
    while stack:
        current = stack[-1]
        pending = [] if current in known else [v for v in nexts(current) if v not in known]
        stack += pending
        if not pending:
            if current not in known:
                known[current] = solve(current)
            stack.pop()
    return known[start]
