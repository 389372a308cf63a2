"""What stands in front of and behind a pair of quantizers, in the words of the user's file: why a pair stays."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import onnx_ir as ir

from amct_onnx.graph.edit import stands_for
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.needs import MEASURES
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.alike_pairs import AlikePairs, moves, results_of
from amct_onnx.plan.factors import FloatReader, Pair, Quantizer, Site


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
        self._layers = {reader: quantizer for s in sites for reader, quantizer in s.quantized.items()}
        self._results = {s.output for s in sites}
        self._alike = self._alike_pairs((), ())

    def merged(self, pairs: Iterable[Pair], moved: Collection[Pair]) -> list[Pair]:
        """Pairs with makers and readers; of those that make the same floats in one graph, the first has all readers.

        Args:
            pairs: all but ``moved``.
            moved: those at places where the source has none.
        """
        pairs = list(pairs)
        self._alike = self._alike_pairs(pairs, moved)
        found: list[Pair] = []
        places: dict[tuple[object, ...], int] = {}
        for pair in map(self.told, pairs):
            value = self._values.get(pair.output)
            quantizer = None if pair.quantizer is None else pair.quantizer.shifted
            key = (id(value.graph if value is not None else None), pair.source, quantizer, pair.read_scale)
            stays = pair.source and not (pair.elided or pair.dropped)
            first = places.setdefault(key, len(found)) if stays else len(found)
            if first < len(found):
                found[first] = _together(found[first], pair)
            found.append(replace(pair, merged=first < len(found)))
        return found

    def told(self, pair: Pair) -> Pair:
        """The pair with its maker and its readers."""
        made = self._values.get(pair.output)
        source = self._values.get(pair.source) if pair.source else _integers(made)
        read = made if made is not None else source  # a pair at a place where the source has none: all that read there
        # behind a pair at a new place no value of the source has the name of what is quantized
        maker = DEQUANTIZE if source is None and pair.source else self._maker(source)
        if read is None or pair.elided or pair.dropped:
            return replace(pair, maker=maker, readers=() if read is None else self._readers(read, None))
        found = replace(
            pair, maker=maker, readers=self._readers(read, pair.quantizer), for_a_layer=self._alike.feeds_layer(read)
        )
        if pair.quantizer is None or not pair.source:
            return found
        before = () if source is None else self._alike.before(source, pair.quantizer)
        return replace(found, before=before, behind=self._alike.behind(read, pair.quantizer))

    def _alike_pairs(self, pairs: Iterable[Pair], moved: Iterable[Pair]) -> AlikePairs:
        def readers(value: ir.Value) -> tuple[str, ...]:
            return tuple(dict.fromkeys(reader.op_type for reader in self._readers(value, None)))

        return AlikePairs(pairs, moved, self._layers, self._maker, readers)

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

    def _readers(self, value: ir.Value, quantizer: Quantizer | None) -> tuple[FloatReader, ...]:
        """Int8 layers do not count: they read the integers; nor does what reads a shape alone.

        Of what moves elements to such a layer, that which reads them there beside it; of a quantizer that is left out
        because one with these factors has rounded alike, what reads its floats.
        """
        found, seen, waiting, output = set[FloatReader](), set[ir.Value](), [value], False
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            output |= current.is_graph_output()
            for use in current.uses():
                if (use.node.name or "", use.idx) in self._layers or use.node.op_type in MEASURES:
                    continue
                if is_op(use.node, QUANTIZE) and self._alike.leaves_out(use.node, quantizer):
                    waiting += results_of(use.node)
                elif moves(use.node, use.idx) and any(map(self._alike.feeds_layer, use.node.outputs)):
                    waiting += use.node.outputs
                else:
                    found.add(FloatReader(stands_for(use.node)[1], self._kind(use.node, use.idx, quantizer)))
        return (*sorted(found), *((FloatReader("", "output"),) if output else ()))

    def _kind(self, node: ir.Node, index: int, quantizer: Quantizer | None) -> str:
        if node.op_type in LAYER_KINDS and not node.domain:
            return "layer"
        if is_op(node, QUANTIZE):
            return "quantizer"
        return "mover" if self._hands_on(node, index, quantizer) else "operator"

    def _hands_on(self, node: ir.Node, index: int, quantizer: Quantizer | None) -> bool:
        """Whether a node moves elements of the input to quantizers alone, of which one has other factors."""
        waiting, met = [(node, index)], False
        while waiting:
            mover, position = waiting.pop()
            if data_inputs(mover) != (position,) or any(v.is_graph_output() for v in mover.outputs):
                return False
            uses = [use for v in mover.outputs for use in v.uses()]
            met |= any(is_op(use.node, QUANTIZE) and not self._alike.leaves_out(use.node, quantizer) for use in uses)
            waiting += [(use.node, use.idx) for use in uses if not is_op(use.node, QUANTIZE)]
        return met


def _together(first: Pair, other: Pair) -> Pair:
    """A pair with the readers of another one that makes the same floats."""
    readers = sorted({*first.readers, *other.readers}, key=lambda r: (r.kind == "output", r))
    return replace(
        first,
        readers=tuple(readers),
        behind=tuple(dict.fromkeys((*first.behind, *other.behind))),
        for_a_layer=first.for_a_layer or other.for_a_layer,
    )


def _integers(value: ir.Value | None) -> ir.Value | None:
    """What the DequantizeLinear reads that makes a tensor."""
    node = None if value is None else value.producer()
    return None if node is None else node.inputs[0]
