"""Whether a second quantizer gives the integers of the first again: asked of all 256, in every chip's arithmetic.

Three arithmetics are asked. That of the source divides by the scale. Those of ``device.profiles`` multiply by its
reciprocal, in float32 or float16. A chip that computes in float16 may round what stands between the two quantizers to
float16 as well: both ways are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT8_MAX, INT8_MIN, reciprocal
from amct_onnx.common.arrays import Array, Float32, Int8
from amct_onnx.device.ascend_arithmetic import half
from amct_onnx.device.profiles import PROFILES
from amct_onnx.graph.scalar_factors import MUL

Step = tuple[str, float]
"""An operator with one constant number: Mul or Div, and the float32 by which it multiplies or divides."""


class Quantizer(Protocol):
    """A quantizer of a whole tensor to 8 bits, in the signed range; hashable."""

    @property
    def scale_d(self) -> np.float32:
        """The scale."""

    @property
    def offset_d(self) -> int:
        """The zero point."""

    @property
    def low(self) -> int:
        """Smallest integer that it yields."""

    @property
    def high(self) -> int:
        """Largest integer that it yields."""

    @property
    def float_type(self) -> ir.DataType:
        """Type of the floats, FLOAT or FLOAT16."""


@lru_cache(maxsize=4096)
def restores(first: Quantizer, steps: tuple[Step, ...], second: Quantizer) -> bool:
    """Whether quantizing with ``second`` gives the integers that ``first`` made, for each integer of ``first``.

    Args:
        first: per tensor, 8 bits; its integers are dequantized.
        steps: applied to the floats in between, in order.
        second: per tensor, 8 bits.
    """
    integers: Int8 = np.arange(first.low, first.high + 1).astype(np.int8)
    for floats, quantize in _arithmetics(first, integers, steps, second):
        if not np.array_equal(quantize(_clipped(floats, second)), integers):
            return False
    return True


@lru_cache(maxsize=4096)
def keeps(number: float, quantizer: Quantizer) -> bool:
    """Whether quantizing and dequantizing gives a number back, bit for bit."""
    stored: Array = np.full(1, number, np.float16 if quantizer.float_type == ir.DataType.FLOAT16 else np.float32)
    for profile in PROFILES.values():
        scale, offset = quantizer.scale_d, quantizer.offset_d
        integer = profile.quantize(_clipped(stored, quantizer), float(reciprocal(scale)), offset)
        back = profile.antiquantize(integer.astype(np.int8), float(scale), offset)
        if not np.array_equal(_stored(back, quantizer), stored.astype(np.float32)):
            return False
    return True


def _arithmetics(
    first: Quantizer, integers: Int8, steps: Sequence[Step], second: Quantizer
) -> Iterator[tuple[Float32, Callable[[Float32], Float32]]]:
    """Floats in front of the second quantizer, and that quantizer: the source's way and every chip's."""
    scale, offset = float(first.scale_d), first.offset_d

    def divide(floats: Float32) -> Float32:
        with np.errstate(over="ignore"):
            quotients = np.rint(floats / second.scale_d) + np.float32(second.offset_d)
        return np.asarray(np.clip(quotients, second.low, second.high), np.float32)

    plain = (integers.astype(np.float32) - np.float32(offset)) * first.scale_d
    yield _applied(_stored(plain, first), steps, first, rounded=False), divide
    for profile in PROFILES.values():
        floats = _stored(profile.antiquantize(integers, scale, offset), first)

        def quantize(values: Float32, rule: Callable[..., Float32] = profile.quantize) -> Float32:
            return rule(values, float(reciprocal(second.scale_d)), second.offset_d)

        yield _applied(floats, steps, first, rounded=False), quantize
        if profile.half and steps:
            yield _applied(floats, steps, first, rounded=True), quantize


def _stored(floats: Float32, quantizer: Quantizer) -> Float32:
    """As the tensor's type holds them."""
    return half(floats) if quantizer.float_type == ir.DataType.FLOAT16 else floats


def _applied(floats: Float32, steps: Sequence[Step], quantizer: Quantizer, *, rounded: bool) -> Float32:
    for operator, number in steps:
        with np.errstate(over="ignore", invalid="ignore"):
            floats = floats * np.float32(number) if operator == MUL else floats / np.float32(number)
        floats = half(floats) if rounded else _stored(floats, quantizer)
    return floats


def _clipped(floats: Float32, quantizer: Quantizer) -> Float32:
    """Behind the Clip that stands for a range narrower than int8's."""
    if (quantizer.low, quantizer.high) == (INT8_MIN, INT8_MAX):
        return floats
    low, high = (
        np.float32(limit - quantizer.offset_d) * quantizer.scale_d for limit in (quantizer.low, quantizer.high)
    )
    return np.clip(floats, low, high)
