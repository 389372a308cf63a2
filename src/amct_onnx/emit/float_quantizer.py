"""Quantizers in float operators: for factors and types that no AscendQuant holds, and float types around them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.small_floats import SmallFloat
from amct_onnx.emit.output_graph import OutputGraph
from amct_onnx.graph.edit import known_as
from amct_onnx.graph.laid_factors import laid
from amct_onnx.plan.factors import Quantizer


def float_chain(graph: OutputGraph, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
    """Quantize and dequantize in float: 16 bits, float8, factors per channel or block. No AscendQuant holds these."""

    def factor(label: str, values: npt.ArrayLike) -> ir.Value:
        return graph.constant(f"{name}.{label}", _laid(np.asarray(values, np.float32), quantizer, source, at))

    scale = factor("scale", quantizer.scale)
    zero = np.asarray(quantizer.zero_point, np.float32)
    value = to_float32(graph, source, quantizer, name, at)
    value = graph.node("Div", [value, scale], f"{name}.div", before=at)
    if quantizer.small_float is not None:
        value = _small_float(graph, value, quantizer.small_float, name, at)
    else:
        value = graph.node("Round", [value], f"{name}.round", before=at)
        value = graph.node("Max", [value, factor("low", quantizer.low - zero)], f"{name}.max", before=at)
        value = graph.node("Min", [value, factor("high", quantizer.high - zero)], f"{name}.min", before=at)
    value = graph.node("Mul", [value, scale], f"{name}.mul", before=at)
    return from_float32(graph, value, quantizer, name, at)


def float_dequantize(graph: OutputGraph, integer: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
    """A DequantizeLinear of an integer tensor, in float operators."""
    value = graph.node("Cast", [integer], f"{name}.cast", [ir.AttrInt64("to", int(ir.DataType.FLOAT))], before=at)
    zero = _laid(np.asarray(quantizer.zero_point, np.float32), quantizer, integer, at)
    scale = _laid(np.asarray(quantizer.scale, np.float32), quantizer, integer, at)
    value = graph.node("Sub", [value, graph.constant(f"{name}.zero", zero)], f"{name}.sub", before=at)
    return graph.node("Mul", [value, graph.constant(f"{name}.scale", scale)], f"{name}.mul", before=at)


def _laid(factor: Array, quantizer: Quantizer, tensor: ir.Value, at: ir.Node) -> Array:
    blocks = None if quantizer.blocks is None else (quantizer.blocks.shape, quantizer.blocks.size)
    return laid(factor, quantizer.axis, blocks, tensor, f"Node '{known_as(at)}' dequantizes")


def _small_float(graph: OutputGraph, value: ir.Value, small: SmallFloat, name: str, at: ir.Node) -> ir.Value:
    """Round to the numbers of a float8 or float4 type, in steps that follow the exponent.

    Every factor is a power of two, so nothing but Round loses a bit.
    """

    def number(label: str, content: float) -> ir.Value:
        return graph.constant(f"{name}.{label}", np.asarray(content, np.float32))

    def node(op_type: str, inputs: list[ir.Value], label: str, kind: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        return graph.node(op_type, inputs, f"{name}.{label}", dtype=kind, before=at)

    inside = node("Max", [value, number("low", -small.largest)], "max")
    inside = node("Min", [inside, number("high", small.largest)], "min")
    one, step = number("one", 1.0), number("smallest_step", 2.0 ** (small.lowest_exponent - small.mantissa))
    # the magnitude in smallest normal numbers: halved as often as the step is doubled, until it lies below 2
    size = node("Mul", [node("Abs", [inside], "abs"), number("to_normal", 2.0**-small.lowest_exponent)], "normal")
    for binades in (2**bit for bit in reversed(range((small.binades - 1).bit_length()))):
        power = number(f"power_{binades}", 2.0**binades)
        below = node("Less", [size, power], f"below_{binades}", ir.DataType.BOOL)
        power = node("Where", [below, one, power], f"factor_{binades}")
        step = node("Mul", [step, power], f"step_{binades}")
        size = node("Div", [size, power], f"size_{binades}")
    result = node("Mul", [node("Round", [node("Div", [inside, step], "in_steps")], "round"), step], "rounded")
    if small.saturates:
        return result
    magnitude = node("Abs", [value], "magnitude")
    limit = np.float32(small.limit)
    limit = limit if small.limit_rounds_up else np.nextafter(limit, np.float32(math.inf))
    within = node("Less", [magnitude, number("limit", float(limit))], "within", ir.DataType.BOOL)
    beyond = node("Mul", [inside, number("beyond", small.beyond)], "beyond_limit")
    return node("Where", [within, result, beyond], "unsaturated")


def to_float32(graph: OutputGraph, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
    """Cast a tensor of another float type."""
    if quantizer.float_type == ir.DataType.FLOAT:
        return source
    return graph.node("Cast", [source], f"{name}.cast", [ir.AttrInt64("to", int(ir.DataType.FLOAT))], before=at)


def from_float32(graph: OutputGraph, value: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
    """Cast back to the source's float type."""
    kind = quantizer.float_type
    if kind == ir.DataType.FLOAT:
        return value
    return graph.node("Cast", [value], f"{name}.cast_back", [ir.AttrInt64("to", int(kind))], kind, before=at)
