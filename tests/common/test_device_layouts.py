"""Every element returns from a device's layout to its place in the model's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_onnx.common.arrays import Array
from amct_onnx.common.device_layouts import LayoutError, in_model_layout

SIZE = st.integers(1, 5)
BLOCK = st.sampled_from([2, 3, 4, 16])


def channel_blocks(x: Array, block: int) -> Array:
    """Element by element, by the definition; the fill is -1, which no element is."""
    n, c, *space = x.shape
    height, width = space[-2:]
    blocked = np.full((n, *space[:-2], -(-c // block), height, width, block), -1, x.dtype)
    for place in np.ndindex(x.shape):
        batch, channel, *position = place
        blocked[(batch, *position[:-2], channel // block, *position[-2:], channel % block)] = x[place]
    return blocked


def matrix_blocks(x: Array, rows: int, columns: int) -> Array:
    *outer, high, wide = x.shape
    blocked = np.full((*outer, -(-wide // columns), -(-high // rows), rows, columns), -1, x.dtype)
    for place in np.ndindex(x.shape):
        *front, row, column = place
        blocked[(*front, column // columns, row // rows, row % rows, column % columns)] = x[place]
    return blocked


def numbered(shape: tuple[int, ...]) -> Array:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(st.tuples(SIZE, st.integers(1, 20), SIZE, SIZE), BLOCK, st.sampled_from(["NC1HWC0", ""]))
def test_blocked_channels(shape: tuple[int, ...], block: int, layout: str) -> None:
    x = numbered(shape)
    assert np.array_equal(in_model_layout(channel_blocks(x, block), layout, shape), x)


@settings(max_examples=30, deadline=None)
@given(st.tuples(SIZE, st.integers(1, 9), SIZE, SIZE, SIZE), BLOCK)
def test_blocked_channels_of_volumes(shape: tuple[int, ...], block: int) -> None:
    x = numbered(shape)
    assert np.array_equal(in_model_layout(channel_blocks(x, block), "NDC1HWC0", shape), x)


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZE, max_size=2), st.integers(1, 20), st.integers(1, 20), BLOCK, BLOCK)
def test_blocked_matrices(outer: list[int], high: int, wide: int, rows: int, columns: int) -> None:
    x = numbered((*outer, high, wide))
    assert np.array_equal(in_model_layout(matrix_blocks(x, rows, columns), "FRACTAL_NZ", x.shape), x)


@settings(max_examples=30, deadline=None)
@given(st.tuples(SIZE, SIZE, SIZE, SIZE))
def test_channels_last(shape: tuple[int, ...]) -> None:
    x = numbered(shape)
    assert np.array_equal(in_model_layout(x.transpose(0, 2, 3, 1), "NHWC", shape), x)


@pytest.mark.parametrize("have", [(2, 3, 4, 5), (120,), (2, 3, 4, 5, 1), (1, 2, 3, 4, 5)])
def test_plain(have: tuple[int, ...]) -> None:
    x = numbered((2, 3, 4, 5))
    assert np.array_equal(in_model_layout(x.reshape(have), "ND", x.shape), x)


def test_shapes_that_fit_both_are_blocks_as_the_rank_says() -> None:
    """A plain tensor keeps its rank."""
    x = numbered((1, 16, 16, 16))
    assert np.array_equal(in_model_layout(channel_blocks(x, 16), "", x.shape), x)
    assert np.array_equal(in_model_layout(numbered((2, 3)), "", (2, 3, 1, 1)).ravel(), np.arange(6))


@pytest.mark.parametrize(
    ("have", "layout", "wanted"),
    [
        ((1, 1, 4, 4, 16), "NC1HWC0", (1, 17, 4, 4)),  # two blocks would be needed
        ((1, 2, 4, 4, 16), "NC1HWC0", (1, 16, 4, 4)),  # one block would do
        ((1, 1, 4, 5, 16), "NC1HWC0", (1, 16, 5, 4)),
        ((256,), "NC1HWC0", (1, 16, 4, 4)),  # without its shape
        ((1, 16, 4, 4), "FRACTAL_Z", (1, 16, 4, 4)),
        ((2, 3), "ND", (3, 3)),
        ((3, 2), "", (2, 3)),
        ((1, 1, 16, 16), "FRACTAL_NZ", (17, 3)),
        ((4, 4, 16, 1), "NHWC", (1, 16, 4, 4)),
    ],
)
def test_what_the_shapes_do_not_tell_is_refused(have: tuple[int, ...], layout: str, wanted: tuple[int, ...]) -> None:
    with pytest.raises(LayoutError, match="does not tell"):
        in_model_layout(np.zeros(have), layout, wanted)
