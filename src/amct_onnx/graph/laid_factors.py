"""Factors of a quantizer, laid so that they broadcast against its tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError


def laid(
    factor: Array, axis: int | None, blocks: tuple[Sequence[int], int] | None, tensor: ir.Value, what: str
) -> Array:
    """A flat factor, broadcastable against the tensor.

    Args:
        factor: one dimension; of blocks in row-major order.
        axis: of the channels or blocks; None for one factor.
        blocks: shape of the factors of blocks and the elements of one; None without blocks.
        tensor: whose declared shape tells where the factor belongs.
        what: of an error: which node does what.

    Raises:
        UnsupportedModelError: The tensor's declared shape does not tell, or has no place for it.
    """
    shape = tensor.shape
    if axis is None:
        return factor.reshape(())
    what = f"{what} per {'channel' if blocks is None else 'block'} along axis {axis}"
    if shape is None:
        raise UnsupportedModelError(
            f"{what}, and the rank of its tensor '{tensor.name}' is unknown. Declare the shapes of the graph's inputs "
            "and export again."
        )
    rank = len(shape)
    length = shape[axis] if -rank <= axis < rank else None
    if blocks is None and (length is None or (isinstance(length, int) and length != factor.size)):
        raise UnsupportedModelError(
            f"{what}: {factor.size} factors do not fit its tensor '{tensor.name}' of shape "
            f"{[d if isinstance(d, int) else str(d) for d in shape]}. Export the model again."
        )
    if blocks is None:
        return factor.reshape([-1 if a == axis % rank else 1 for a in range(rank)])
    wide, size = factor.reshape(tuple(blocks[0])), blocks[1]
    if wide.ndim != rank or not isinstance(length, int) or math.ceil(length / size) != wide.shape[axis]:
        raise UnsupportedModelError(
            f"{what}: scales of shape {list(blocks[0])} for blocks of {size} do not fit its tensor '{tensor.name}' of "
            f"shape {[d if isinstance(d, int) else str(d) for d in shape]}. Declare the shapes of the graph's inputs "
            "and export again."
        )
    return np.take(np.repeat(wide, size, axis=axis), range(length), axis=axis)
