"""How many elements pass at each place of a graph that moves elements; where sizes are free, as ratios.

A free axis counts as FREE_LENGTH elements. Where an operator changes it, what is known of the operator decides: a
MaxPool never gives more elements than it reads, and most often 1/stride of them.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.plan.open_sizes import OpenSizes
from amct_onnx.plan.pair_graph import PairGraph

FREE_LENGTH = 5040
"""Divided by every stride up to 10 without a remainder."""
UNKNOWN = 1 << 40
"""Elements of a tensor of unknown rank."""
REARRANGES = frozenset(
    """
    DequantizeLinear Identity Reshape Flatten Squeeze Unsqueeze Transpose DepthToSpace SpaceToDepth ReverseSequence
    Relu Clip Cast
    """.split()
)
"""What gives as many elements as it reads."""
SELECTS = frozenset("Slice Split Compress ReduceMax ReduceMin GlobalMaxPool MaxPool".split())
"""Movers that never give more: a MaxPool of padding, which may, is looked at."""


@dataclass(frozen=True)
class Count:
    """A number of elements.

    Attributes:
        most: no fewer than there are, in proportion to the tensors that this one comes from.
        usual: what a model most often has there.
    """

    most: int
    usual: int

    def plus(self, other: Count) -> Count:
        """Both together."""
        return Count(self.most + other.most, self.usual + other.usual)


def counts_of(graph: PairGraph, vertices: Iterable[ir.Value], shapes: OpenSizes) -> ElementCounts:
    """The elements at each vertex of a graph of pairs.

    Args:
        graph: the graph.
        vertices: in the order of the nodes.
        shapes: of the model.
    """
    counts = ElementCounts(graph.constants, shapes)
    sources: dict[ir.Value, list[ir.Value]] = {}
    for tail, heads in graph.edges.items():
        for head in heads:
            sources.setdefault(head, []).append(tail)
    for vertex in vertices:
        node = vertex.producer()
        if vertex in sources:
            counts.move(vertex, sources[vertex])
        else:
            others = graph.pairs[node][:1] if node in graph.pairs else ()
            counts.start(vertex, *others, alone=vertex not in graph.edges)
    return counts


class ElementCounts:
    """Counts the elements of tensors, each behind those that it comes from.

    Args:
        constants: of the model.
        shapes: of the model.
    """

    def __init__(self, constants: ConstantEvaluator, shapes: OpenSizes) -> None:
        self._constants, self._shape = constants, shapes.shape
        self._known: dict[ir.Value, Count] = {}

    def __getitem__(self, value: ir.Value) -> Count | None:
        """None where nothing tells."""
        return self._known.get(value)

    def start(self, value: ir.Value, *others: ir.Value, alone: bool = False) -> None:
        """Count a tensor that comes from none that is known: by its own shape, or that of one of its size.

        Args:
            value: the tensor.
            others: tensors of its size.
            alone: whether no other count is compared with it, so that its shape is not worth a trial.
        """
        known = [v.shape for v in (value, *others)] if alone else map(self._shape, (value, *others))
        shape = next((s for s in known if s is not None), None)
        number = UNKNOWN if shape is None else math.prod(d if isinstance(d, int) else FREE_LENGTH for d in shape)
        self._known[value] = Count(number, number)

    def move(self, value: ir.Value, sources: list[ir.Value]) -> None:
        """Count what a node, or a pair of quantizers, makes of the elements of ``sources``."""
        counts = [self._known[v] for v in sources if v in self._known]
        count = self._moved(value, sources, counts) if len(counts) == len(sources) else None
        if count is not None:
            self._known[value] = count

    def _moved(self, value: ir.Value, sources: list[ir.Value], counts: list[Count]) -> Count | None:
        node = value.producer()
        assert node is not None
        if len(counts) == 1 and node.op_type in REARRANGES:
            return counts[0]
        shape, shapes = self._shape(value), [self._shape(v) for v in sources]
        number, numbers = _elements(shape), [_elements(s) for s in shapes]
        if number is not None and None not in numbers:
            return Count(number, number)
        if node.op_type == "Concat":
            constants = (v for v in node.inputs if v is not None and self._constants.is_constant(v))
            fixed = sum(_elements(self._shape(v)) or 0 for v in constants)
            return functools.reduce(Count.plus, counts, Count(fixed, fixed))
        if len(counts) > 1:
            return None
        count, ratio = counts[0], _ratio(shapes[0], shape)
        if ratio is not None:
            return Count(count.most * ratio[0] // ratio[1], count.usual * ratio[0] // ratio[1])
        if node.op_type in SELECTS and not _pads(node):
            usual = count.usual // self._usual_part(node)
            return Count(count.most, usual if number is None else min(number, usual))
        return None

    def _usual_part(self, node: ir.Node) -> int:
        """One of how many elements an operator most often gives on."""
        if node.op_type == "MaxPool":
            return math.prod(attribute(node, "strides", (1,)))
        if node.op_type == "Split":
            return len(node.outputs)
        if node.op_type == "Slice":
            steps = node.inputs[4] if len(node.inputs) > 4 else None
            known = steps is not None and self._constants.is_constant(steps)
            numbers = np.abs(np.asarray(self._constants.array(steps))) if steps is not None and known else np.ones(1)
            return max(2, int(numbers.prod()))  # it would not be there if it left out nothing
        return 2


def _elements(shape: ir.Shape | None) -> int | None:
    """None where an axis is free."""
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return math.prod(d for d in shape if isinstance(d, int))


def _ratio(source: ir.Shape | None, shape: ir.Shape | None) -> tuple[int, int] | None:
    """Elements of one tensor to those of another whose free axes are the same; None for other tensors."""
    if source is None or shape is None:
        return None
    free = [Counter(str(d) for d in s if not isinstance(d, int)) for s in (shape, source)]
    unnamed = any(not isinstance(d, int) and d.value is None for s in (shape, source) for d in s)
    if unnamed or free[0] != free[1]:
        return None
    above, below = (math.prod(d for d in s if isinstance(d, int)) for s in (shape, source))
    return (above, below) if below else None


def _pads(node: ir.Node) -> bool:
    """Whether a pooling may give more elements than it reads: padding as long as its window, in some axis."""
    if node.op_type != "MaxPool":
        return False
    kernel = attribute(node, "kernel_shape", (1,))
    pads = attribute(node, "pads", (0,) * (2 * len(kernel)))
    dilations = attribute(node, "dilations", (1,) * len(kernel))
    begin, end = pads[: len(kernel)], pads[len(kernel) :]
    reaches = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    return any(b + e > reach for b, e, reach in zip(begin, end, reaches, strict=True))
