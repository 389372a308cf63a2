"""The product of two activations: an int8 layer without a weight, whose two inputs have symmetric quantizers.

With an offset on either side the sum would need the sums of the other side's integers, which only a device's own passes
could add, and those know constant weights alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import tensor_known_as
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import PRODUCTS
from amct_onnx.graph.refused import Refusal
from amct_onnx.graph.shapes import known_shape
from amct_onnx.plan.activations import dequantization_scale, find_quantizer
from amct_onnx.plan.factors import Activation, Site
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.output_scales import next_scale
from amct_onnx.plan.settings import OFF, PlanSettings

PLACES = ("first", "second")


def is_activation_product(node: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether a layer multiplies two activations."""
    return node.op_type in PRODUCTS and not any(constants.is_constant(v) for v in node.inputs[:2])


def plan_activation_product(node: ir.Node, grids: Grids, settings: PlanSettings, constants: ConstantEvaluator) -> Site:
    """Resolve a MatMul of two activations.

    Raises:
        Refusal: It stays float: a quantizer is missing or has an offset, it is a Gemm with factors, or the user wants
            it so.
        FactorError: A quantizer with unusable factors.
    """
    found = [find_quantizer(value, grids) for value in node.inputs[:2]]
    offsets = [
        f"the zero point {quantizer.offset_d + quantizer.shift} of its {place} input '{tensor_known_as(value)}' is not "
        f"{quantizer.shift}"
        for place, value, (_, quantizer) in zip(PLACES, node.inputs, found, strict=False)
        if value is not None and quantizer.offset_d
    ]
    if offsets:
        raise Refusal(
            "activation-offset",
            f"both of its inputs are activations, and {', and '.join(offsets)}",
            "Train these quantizers symmetric: int8 with the zero point 0, or uint8 with 128.",
        )
    if node.op_type != "MatMul":
        raise Refusal(
            "activation-by-activation",
            "both of its inputs are activations, and its alpha or beta is not 1: ATC compiles an int8 Gemm with a "
            "constant weight only",
            "Write it as a MatMul with an Add behind it.",
        )
    if settings.act_matmul == OFF:
        raise Refusal(
            "activation-by-activation",
            "both of its inputs are activations, and act_matmul is 'off'",
            "Convert with act_matmul 'on'.",
        )
    terms = _terms([v for v, _ in found])
    _check_shapes(node, terms)
    scale_b = np.asarray([found[1][1].scale_d], np.float32)
    result = node.outputs[0]
    return Site(
        node=node.name or "",
        activations=tuple(Activation(v.name or "", q, float(q.scale_d)) for v, q in found),
        weight=None,
        deq_scale=dequantization_scale(found[0][1], scale_b),
        bias=None,
        float_bias=None,
        bias_name="",
        absorbed=(),
        split_scale=False,
        transpose_input=False,
        float_type=float_type_of(result) if result.dtype else float_type_of(node.inputs[0] or found[0][0]),
        attributes=(),
        detail="both of its inputs are activations",
        output=result.name or "",
        output_scale=next_scale(result, constants),
        terms=terms,
    )


def _check_shapes(node: ir.Node, terms: int | None) -> None:
    """Refuse what is, or may be, a product of two vectors, and one that sums nothing.

    Args:
        node: a MatMul.
        terms: products for one element.
    """
    result, ranks = known_shape(node.outputs[0]), [_rank(v) for v in node.inputs[:2]]
    if ranks == [1, 1]:
        raise Refusal(
            "activation-by-activation",
            "both of its inputs are vectors: its result has no axes, and behind the scale of AscendDequant it would "
            "have one",
            "Give one of its inputs a second axis.",
        )
    if not result and all(rank is None or rank < 2 for rank in ranks):
        unknown = [f"'{tensor_known_as(v)}'" for v, r in zip(node.inputs, ranks, strict=False) if v and r is None]
        raise Refusal(
            "activation-by-activation",
            f"the number of axes of {' and of '.join(unknown)} is unknown: the result of two vectors has none, and "
            "behind the scale of AscendDequant it would have one",
            "Declare the shapes of the graph's inputs.",
        )
    if terms == 0:
        raise Refusal("activation-by-activation", "it sums over an axis of size 0", "Remove it: its result is 0.")


def _rank(value: ir.Value | None) -> int | None:
    """Axes of a tensor; None where nothing tells."""
    shape, node = known_shape(value), value.producer() if value is not None else None
    if shape is None and node is not None and node.op_type == "Transpose" and not node.domain:
        return len(attribute(node, "perm", ())) or None
    return None if shape is None else len(shape)


def _terms(operands: list[ir.Value]) -> int | None:
    """How many products a MatMul adds for one element; None when no shape says so."""
    for value, axis in zip(operands, (-1, -2), strict=True):
        shape = known_shape(value)
        if shape is not None and len(shape):
            length = shape[axis if len(shape) > 1 else 0]
            if isinstance(length, int):
                return length
    return None
