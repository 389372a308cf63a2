"""Resolve the activation of a layer: the float tensor to quantize, and the factors."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import dequantize_scale
from amct_onnx.common.arrays import Float32
from amct_onnx.graph.edit import bodies_of, known_as, stands_for, tensor_known_as
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, is_op
from amct_onnx.graph.refused import Refusal, noted_form
from amct_onnx.plan.factors import Quantizer
from amct_onnx.plan.grids import Grids

ROUNDING = frozenset("Round Floor Ceil Sign Mod".split())
MAX_STEPS = 8
"""Operators that are followed from a layer towards one that rounds."""


def _refuse_unquantized(value: ir.Value | None, grids: Grids) -> NoReturn:
    """Say why no quantizer is in front of a layer: it may be there, and an operator leaves its grid."""
    name = tensor_known_as(value) if value is not None else ""
    node = value.producer() if value is not None else None
    on_grid = [(v, q) for v in (node.inputs if node is not None else ()) if v and (q := grids.of(v)) is not None]
    if node is not None and on_grid and node.op_type not in LAYER_KINDS:
        source, quantizer = on_grid[0]
        maker, op_type = stands_for(node)
        made = f"its input '{name}' is made by {op_type} '{maker}'"
        _check_integers(quantizer, f"{made} of '{tensor_known_as(source)}', which")
        raise Refusal(
            "activation-not-quantized",
            f"{made}, whose results need not lie on the grid of the quantizer of '{tensor_known_as(source)}'",
            f"Quantize the output of '{maker}'.",
        )
    table = next((v for v in (node.inputs if node is not None else ()) if v and is_op(v.producer(), DEQUANTIZE)), None)
    if node is not None and table is not None and node.op_type not in LAYER_KINDS:
        maker, op_type = stands_for(node)
        raise Refusal(
            "activation-not-quantized",
            f"its input '{name}' is made by {op_type} '{maker}' of the dequantized '{tensor_known_as(table)}', whose "
            "numbers are not those of 8 bits and one scale",
            f"Quantize the output of '{maker}'.",
        )
    if node is not None and bodies_of(node):
        maker, op_type = stands_for(node)
        raise Refusal(
            "activation-not-quantized",
            f"its input '{name}' is made by {op_type} '{maker}', and a quantizer inside its bodies is not followed "
            "out of them",
            f"Quantize the output of '{maker}'.",
        )
    if node is not None and node.domain not in ("", "ai.onnx"):
        raise Refusal(
            "activation-not-quantized",
            f"its input '{name}' is made by {node.op_type} '{known_as(node)}' of domain '{node.domain}', which is not "
            "known here as a quantizer of 8 bits",
            "Export the model in QDQ format (QuantizeLinear and DequantizeLinear nodes).",
        )
    if is_op(node, DEQUANTIZE):
        raise Refusal(
            "activation-not-quantized",
            f"its input '{name}' is made by DequantizeLinear '{known_as(node) if node else ''}' of integers that no "
            "QuantizeLinear of its factors made, and no AscendQuant gives them back: it takes 8 bits and one scale "
            "that float16 holds",
            "Dequantize 8-bit integers, with one scale between 2^-14 and 2^8.",
        )
    rounded = _rounded_by(value)
    if rounded:
        raise Refusal(
            "activation-not-quantized",
            f"its input '{name}' is rounded by {rounded}",
            "Export the quantizer as QuantizeLinear and DequantizeLinear, of 8 bits and one scale.",
        )
    raise Refusal(
        "activation-not-quantized",
        f"its input '{name}' has no QuantizeLinear/DequantizeLinear",
        "Train the layer with an activation quantizer.",
    )


def _rounded_by(value: ir.Value | None) -> str:
    """The operators in front of a layer that round its input, and why they are no quantizer; empty without any."""
    steps: list[str] = []
    why = ""
    node = value.producer() if value is not None else None
    while node is not None and len(steps) < MAX_STEPS and node.op_type not in LAYER_KINDS and node.domain == "":
        name, op_type = stands_for(node)
        steps.insert(0, f"{op_type} '{name}'")
        why = why or noted_form(node)
        if node.op_type in ROUNDING or (node.op_type == "Cast" and _to_integer(node)):
            return f"operators that are not a quantizer of 8 bits: {', '.join(steps)}{why and f' ({why})'}"
        moving = [v for v in node.inputs if v is not None and not v.is_initializer() and v.producer() is not None]
        node = moving[0].producer() if moving else None
    return ""


def _to_integer(cast: ir.Node) -> bool:
    return "to" in cast.attributes and ir.DataType(cast.attributes["to"].as_int()).is_integer()


def _check_integers(quantizer: Quantizer, what: str) -> None:
    """Refuse numbers that one AscendQuant cannot make: not integers of 8 bits, or of more than one scale."""
    if quantizer.blocks is not None:
        raise Refusal(
            "activation-blockwise",
            f"{what} is quantized with one scale per block of {quantizer.blocks.size} elements",
            "Quantize the activation per tensor.",
        )
    if quantizer.axis is not None:
        raise Refusal(
            "activation-per-channel",
            f"{what} is quantized per channel",
            "Quantize the activation per tensor, or that of a float32 depthwise convolution with one zero point.",
        )
    if quantizer.small_float is not None:
        raise Refusal(
            "quantizer-not-integer",
            f"{what} is quantized to {quantizer.small_float.name}",
            "Quantize the activation to int8 or uint8.",
        )
    if quantizer.bits != 8:
        raise Refusal("activation-16-bit", f"{what} is quantized to 16 bits", "Quantize the activation to 8 bits.")


def find_quantizer(value: ir.Value | None, grids: Grids) -> tuple[ir.Value, Quantizer]:
    """The float tensor to quantize in front of a layer, and the factors.

    Behind data movement the tensor itself is returned: its values already lie on the grid.

    Raises:
        Refusal: The activation has no per-tensor quantizer of 8 bits.
    """
    pair = grids.pair(value.producer()) if value is not None else None
    quantizer = pair[1] if pair is not None else grids.of(value)
    if value is None or quantizer is None:
        _refuse_unquantized(value, grids)
    _check_integers(quantizer, f"its input '{tensor_known_as(value)}'")
    source, name = pair[0] if pair is not None else value, tensor_known_as(value)
    kind = float_type_of(source)
    quantizer = dataclasses.replace(quantizer, float_type=kind)
    if kind not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        raise Refusal(
            "float-type",
            f"its input '{name}' is {kind.name}",
            "Export the model in float32 or float16.",
        )
    if not quantizer.per_tensor_int8:
        raise Refusal(
            "activation-scale-range",
            f"the scale {quantizer.scale_d} of its input '{name}' has no finite float32 reciprocal",
            "Calibrate the quantizer again: the scale is subnormal.",
        )
    if not quantizer.low <= quantizer.offset_d <= quantizer.high:
        raise Refusal(
            "activation-zero-point",
            f"the zero point {quantizer.offset_d} of '{name}' lies outside [{quantizer.low}, {quantizer.high}]",
            "Train with a range that includes zero.",
        )
    return source, quantizer


def dequantization_scale(quantizer: Quantizer, scale_w: Float32) -> Float32:
    """scale_d * scale_w, [1] or [channels].

    Raises:
        Refusal: A product is 0 or infinite.
    """
    deq_scale = dequantize_scale(quantizer.scale_d, scale_w)
    if not (np.isfinite(deq_scale) & (deq_scale != 0)).all():
        raise Refusal("deq-scale-range", "scale_d * scale_w leaves float32's range", "Calibrate the quantizers again.")
    return deq_scale
