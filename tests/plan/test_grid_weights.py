"""Recovery of grids from float weights: nothing is found where there is none, and every true grid with its floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from amct_onnx.plan.grid_weights import recover_grid
from support.golden_models import MODELS

SHAPES = [(64, 3, 3, 3), (128, 1, 3, 3), (256, 64, 1, 1), (64, 1, 2, 2), (64, 32, 5), (512, 256), (1000, 64)]
"""Realistic weights, channels first; depthwise channels have the fewest elements (4 and 9)."""
ORDINARY = ["normal", "uniform", "xavier", "half", "sparse"]


def ordinary(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Float weights as training leaves them, without any quantizer."""
    if kind == "normal":
        return random.normal(0, 0.05, shape).astype(np.float32)
    if kind == "uniform":
        return random.uniform(-0.3, 0.3, shape).astype(np.float32)
    if kind == "xavier":
        limit = np.sqrt(6 / np.prod(shape[1:]))
        return random.uniform(-limit, limit, shape).astype(np.float32)
    if kind == "half":
        return random.normal(0, 0.05, shape).astype(np.float16)
    values = random.normal(0, 0.05, shape)
    # pruned, but four weights of each channel stay: what is left of fewer says nothing about a grid
    flat = values.reshape(shape[0], -1)
    mask = random.random(flat.shape) < 0.5
    mask[:, :4] = True
    return (flat * mask).reshape(shape).astype(np.float32)


def channels_on_a_grid(weight: np.ndarray, largest: int = 128) -> int:
    """Each channel by itself: a weight is only taken when all of its channels are on a grid."""
    rows = weight.reshape(weight.shape[0], -1)
    return sum(recover_grid(row.reshape(1, -1), 0, largest) is not None for row in rows)


@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_channel_of_random_weights_is_on_a_grid(kind: str, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng([len(kind), *shape])
    weight = ordinary(kind, shape, random)
    assert channels_on_a_grid(weight) == 0
    assert recover_grid(weight, 0) is None
    assert recover_grid(weight, 0, 255) is None


def float_weights() -> list[np.ndarray]:
    """Trained weights as stored before any quantizer: the inputs of weight quantizers, and those of float layers."""
    found = []
    for path in sorted(MODELS.glob("*/model.onnx")):
        if path.parent.name.startswith(("tfmot", "tf1contrib")):
            continue  # these are on grids
        model = onnx.load(str(path))
        for tensor in model.graph.initializer:
            if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) and len(tensor.dims) >= 2:
                array = numpy_helper.to_array(tensor)
                if array[0].size >= 4:
                    found.append(array)
    return found


def test_no_channel_of_trained_weights_is_on_a_grid() -> None:
    weights = float_weights()
    assert sum(w.shape[0] for w in weights) > 2000
    for weight in weights:
        assert channels_on_a_grid(weight) == 0, weight.shape


def restored(weight: np.ndarray, integers: np.ndarray, *, bit_for_bit: bool) -> None:
    """The grid is found, its integers are the true ones or a whole multiple of them, and the floats come back.

    Bit for bit where the float is one product q * s. BatchNormalization and a grid refined by a factor add one rounding
    each to the float and to the scale: 3 units in the last place.
    """
    found = recover_grid(weight, 0)
    assert found is not None
    scale, axis = found
    assert scale.dtype == np.float32
    assert scale.size == (1 if axis is None else weight.shape[0])
    q = np.rint(weight / scale[:, None])
    assert q.min() >= -128 and q.max() <= 127
    back = q.astype(np.float32) * scale[:, None]
    if bit_for_bit:
        assert np.array_equal(back, weight)
    assert np.all(np.abs(back.astype(np.float64) - weight) <= 3 * np.spacing(np.abs(weight)))
    # q / true integers is the same whole number in each channel
    for row, true in zip(q.reshape(len(q), -1), integers.reshape(len(q), -1), strict=True):
        if true.any():
            ratio = np.unique(row[true != 0] / true[true != 0])
            gcd = np.gcd.reduce(np.abs(true))
            assert ratio.size == 1 and float(ratio[0] * gcd).is_integer()
        assert np.array_equal(row != 0, true != 0)


@st.composite
def grids(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers [channels, n], scales [1] or [channels], factors of BatchNormalization [channels]."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, elements = draw(st.integers(1, 24)), draw(st.integers(4, 80))
    low = draw(st.sampled_from([-127, -128, -7, -63]))
    integers = random.integers(low, min(-low, 127) + 1, (channels, elements))
    integers[:, 0] = low  # as max|w| / 127 and the like give it
    exponent = draw(st.integers(-12, 1))
    size = channels if draw(st.booleans()) else 1
    scale = random.uniform(0.5, 2, size).astype(np.float32) * np.float32(2.0**exponent)
    norm = random.uniform(0.2, 3, channels).astype(np.float32) if draw(st.booleans()) else np.ones(channels, np.float32)
    return integers, scale, norm


@settings(max_examples=200, derandomize=True, deadline=None)
@given(grids())
def test_every_true_grid_is_found(grid: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    integers, scale, norm = grid
    weight = (integers.astype(np.float32) * scale[:, None]) * norm[:, None]
    assert weight.dtype == np.float32
    # 127 is prime: a channel that holds it is on no coarser grid, which would then be refined
    restored(weight, integers, bit_for_bit=bool(np.all(norm == 1) and np.abs(integers).max() == 127))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(grids(), st.integers(0, 2**32 - 1))
def test_one_element_off_the_grid_is_noticed(grid: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int) -> None:
    integers, scale, norm = grid
    weight = (integers.astype(np.float32) * scale[:, None]) * norm[:, None]
    random = np.random.default_rng(seed)
    row, column = random.integers(len(weight)), random.integers(1, weight.shape[1])
    step = float(np.abs(weight[row]).max()) / 128
    # a third of a step does not lie on a grid of at most 128 steps of a channel with neighbours one step apart
    integers[row, 1:3] = 1, 2
    weight[row] = integers[row].astype(np.float32) * np.float32(step)
    column = max(column, 3)
    weight[row, column] += np.float32(step * 0.31)
    assert recover_grid(weight, 0) is None


def test_float16_grid() -> None:
    """w = fp16(q * s) is off its grid by up to 2^-11: it is taken as ordinary floats, not as a grid it is not on."""
    random = np.random.default_rng(3)
    weight = (random.integers(-127, 128, (16, 36)) * 0.0123).astype(np.float16)
    assert recover_grid(weight, 0) is None
