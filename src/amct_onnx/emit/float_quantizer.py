"""Quantizers in float operators: for factors that no AscendQuant holds, and for the float types around them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.emit.output_graph import OutputGraph
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.plan.factors import Quantizer


def float_chain(graph: OutputGraph, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
    """Quantize and dequantize in float: 16-bit and per-channel factors, which no AscendQuant holds."""

    def factor(label: str, values: npt.ArrayLike) -> ir.Value:
        array = np.asarray(values, np.float32)
        if quantizer.axis is None:
            array = array.reshape(())
        else:
            if source.shape is None:
                raise UnsupportedModelError(
                    f"Node '{at.name}' dequantizes per channel along axis {quantizer.axis}, and the rank of its "
                    f"tensor '{source.name}' is unknown. Declare the shapes of the graph's inputs and export again."
                )
            rank = len(source.shape)
            shape = [1] * rank
            shape[quantizer.axis % rank] = -1
            array = array.reshape(shape)
        return graph.constant(f"{name}.{label}", array)

    scale = factor("scale", quantizer.scale)
    zero = np.asarray(quantizer.zero_point, np.float32)
    value = to_float32(graph, source, quantizer, name, at)
    value = graph.node("Div", [value, scale], f"{name}.div", before=at)
    value = graph.node("Round", [value], f"{name}.round", before=at)
    low, high = factor("low", quantizer.low - zero), factor("high", quantizer.high - zero)
    value = graph.node("Max", [value, low], f"{name}.max", before=at)
    value = graph.node("Min", [value, high], f"{name}.min", before=at)
    value = graph.node("Mul", [value, scale], f"{name}.mul", before=at)
    return from_float32(graph, value, quantizer, name, at)


def float_dequantize(graph: OutputGraph, integer: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
    """A DequantizeLinear of an integer tensor, in float operators (per-tensor or last-axis factors)."""
    value = graph.node("Cast", [integer], f"{name}.cast", [ir.AttrInt64("to", int(ir.DataType.FLOAT))], before=at)
    shape = [1] * (len(integer.shape) if integer.shape is not None else 1)
    if quantizer.axis is not None:
        shape[quantizer.axis % len(shape)] = -1
    zero = np.asarray(quantizer.zero_point, np.float32).reshape(shape)
    scale = np.asarray(quantizer.scale, np.float32).reshape(shape)
    value = graph.node("Sub", [value, graph.constant(f"{name}.zero", zero)], f"{name}.sub", before=at)
    return graph.node("Mul", [value, graph.constant(f"{name}.scale", scale)], f"{name}.mul", before=at)


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
