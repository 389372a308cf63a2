"""Sizes that onnx's inference leaves open although they follow from the graph, for counting elements.

Where one axis is free, exporters compute the sizes of the others as well, and some of what they compute them by ends
the inference. A size that is the same for two lengths of each free axis counts as fixed; one that is the length of a
free axis both times counts as that axis. This does not prove it (the smaller of an axis and 100 is 100 both times).
So no number depends on it, and it is not written to a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import onnx_ir as ir

from amct_onnx.graph.sized_shapes import Axis, free_axes, sized_shapes

UNIT = 960
"""Each length is a multiple of it, so that strides and windows divide it."""
FACTORS = ((11, 13, 17, 19, 23), (29, 31, 37, 41, 43))
"""Factors of the lengths of the free axes, in two trials; axes beyond the fifth have the lengths of others."""


class OpenSizes:
    """Looks shapes up; what is open is tried once, when it is first asked for.

    Args:
        model: the normalised source; it is not changed.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._axes = free_axes(model)
        self._names = {a for a in self._axes if isinstance(a, str)}

    def shape(self, value: ir.Value) -> ir.Shape | None:
        """The shape of a tensor, completed where an axis has neither a size nor the name of an input's axis."""
        known = value.shape
        if known is not None and all(isinstance(d, int) or d.value in self._names for d in known):
            return known
        trials, found = self._tried
        sizes = [shapes.get(value.name or "") for shapes in found]
        if sizes[0] is None or sizes[1] is None or len(sizes[0]) != len(sizes[1]):
            return known
        told = known or ir.Shape([None] * len(sizes[0]))
        if len(told) != len(sizes[0]):
            return known
        return ir.Shape([_axis(d, pair, trials) for d, pair in zip(told, zip(*sizes, strict=True), strict=True)])

    @cached_property
    def _tried(self) -> tuple[list[dict[Axis, int]], list[dict[str, tuple[int, ...]]]]:
        trials = [{axis: UNIT * factors[i % len(factors)] for i, axis in enumerate(self._axes)} for factors in FACTORS]
        return trials, [sized_shapes(self._model, trial) for trial in trials]


def _axis(
    told: int | ir.SymbolicDim, sizes: tuple[int, ...], trials: Sequence[Mapping[Axis, int]]
) -> int | str | ir.SymbolicDim:
    if isinstance(told, int) or len(set(sizes)) == 1:
        return told if isinstance(told, int) else sizes[0]
    same = [a for a in trials[0] if isinstance(a, str) and tuple(trial[a] for trial in trials) == sizes]
    return same[0] if len(same) == 1 else told
