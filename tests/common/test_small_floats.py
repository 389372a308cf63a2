"""Rounding to float8 and float4 against ml_dtypes: every number of a type, every tie, its neighbours, the limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from amct_onnx.common.small_floats import SMALL_FLOATS, SmallFloat


def telling_numbers(small: SmallFloat) -> np.ndarray:
    """All float16, all numbers of the type, the middles between them, and what lies directly beside those."""
    kind = ir.DataType[small.name].numpy()
    own = np.arange(2 ** ir.DataType[small.name].bitwidth, dtype=np.uint8).view(kind).astype(np.float32)
    own = np.unique(own[np.isfinite(own)])
    middles = np.append((own[1:] + own[:-1]) / 2, [small.limit, -small.limit]).astype(np.float32)
    beside = [np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf)]
    half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    numbers = np.concatenate([half, own, middles, *beside])
    return numbers if small.name.startswith("FLOAT8") else numbers[~np.isnan(numbers)]


@pytest.mark.parametrize("name", SMALL_FLOATS)
def test_every_number_is_rounded_to_the_nearest(name: str) -> None:
    small, kind = SMALL_FLOATS[name], ir.DataType[name].numpy()
    numbers = telling_numbers(small)
    with np.errstate(invalid="ignore"):
        wanted = np.clip(numbers, -small.largest, small.largest).astype(kind).astype(np.float32)
    np.testing.assert_array_equal(small.rounded(numbers), wanted)


@pytest.mark.parametrize("name", [n for n in SMALL_FLOATS if n.startswith("FLOAT8")])
def test_beyond_the_limit_without_saturation(name: str) -> None:
    small = dataclasses.replace(SMALL_FLOATS[name], saturates=False)
    numbers = telling_numbers(small)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = numbers.astype(ir.DataType[name].numpy()).astype(np.float32)
    np.testing.assert_array_equal(small.rounded(numbers), wanted)
