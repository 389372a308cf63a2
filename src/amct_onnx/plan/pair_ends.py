"""What stands in front of and behind a pair of quantizers, in the words of the user's file: why a pair stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from amct_onnx.graph.edit import stands_for
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.needs import MEASURES
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.factors import FloatReader, Pair, Site
from amct_onnx.plan.grids import CONDITIONAL

FACTORS = frozenset({"Mul", "Div"})
"""Operators beside those that move elements between two pairs of which one suffices."""


class PairEnds:
    """Looks at the pairs of one model.

    Args:
        nodes: of the normalised model.
        sites: its int8 layers.
    """

    def __init__(self, nodes: Iterable[ir.Node], sites: Iterable[Site]) -> None:
        self._values: dict[str, ir.Value] = {}
        for node in nodes:
            self._values.update((v.name or "", v) for v in (*node.inputs, *node.outputs) if v is not None)
        self._layers = {reader for s in sites for reader in s.quantized}
        self._results = {s.output for s in sites}
        self._elided: set[str] = set()

    def merged(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Pairs with makers and readers; of those that make the same floats in one graph, the first has all readers."""
        pairs = list(pairs)
        self._elided = {p.output for p in pairs if p.elided}
        found: list[Pair] = []
        places: dict[tuple[object, ...], int] = {}
        for pair in map(self.told, pairs):
            value = self._values.get(pair.output)
            quantizer = None if pair.quantizer is None else pair.quantizer.shifted
            key = (id(value.graph if value is not None else None), pair.source, quantizer, pair.read_scale)
            stays = pair.source and not (pair.elided or pair.dropped)
            first = places.setdefault(key, len(found)) if stays else len(found)
            if first < len(found):
                readers = sorted({*found[first].readers, *pair.readers}, key=lambda r: (r.kind == "output", r))
                found[first] = replace(found[first], readers=tuple(readers))
            found.append(replace(pair, merged=first < len(found)))
        return found

    def told(self, pair: Pair) -> Pair:
        """The pair with its maker and its readers."""
        made = self._values.get(pair.output)
        source = self._values.get(pair.source) if pair.source else _integers(made)
        read = made if made is not None else source  # a pair at a place where the source has none: all that read there
        # behind a pair at a new place no value of the source has the name of what is quantized
        maker = DEQUANTIZE if source is None and pair.source else self._maker(source)
        readers = () if read is None else self._readers(read)
        return replace(pair, maker=maker, before=self._before(source), readers=readers)

    def _maker(self, value: ir.Value | None) -> str:
        producer = None if value is None else value.producer()
        if value is None or producer is None:
            return "a graph input"
        if is_op(producer, DEQUANTIZE):
            return DEQUANTIZE  # of a fake-quant node of another tool as well
        maker = stands_for(producer)[1]
        if value.name not in self._results:
            return maker
        layer = producer.op_type in LAYER_KINDS and not producer.domain
        return f"an int8 {maker}" if layer else f"{maker} of an int8 layer"

    def _before(self, value: ir.Value | None) -> tuple[str, ...]:
        """Makers of the tensors in front of which a pair was left out because this one rounds."""
        found, seen = dict[str, None](), set[ir.Value | None]()
        waiting = [value]
        while waiting:
            current = waiting.pop()
            node = current.producer() if current is not None and current not in seen else None
            seen.add(current)
            if node is None or is_op(node, DEQUANTIZE):
                continue
            dequantized = [v for v in node.inputs if v is not None and v.name in self._elided]
            if moved := (0,) if node.op_type in CONDITIONAL else data_inputs(node):
                waiting += [node.inputs[i] for i in moved if node.inputs[i] not in dequantized]
            elif len(dequantized) != 1 or node.op_type not in FACTORS:
                continue
            floats = [_floats(v) for v in dequantized]
            found.update((self._maker(v), None) for v in floats)
            waiting += floats
        return tuple(found)

    def _readers(self, value: ir.Value) -> tuple[FloatReader, ...]:
        """Int8 layers do not count: they read the integers; nor does what reads a shape alone."""
        found = {
            FloatReader(stands_for(use.node)[1], self._kind(use.node, use.idx))
            for use in value.uses()
            if (use.node.name or "", use.idx) not in self._layers and use.node.op_type not in MEASURES
        }
        return (*sorted(found), *((FloatReader("", "output"),) if value.is_graph_output() else ()))

    def _kind(self, node: ir.Node, index: int) -> str:
        if node.op_type in LAYER_KINDS and not node.domain:
            return "layer"
        if is_op(node, QUANTIZE):
            return "quantizer"
        return "mover" if self._hands_on(node, index) else "operator"

    def _hands_on(self, node: ir.Node, index: int) -> bool:
        """Whether a node moves elements of the input to quantizers alone."""
        waiting, met = [(node, index)], False
        while waiting:
            mover, position = waiting.pop()
            if data_inputs(mover) != (position,) or any(v.is_graph_output() for v in mover.outputs):
                return False
            uses = [use for v in mover.outputs for use in v.uses()]
            met |= any(is_op(use.node, QUANTIZE) for use in uses)
            waiting += [(use.node, use.idx) for use in uses if not is_op(use.node, QUANTIZE)]
        return met


def _floats(value: ir.Value) -> ir.Value | None:
    """What the QuantizeLinear reads whose DequantizeLinear makes a tensor."""
    node = value.producer()
    while node is not None and node.inputs and not is_op(node, QUANTIZE):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return None if node is None else node.inputs[0]


def _integers(value: ir.Value | None) -> ir.Value | None:
    """What the DequantizeLinear reads that makes a tensor."""
    node = None if value is None else value.producer()
    return None if node is None else node.inputs[0]
