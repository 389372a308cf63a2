"""Tensors in a device's layout, moved back into the model's, where the shapes say how.

A device splits channels into blocks of C0 (NC1HWC0), or a matrix into blocks of M0 x N0 (FRACTAL_NZ), and fills the
last block up. Sources: CANN's documentation, "key concepts"; GE's formats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amct_onnx.common.arrays import Array

ORDERS = {"NHWC": (0, 3, 1, 2), "NDHWC": (0, 4, 1, 2, 3)}
"""Formats with the channels last: where the model's axes stand in them."""
PLAIN = frozenset(("", "NCHW", "ND", "NCDHW", "NC"))
BLOCKS = {"NC1HWC0": 5, "NC1HWC0_C04": 5, "NDC1HWC0": 6}
"""Formats with blocked channels, and their rank."""
MATRIX = "FRACTAL_NZ"


class LayoutError(ValueError):
    """Nothing says how the elements lie."""


def in_model_layout(array: Array, layout: str, shape: Sequence[int]) -> Array:
    """The elements in the model's order and shape.

    Args:
        array: in the device's shape; with one axis, in the order of that layout.
        layout: name of the device's format, "" when unknown: then the shapes must tell it.
        shape: in the model.

    Raises:
        LayoutError: The shapes do not belong together in that layout, or in any that is known.
    """
    wanted = tuple(shape)
    name = layout or _told_by(array.shape, wanted)
    if name in PLAIN:
        if array.size == np.prod(wanted, dtype=object):
            return array.reshape(wanted)
    elif name in ORDERS:
        order = ORDERS[name]
        if array.ndim == len(order) and tuple(array.shape[i] for i in order) == wanted:
            return array.transpose(order)
    elif name in BLOCKS:
        found = _from_channel_blocks(array, wanted) if array.ndim == BLOCKS[name] else None
        if found is not None:
            return found
    elif name == MATRIX:
        found = _from_matrix_blocks(array, wanted)
        if found is not None:
            return found
    said = f"the format {layout}" if layout else "a format that the file does not name"
    raise LayoutError(f"shape {list(array.shape)} in {said} does not tell how the model's {list(wanted)} lies in it")


def _told_by(have: Sequence[int], wanted: tuple[int, ...]) -> str:
    """The layout that the rank of an array tells; "" for the model's own."""
    rank = len(wanted)
    if (len(have), rank) == (5, 4):
        return "NC1HWC0"
    if (len(have), rank) == (6, 5):
        return "NDC1HWC0"
    if rank >= 2 and len(have) == rank + 2:
        return MATRIX
    if len(have) == 1 or _squeezed(have) == _squeezed(wanted):
        return ""
    if len(have) == rank:
        for name, order in ORDERS.items():
            if len(order) == rank and tuple(have[i] for i in order) == wanted:
                return name
    return "unknown"


def _squeezed(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def _from_channel_blocks(array: Array, wanted: tuple[int, ...]) -> Array | None:
    """[N, (D,) C1, H, W, C0] -> [N, C, (D,) H, W]; None when the sizes differ."""
    rank = array.ndim
    *outer, channel_blocks, height, width, block = array.shape
    if len(wanted) != rank - 1 or not block:
        return None
    channels = wanted[1]
    if (*outer, height, width) != (wanted[0], *wanted[2:]) or -(-channels // block) != channel_blocks:
        return None
    depth = tuple(range(1, len(outer)))
    moved = array.transpose(0, len(outer), rank - 1, *depth, rank - 3, rank - 2)
    return moved.reshape(wanted[0], channel_blocks * block, *wanted[2:])[:, :channels]


def _from_matrix_blocks(array: Array, wanted: tuple[int, ...]) -> Array | None:
    """[..., N1, M1, M0, N0] -> [..., M, N]; None when the sizes differ."""
    rank = array.ndim
    if rank < 4 or len(wanted) < 2:
        return None
    *outer, columns, rows, row, column = array.shape
    high, wide = wanted[-2:]
    if not row or not column or _squeezed(outer) != _squeezed(wanted[:-2]):
        return None
    if -(-high // row) != rows or -(-wide // column) != columns:
        return None
    moved = array.transpose(*range(rank - 4), rank - 3, rank - 2, rank - 4, rank - 1)
    return moved.reshape(*wanted[:-2], rows * row, columns * column)[..., :high, :wide]
