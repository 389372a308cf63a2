"""Sizes that onnx's inference leaves open although they follow from the graph.

Where one axis is free, exporters compute the sizes of the others as well, and some of what they compute them by ends
the inference: elements could not be counted, nor quantizers be placed by them. A size that is the same for two lengths
of each free axis is fixed; one that is the length of a free axis both times is that axis.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from amct_onnx.graph.sized_shapes import Axis, free_axes, sized_shapes

UNIT = 960
"""Each length is a multiple of it, so that strides and windows divide it."""
FACTORS = ((11, 13, 17, 19, 23), (29, 31, 37, 41, 43))
"""Of the lengths of the free axes, in two trials; axes beyond the fifth have the lengths of others."""


def complete_open_sizes(model: ir.Model) -> None:
    """Complete, in place, the shapes of results whose axes have no size and no name of an input's axis."""
    axes = free_axes(model)
    waiting = _open_results(model, {a for a in axes if isinstance(a, str)})
    if not waiting:
        return
    trials = [{axis: UNIT * factors[i % len(factors)] for i, axis in enumerate(axes)} for factors in FACTORS]
    found = [sized_shapes(model, trial) for trial in trials]
    for value in waiting:
        sizes = [shapes.get(value.name or "") for shapes in found]
        if sizes[0] is not None and sizes[1] is not None and len(sizes[0]) == len(sizes[1]):
            _complete(value, list(zip(sizes[0], sizes[1], strict=True)), trials)


def _open_results(model: ir.Model, names: Collection[str]) -> list[ir.Value]:
    """Float tensors inside the graph with an axis that has neither a size nor the name of an input's axis."""
    # most tensors have one of a few shapes
    is_open: dict[int, bool] = {}
    found = []
    for value in (v for node in model.graph for v in node.outputs):
        shape = value.shape
        if shape is not None and id(shape) not in is_open:
            is_open[id(shape)] = not all(isinstance(d, int) or d.value in names for d in shape)
        if shape is None or is_open[id(shape)]:
            dtype = value.dtype
            if value.name and dtype is not None and dtype.is_floating_point() and not value.is_graph_output():
                found.append(value)
    return found


def _complete(value: ir.Value, sizes: list[tuple[int, int]], trials: Sequence[Mapping[Axis, int]]) -> None:
    known = value.shape or ir.Shape([None] * len(sizes))
    if len(known) != len(sizes):
        return
    axes = []
    for told, (one, other) in zip(known, sizes, strict=True):
        same = [a for a in trials[0] if isinstance(a, str) and (trials[0][a], trials[1][a]) == (one, other)]
        axes.append(told if isinstance(told, int) else one if one == other else same[0] if len(same) == 1 else told)
    value.shape = ir.Shape(axes)
