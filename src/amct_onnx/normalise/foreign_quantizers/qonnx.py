"""QONNX Quant, BipolarQuant and Trunc (source: qonnx' documentation of its operators; brevitas and FINN write them)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.normalise.foreign_quantizers.factors import bits_of, factor_of, rounding_of, scale_of, tensor_of
from amct_onnx.normalise.foreign_quantizers.grid import Grid, integer_range
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter, Rule


def quant(writer: QuantizerWriter, node: ir.Node) -> None:
    """Quant, IntQuant: x, scale, zero point, bit width."""
    scale, zero = scale_of(node, 1, writer.constants), factor_of(node, 2, writer.constants)
    bits = bits_of(node, 3, writer.constants)
    signed, narrow = checked_attribute(node, "signed", 1), checked_attribute(node, "narrow", 0)
    if bits == 1 and signed:
        writer.write_signs(node, scale)
    else:
        low, high = integer_range(bits, signed, narrow)
        writer.write(node, Grid.of(scale, zero, low, high, rounding_of(node, "ROUND")))


def bipolar_quant(writer: QuantizerWriter, node: ir.Node) -> None:
    """BipolarQuant: x, scale."""
    writer.write_signs(node, scale_of(node, 1, writer.constants))


def trunc(writer: QuantizerWriter, node: ir.Node) -> None:
    """Trunc: x, scale, zero point, input bits, output bits; version 2 with output scale, input and output bits.

    Version 1 divides the integers by a power of two, rounds, and gives the result at the scale of the input. Version 2
    divides by the power of two nearest to output scale / scale, and clips.
    """
    formula, constants = writer.formula, writer.constants
    scale, zero, mode = scale_of(node, 1, constants), factor_of(node, 2, constants), rounding_of(node, "FLOOR")
    value = formula.operator(node, "Div", tensor_of(node), scale)
    value = formula.operator(node, "Add", value, zero)
    value = writer.edit.node("Round", [value], node, "round_input")
    if len(node.inputs) > 5:
        out_scale = scale_of(node, 4, constants)
        step = np.exp2(np.rint(np.log2(out_scale.astype(np.float64) / scale)))
        bits = bits_of(node, 6, constants)
        low, high = integer_range(bits, checked_attribute(node, "signed", 1), checked_attribute(node, "narrow", 0))
        value = formula.operator(node, "Div", value, step)
        value = formula.clip(node, value, low, high)
        zero = zero / step
    else:
        out_scale = scale
        step = np.asarray(2.0 ** (bits_of(node, 3, constants) - bits_of(node, 4, constants)))
        value = formula.operator(node, "Div", value, step)
    value = formula.round(node, value, mode)
    formula.finish(node, value, out_scale, zero, "shifts integers")


RULES: dict[str, Rule] = {"Quant": quant, "IntQuant": quant, "BipolarQuant": bipolar_quant, "Trunc": trunc}
