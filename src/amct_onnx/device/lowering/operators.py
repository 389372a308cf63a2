"""The rules of ``arithmetic`` as standard ONNX operators, one function for each.

An int8 tensor travels as float32 that holds q - offset ("centred"): padding with zero is then right, and a layer needs
no correction for the offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import FLOAT16_MAX, INT8_MAX, INT8_MIN
from amct_onnx.common.arrays import Float32
from amct_onnx.device import ascend_arithmetic as rules
from amct_onnx.device.lowering.editor import LoweringEditor


@dataclass(frozen=True)
class Quantized:
    """The stages of AscendQuant.

    Attributes:
        exact: what is rounded to an integer.
        rounded: after rounding.
        clipped: after clipping.
        centred: q - offset.
    """

    exact: ir.Value
    rounded: ir.Value
    clipped: ir.Value
    centred: ir.Value


def _quantized(edit: LoweringEditor, exact: ir.Value, offset: int, *, offset_added: bool) -> Quantized:
    """Round and clip; the clipping bounds move when the offset has not been added."""
    shift = 0 if offset_added else offset
    rounded = edit.node("Round", [exact])
    clipped = edit.node("Clip", [rounded, edit.number(INT8_MIN - shift), edit.number(INT8_MAX - shift)])
    centred = clipped
    if offset_added and offset:
        centred = edit.node("Sub", [clipped, edit.number(offset)])
    return Quantized(exact, rounded, clipped, centred)


def quantize_float32(edit: LoweringEditor, x: ir.Value, scale: float, offset: int, sqrt_mode: bool) -> Quantized:
    """rint(x * scale), clipped to [-128 - offset, 127 - offset]: adding the offset to an integer rounds nothing."""
    factor = rules.effective_scale(scale, sqrt_mode)
    return _quantized(edit, edit.times(x, edit.constant(factor)), offset, offset_added=False)


def quantize_float32_offset_first(
    edit: LoweringEditor, x: ir.Value, scale: float, offset: int, sqrt_mode: bool
) -> Quantized:
    """rint(x * scale + offset), clipped; the offset subtracted again."""
    factor = rules.effective_scale(scale, sqrt_mode)
    value = edit.times(x, edit.constant(factor))
    if offset:
        value = edit.node("Add", [value, edit.number(offset)])
    return _quantized(edit, value, offset, offset_added=True)


def quantize_float16(edit: LoweringEditor, x: ir.Value, scale: float, offset: int, sqrt_mode: bool) -> Quantized:
    """The chain in float32 operators with a rounding to float16 after each.

    float32 has 24 bits, two more than twice float16's 11, so rounding twice is rounding once.
    """
    factor, sqrt_mode = rules.float16_scale(scale, sqrt_mode)
    value = edit.half(x)
    for _ in range(2 if sqrt_mode else 1):
        value = edit.half(edit.times(value, edit.constant(factor)))
    if offset:
        value = edit.half(edit.node("Add", [value, edit.number(offset)]))
    return _quantized(edit, value, offset, offset_added=True)


def _without_negative_zero(edit: LoweringEditor, value: ir.Value) -> ir.Value:
    """Integers have one zero; float32 has two, and -0 + 0 is 0."""
    return edit.node("Add", [value, edit.number(0.0)])


def _dequantized(
    edit: LoweringEditor, accumulator: ir.Value, factor: Float32, sqrt_mode: bool, relu: bool, *, to_half: bool
) -> ir.Value:
    scale = edit.constant(factor)
    value = edit.times(accumulator, scale)
    if relu:
        value = _without_negative_zero(edit, edit.node("Relu", [value]))
    if sqrt_mode:
        value = edit.times(value, scale)
    if to_half:
        value = edit.node("Clip", [value, edit.number(-FLOAT16_MAX), edit.number(FLOAT16_MAX)])
        value = edit.half(value)
    return value


def dequantize_float32(
    edit: LoweringEditor, accumulator: ir.Value, scale: Float32, sqrt_mode: bool, relu: bool
) -> ir.Value:
    """One Mul."""
    return _dequantized(edit, accumulator, scale, sqrt_mode, relu, to_half=False)


def dequantize_fixpipe(
    edit: LoweringEditor, accumulator: ir.Value, scale: Float32, sqrt_mode: bool, relu: bool
) -> ir.Value:
    """Mul by the truncated scale, Clip, float16."""
    return _dequantized(edit, accumulator, rules.s19_scale(scale), sqrt_mode, relu, to_half=True)


def dequantize_vector(
    edit: LoweringEditor, accumulator: ir.Value, scale: Float32, sqrt_mode: bool, relu: bool
) -> ir.Value:
    """Mul, Clip, float16."""
    return _dequantized(edit, accumulator, scale, sqrt_mode, relu, to_half=True)


def dequantize_half_scale(
    edit: LoweringEditor, accumulator: ir.Value, scale: Float32, sqrt_mode: bool, relu: bool
) -> ir.Value:
    """Mul by the float16 scale or twice by its root, Clip, float16."""
    factor, sqrt_mode = rules.float16_scale(scale, sqrt_mode)
    return _dequantized(edit, accumulator, factor, sqrt_mode, relu, to_half=True)


def antiquantize_float32(edit: LoweringEditor, centred: ir.Value, scale: float, sqrt_mode: bool) -> ir.Value:
    """Mul by the scale."""
    return edit.times(_without_negative_zero(edit, centred), edit.number(scale), 2 if sqrt_mode else 1)


def antiquantize_float16(edit: LoweringEditor, centred: ir.Value, scale: float, sqrt_mode: bool) -> ir.Value:
    """Mul by the float16 scale, float16."""
    factor = edit.constant(rules.half(np.float32(scale)))
    centred = _without_negative_zero(edit, centred)
    for _ in range(2 if sqrt_mode else 1):
        centred = edit.half(edit.times(centred, factor))
    return centred


QUANTIZE = {
    rules.quantize_float32: quantize_float32,
    rules.quantize_float32_offset_first: quantize_float32_offset_first,
    rules.quantize_float16: quantize_float16,
}
DEQUANTIZE = {
    rules.dequantize_float32: dequantize_float32,
    rules.dequantize_fixpipe: dequantize_fixpipe,
    rules.dequantize_vector: dequantize_vector,
    rules.dequantize_half_scale: dequantize_half_scale,
}
ANTIQUANTIZE = {
    rules.antiquantize_float32: antiquantize_float32,
    rules.antiquantize_float16: antiquantize_float16,
}
"""From a rule of ``arithmetic`` to its operators."""
