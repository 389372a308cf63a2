"""AscendQuant, AscendDequant and AscendAntiQuant as pure functions on numpy arrays, one per rule that chips follow.

Quantizing functions return float32 that holds integers of [-128, 127]; a NaN stays a NaN, because no public source says
what a device makes of it and a number in its place would hide it. ``device/lowering/operators.py`` says the same in
ONNX operators, ``device.profiles`` says which chip follows which rule.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amct_onnx.common.arithmetic import FLOAT16_MAX, FLOAT16_TINY, INT8_MAX, INT8_MIN
from amct_onnx.common.arrays import Array, Float32, Int8

S19_MASK = np.uint32(0xFFFFE000)
"""Mask of S19: sign, exponent and 10 mantissa bits of a float32, which the fixed pipe keeps of a scale."""


# -- scales: how GE's host code changes a constant before the device gets it ----------------------------------------


def unpack_deq_scale(
    parameter: Array,
) -> tuple[Float32, npt.NDArray[np.uint8], Int8]:
    """The fields of AscendDequant's parameter: (scale, shift N, offset_w).

    Args:
        parameter: uint64, bits 31..0 a float32, 39..32 N, 47..40 offset_w (int8); or float16/float32, which holds the
            scale alone. Shape [1] or [channels].

    Source: ge, quant_host_cpu_op_common.h; the operator's contract also takes float16.
    """
    if parameter.dtype != np.uint64:
        zeros = np.zeros(parameter.shape, np.uint8)
        return parameter.astype(np.float32), zeros, zeros.view(np.int8)
    scale = (parameter & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
    shift = ((parameter >> np.uint64(32)) & np.uint64(0xFF)).astype(np.uint8)
    offset = ((parameter >> np.uint64(40)) & np.uint64(0xFF)).astype(np.uint8).view(np.int8)
    return scale, shift, offset


def s19_scale(scale: Float32) -> Float32:
    """The float32 scale with its low 13 mantissa bits cleared, towards zero.

    Source: AscendC documentation of the fixed pipe's quantization (M1), ge fusion_quant_util_impl.cc.
    """
    result: Float32 = (np.ascontiguousarray(scale, np.float32).view(np.uint32) & S19_MASK).view(np.float32)
    return result.reshape(np.shape(scale))


def float16_scale(scale: npt.ArrayLike, sqrt_mode: bool = False) -> tuple[Float32, bool]:
    """(float16(scale) held in float32, sqrt_mode): one scale beyond float16's normal range replaces all by their roots.

    Multiplying twice by the root is what the operator's ``sqrt_mode`` means. The root is taken in float32. A scale that
    already has ``sqrt_mode`` is only rounded.

    Source: ge, quant_host_cpu_op_common.cc (scale below 2^-14 or above 65504); sqrt_mode is one attribute of the node.
    """
    wide = np.asarray(scale, np.float32)
    if not sqrt_mode and bool(((wide < FLOAT16_TINY) | (wide > FLOAT16_MAX)).any()):
        wide, sqrt_mode = np.sqrt(wide), True
    return half(wide), sqrt_mode


def effective_scale(scale: float, sqrt_mode: bool) -> np.float32:
    """float32(scale), or float32(scale * scale) with ``sqrt_mode``: the host squares it for the Ascend 950."""
    factor = np.float32(scale)
    with np.errstate(over="ignore"):
        return factor * factor if sqrt_mode else factor


def half(values: npt.ArrayLike) -> Float32:
    """float32(float16(values)): round to nearest even, infinity beyond 65504."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


# -- AscendQuant ------------------------------------------------------------------------------------------------------


def _saturate(values: Array) -> Float32:
    return np.clip(values.astype(np.float32, copy=False), np.float32(INT8_MIN), np.float32(INT8_MAX))


def quantize_float32(x: Array, scale: float, offset: int, sqrt_mode: bool = False) -> Float32:
    """clip(rint(x * scale) + offset, -128, 127), all in float32: the offset is added after rounding.

    Args:
        x: float32 or float16, any shape.
        scale: reciprocal of the quantizer's scale.
        offset: zero point, -128..127.
        sqrt_mode: the effective scale is float32(scale * scale).

    Source: the vendor's fake-quant chain; ONNX QuantizeLinear rounds before adding as well.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = x.astype(np.float32, copy=False) * effective_scale(scale, sqrt_mode)
        return _saturate(np.rint(product) + np.float32(offset))


def quantize_float32_offset_first(x: Array, scale: float, offset: int, sqrt_mode: bool = False) -> Float32:
    """clip(rint(x * scale + offset), -128, 127), product and sum each rounded to float32 (Ascend 950).

    Arguments as ``quantize_float32``. Source: ops-nn, quant/ascend_quant golden.py.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = x.astype(np.float32, copy=False) * effective_scale(scale, sqrt_mode)
        return _saturate(np.rint(product + np.float32(offset)))


def quantize_float16(x: Array, scale: float, offset: int, sqrt_mode: bool = False) -> Float32:
    """clip(rint(f16(f16(f16(x) * f16(scale)) + f16(offset))), -128, 127): every step rounds to float16.

    A scale outside [2^-14, 65504] is applied as its square root, twice (``float16_scale``).
    Arguments as ``quantize_float32``. Source: ops-nn, quant/ascend_quant golden.py, all chips but the 950.
    """
    factor, sqrt_mode = float16_scale(scale, sqrt_mode)
    with np.errstate(over="ignore", invalid="ignore"):
        value = x.astype(np.float16) * factor.astype(np.float16)
        if sqrt_mode:
            value = value * factor.astype(np.float16)
        return _saturate(np.rint(value + np.float16(offset)))


# -- AscendDequant ----------------------------------------------------------------------------------------------------


def _scaled(accumulator: Array, factor: Float32, sqrt_mode: bool, relu: bool) -> Float32:
    with np.errstate(over="ignore", invalid="ignore"):
        value: Float32 = accumulator.astype(np.float32) * factor
        if relu:
            # the larger one of -0 and 0 is not defined, the sum is 0
            value = np.maximum(value, np.float32(0)) + np.float32(0)
        return value * factor if sqrt_mode else value


def _clamped_half(values: Float32) -> Float32:
    return half(np.clip(values, np.float32(-FLOAT16_MAX), np.float32(FLOAT16_MAX)))


def dequantize_float32(accumulator: Array, scale: Float32, sqrt_mode: bool = False, relu: bool = False) -> Float32:
    """float32(accumulator) * scale, in float32.

    Args:
        accumulator: int32, any shape; beyond 2^24 its conversion to float32 rounds to nearest even.
        scale: float32, broadcastable against accumulator.
        sqrt_mode: multiply by the scale twice.
        relu: max(value, 0) before the second product.

    Source: the vendor's fake-quant chain.
    """
    return _scaled(accumulator, np.asarray(scale, np.float32), sqrt_mode, relu)


def dequantize_fixpipe(accumulator: Array, scale: Float32, sqrt_mode: bool = False, relu: bool = False) -> Float32:
    """f16(clamp(float32(accumulator) * s19(scale), -65504, 65504)), held in float32.

    Arguments as ``dequantize_float32``. Source: AscendC documentation of the fixed pipe (DEQF16, VDEQF16) and its
    examples' gen_data_s322f16.py.
    """
    return _clamped_half(_scaled(accumulator, s19_scale(scale), sqrt_mode, relu))


def dequantize_vector(accumulator: Array, scale: Float32, sqrt_mode: bool = False, relu: bool = False) -> Float32:
    """f16(clamp(float32(accumulator) * scale, -65504, 65504)), held in float32: the scale keeps its 24 bits (310P).

    Arguments as ``dequantize_float32``. Source: ge's V200 vector dequant takes the uint64 scale as it is; the device
    computes float16 in saturation mode (CANN, INF_NAN_MODE_ENABLE).
    """
    return _clamped_half(_scaled(accumulator, np.asarray(scale, np.float32), sqrt_mode, relu))


def dequantize_half_scale(accumulator: Array, scale: Float32, sqrt_mode: bool = False, relu: bool = False) -> Float32:
    """f16(clamp(float32(accumulator) * f16(scale), -65504, 65504)), held in float32 (310, 910).

    Scales below 2^-14 are applied as their square roots, twice (``float16_scale``), with one rounding at the end.
    Arguments as ``dequantize_float32``. Source: ge, quant_host_cpu_op_common.cc; saturation mode as above.
    """
    factor, sqrt_mode = float16_scale(scale, sqrt_mode)
    return _clamped_half(_scaled(accumulator, factor, sqrt_mode, relu))


# -- AscendAntiQuant --------------------------------------------------------------------------------------------------


def antiquantize_float32(q: Array, scale: float, offset: int, sqrt_mode: bool = False) -> Float32:
    """(q - offset) * scale in float32, * scale once more with ``sqrt_mode``.

    Args:
        q: int8, any shape.
        scale: the quantizer's scale.
        offset: the ONNX attribute, +zero point; ATC's plugin flips its sign.
        sqrt_mode: multiply twice.

    Source: ops-nn, ascend_anti_quant_proto.h, and its Ascend 950 kernel.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        value: Float32 = (q.astype(np.float32) - np.float32(offset)) * np.float32(scale)
        return value * np.float32(scale) if sqrt_mode else value


def antiquantize_float16(q: Array, scale: float, offset: int, sqrt_mode: bool = False) -> Float32:
    """f16((q - offset) * f16(scale)), * f16(scale) once more with ``sqrt_mode``, held in float32.

    q - offset is exact in float16. Arguments as ``antiquantize_float32``.
    Source: ops-nn, ascend_anti_quant, all chips but the 950.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        factor = np.float32(scale).astype(np.float16)
        value = (q.astype(np.float16) - np.float16(offset)) * factor
        return (value * factor if sqrt_mode else value).astype(np.float32)
