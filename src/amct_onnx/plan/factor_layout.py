"""Scales and zero points laid against a weight, as a whole and for a block of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from amct_onnx.files.file_tensor import Index


def spread(factor: npt.NDArray[Any], shape: tuple[int, ...], axis: int | None) -> npt.NDArray[Any]:
    """A flat factor made broadcastable against a weight.

    A grouped ConvTranspose may hold one factor per output channel while its axis 1 counts those of one group only.
    """
    layout = [1] * len(shape)
    if axis is None:
        return factor.reshape(layout)
    if factor.size == shape[axis]:
        layout[axis] = -1
        return factor.reshape(layout)
    groups = factor.size // shape[axis]
    layout[0], layout[axis] = groups, shape[axis]
    return np.repeat(factor.reshape(layout), shape[0] // groups, axis=0)


def part_of(factor: npt.NDArray[Any], index: Index) -> npt.NDArray[Any]:
    """The part of a spread factor that belongs to a block of the weight."""
    return factor[tuple(i if n > 1 else slice(None) for i, n in zip(index, factor.shape, strict=False))]
