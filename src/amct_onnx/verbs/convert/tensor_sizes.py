"""Elements of the tensors of a deploy model in one run, where a free axis counts as 1."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from amct_onnx.graph.copied_model import copy_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.inferred_shapes import inferred_shapes
from amct_onnx.graph.shapes import infer_shapes
from amct_onnx.graph.sized_shapes import free_axes, sized_shapes

MAX_ELEMENTS = 1 << 31
"""Of one tensor; a file may declare any size, and a JSON number has 64 bits."""
KEEP_COUNT = tuple("AscendQuant AscendDequant AscendAntiQuant Squeeze Unsqueeze Transpose Clip Cast Identity".split())
WITH_CONSTANT = ("Add", "Mul")
"""Operators behind an AscendDequant, whose constant has an element for each channel, or one."""
UNNAMED = "an unnamed axis"
MADE_UP = "unk__"
"""How onnx's inference begins the names that it makes up."""


class TensorSizes:
    """Looks sizes up; what neither the graph nor an inference before tells is inferred once, on a copy of the source.

    Args:
        source: the normalised source.
        sums: names of nodes whose result has as many elements as their first input.

    Attributes:
        free_axes: names of the free axes that were counted as 1, in the order in which they were met.
    """

    def __init__(self, source: ir.Model, sums: Collection[str]) -> None:
        self._source, self._sums = source, sums
        self._kept = inferred_shapes(source)
        self._inferred: dict[str, ir.Shape] | None = None
        self._results: dict[str, ir.Shape] = {}
        self._axes = free_axes(source)
        self._sized: dict[str, tuple[int, ...]] | None = None
        self._sized_results: dict[str, tuple[int, ...]] = {}
        self.free_axes: dict[str, None] = {}

    def elements(self, value: ir.Value | None) -> int | None:
        """None when no size is known, or one is declared that no tensor has."""
        sizes = self.sizes(value)
        count = None if sizes is None else math.prod(sizes)
        return count if count is not None and count <= MAX_ELEMENTS else None

    def sizes(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Axes of a tensor, or of one with as many elements; None when they are unknown."""
        shape = self._shape(value)
        if value is not None and (shape is None or any(self._is_computed(d) for d in shape)):
            sized = self._with_axes_of_1(value)
            if sized is not None:
                for axis in self._axes:
                    self._note(axis if isinstance(axis, str) else None)
                return sized
        return None if shape is None else tuple(self._size(d) for d in shape)

    def _is_computed(self, axis: int | ir.SymbolicDim) -> bool:
        """Whether an axis is neither of a known size nor one of the inputs'."""
        return not isinstance(axis, int) and axis.value not in self._axes

    def _with_axes_of_1(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """What follows from the graph when each free axis of the inputs has length 1."""
        if self._sized is None:
            self._sized = sized_shapes(self._source, dict.fromkeys(self._axes, 1))
            made = ((n.name or "", self._sized.get(n.outputs[0].name or "")) for n in self._source.graph if n.outputs)
            self._sized_results = {name: sizes for name, sizes in made if sizes is not None}
        while value is not None:
            node = value.producer()
            sized = self._sized.get(value.name or "")
            if sized is None and node is not None and value is node.outputs[0]:
                sized = self._sized_results.get(node.name or "")
            if sized is not None:
                return sized
            value = self._with_same_count(node)
        return None

    def _with_same_count(self, node: ir.Node | None) -> ir.Value | None:
        """The input of a node that gives as many elements as it reads there."""
        keeps = node is not None and (_keeps_count(node) or node.name in self._sums)
        return node.inputs[0] if node is not None and keeps else None

    def _size(self, axis: int | ir.SymbolicDim) -> int:
        if isinstance(axis, int):
            if axis >= 0:
                return axis
            name = None  # old exporters write -1 for a free size
        else:
            name = axis.value
        self._note(name)
        return 1

    def _note(self, name: str | None) -> None:
        self.free_axes[UNNAMED if not name or name.startswith(MADE_UP) else name] = None

    def _shape(self, value: ir.Value | None) -> ir.Shape | None:
        while value is not None and value.shape is None:
            name = value.name or ""
            inferred = self._kept.get(name)
            if inferred is None:
                inferred = self._of_source().get(name)
            node = value.producer()
            if inferred is None and node is not None and value is node.outputs[0]:
                # the result of an int8 layer has another name where the source's is an output
                inferred = self._results.get(node.name or "")
            if inferred is not None:
                return inferred
            value = self._with_same_count(node)
        return None if value is None else value.shape

    def _of_source(self) -> dict[str, ir.Shape]:
        if self._inferred is None:
            copy = copy_model(self._source)
            infer_shapes(copy, strict=False, outputs=True)
            nodes = nodes_of(copy)
            values = (v for n in nodes for v in n.outputs)
            self._inferred = {v.name: v.shape for v in values if v.name and v.shape is not None}
            self._results = {n.name: n.outputs[0].shape for n in nodes if n.name and n.outputs[0].shape is not None}
        return self._inferred


def _keeps_count(node: ir.Node) -> bool:
    if node.op_type in WITH_CONSTANT:
        other = node.inputs[1]
        return other is not None and other.is_initializer()
    return node.op_type in KEEP_COUNT
