"""Operators that ONNX Runtime's optimiser fuses become the standard operators that they were made of.

Sources: the contrib operators' documentation of ONNX Runtime. A form whose definition does not say what standard
operators compute (a mask, past keys, an output of the training pass) stays as it is, with a line in the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, known_as, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.refused import note_form
from amct_onnx.graph.shapes import infer_shapes
from amct_onnx.normalise.fused_attention import attention, multi_head_attention
from amct_onnx.normalise.fused_embeddings import embedding
from amct_onnx.normalise.fused_normalisations import (
    bias_softmax,
    group_norm,
    simplified,
    skip_layer_normalization,
    skip_simplified,
)
from amct_onnx.normalise.fused_parts import Parts, given, plus, required

SQRT_2_OVER_PI, CUBIC = 0.7978845608028654, 0.044715
"""Of FastGelu: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))."""
OTHER_FORM = "no standard operators express it with this mask, these outputs, or sizes that are not known"
NHWC = "com.ms.internal.nhwc"


def expand_fused_operators(model: ir.Model) -> None:
    """Rewrite the graph in place.

    Raises:
        UnsupportedModelError: A node lacks an input, or its weight fits no layout of its input.
    """
    parts: Parts | None = None
    inferred = False
    for node in nodes_of(model):
        rule = RULES.get((node.domain, node.op_type))
        if rule is None:
            continue
        parts = parts or Parts(GraphEditor(model), ConstantEvaluator(opset_of(model)), opset_of(model))
        result = rule(parts, node)
        if result is None and not inferred:
            # shapes that nothing declares: now that what is in front of the node is written out, inference knows them
            infer_shapes(model, strict=False)
            inferred, result = True, rule(parts, node)
        if result is not None:
            inferred = False
            _replace(parts, node, result)
        else:
            note_form(node, OTHER_FORM)


def _replace(parts: Parts, node: ir.Node, result: ir.Value) -> None:
    """Put a result in the node's place; outputs of the training pass, which nothing reads, go."""
    if len(node.outputs) > 1:
        node.resize_outputs(1)
    parts.edit.replace(node, [result])


# -- products ----------------------------------------------------------------------------------------------------------


def fused_conv(parts: Parts, node: ir.Node) -> ir.Value | None:
    """FusedConv: activation(Conv(x, w, b) + z)."""
    value = parts.op(node, "Conv", _conv_inputs(node), "", _without_activation(node))
    return _activated(parts, node, plus(parts, node, value, given(node, 3)))


def nhwc_conv(parts: Parts, node: ir.Node) -> ir.Value | None:
    """NhwcFusedConv, NhwcConv and the internal domain's Conv: the channels of input and output are the last axis."""
    x, (w, *bias) = required(node, 0), _conv_inputs(node)[1:]
    shape = [d for d in parts.shape(w) or () if isinstance(d, int)]
    if len(shape) < 3 or len(shape) != parts.rank(w):
        return None
    last, first = len(shape) - 1, list(range(1, len(shape) - 1))
    x_shape = parts.shape(x)
    channels = x_shape[last] if x_shape is not None and len(x_shape) == len(shape) else None
    if _weight_channels_last(node, shape, channels):
        w = parts.op(node, "Transpose", [w], "weight", [ir.AttrInt64s("perm", [0, last, *first])])
    value = parts.op(node, "Transpose", [x], "channels_first", [ir.AttrInt64s("perm", [0, last, *first])])
    value = parts.op(node, "Conv", [value, w, *bias], "", _without_activation(node))
    value = parts.op(node, "Transpose", [value], "channels_last", [ir.AttrInt64s("perm", [0, *range(2, last + 1), 1])])
    return _activated(parts, node, plus(parts, node, value, given(node, 3)))


def _weight_channels_last(node: ir.Node, shape: Sequence[int], channels: object) -> bool:
    """Whether the weight is [M, k.., C / group]; told by the channels of the input, else by the operator."""
    by_operator = node.op_type != "NhwcFusedConv"
    if not isinstance(channels, int):
        return by_operator
    group = checked_attribute(node, "group", 1)
    fits = [shape[1] * group == channels, shape[-1] * group == channels]
    if not any(fits):
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}): its weight of shape {list(shape)} fits no input of {channels} "
            f"channels in {group} groups. Export the model again."
        )
    return by_operator if all(fits) else fits[1]


def fused_gemm(parts: Parts, node: ir.Node) -> ir.Value | None:
    """FusedGemm: activation(Gemm(a, b, c))."""
    inputs = [required(node, 0), required(node, 1), *([] if given(node, 2) is None else [given(node, 2)])]
    value = parts.op(node, "Gemm", inputs, "", _without_activation(node))
    return _activated(parts, node, value)


def fused_matmul(parts: Parts, node: ir.Node) -> ir.Value | None:
    """FusedMatMul, FusedMatMulActivation: activation(alpha * a' b'), each transposed as its attributes say."""
    operands = []
    for index, side in enumerate("AB"):
        value = required(node, index)
        flips = checked_attribute(node, f"trans{side}", 0), checked_attribute(node, f"transBatch{side}", 0)
        if any(flips):
            rank = parts.rank(value)
            if rank is None:
                return None
            order = list(range(rank))
            if flips[1] and rank > 2:
                order = [*order[1:-1], order[0], order[-1]]
            if flips[0] and rank > 1:
                order[-2:] = order[:-3:-1]
            if order != list(range(rank)):
                value = parts.op(node, "Transpose", [value], f"trans{side}", [ir.AttrInt64s("perm", order)])
        operands.append(value)
    value = parts.op(node, "MatMul", operands, "")
    alpha = checked_attribute(node, "alpha", 1.0)
    if alpha != 1.0:
        value = parts.binary(node, "Mul", value, alpha, "alpha")
    return _activated(parts, node, value)


def gemm_fast_gelu(parts: Parts, node: ir.Node) -> ir.Value | None:
    """GemmFastGelu: FastGelu(x w + bias)."""
    value = parts.op(node, "MatMul", [required(node, 0), required(node, 1)], "")
    return _fast_gelu(parts, node, plus(parts, node, value, given(node, 2)))


def _conv_inputs(node: ir.Node) -> list[ir.Value]:
    bias = given(node, 2)
    return [required(node, 0), required(node, 1), *([] if bias is None else [bias])]


def _without_activation(node: ir.Node) -> list[ir.Attr]:
    return [a for a in node.attributes.values() if not a.name.startswith("activation") and a.name != "channels_last"]


def _activated(parts: Parts, node: ir.Node, value: ir.Value) -> ir.Value:
    """What the attributes ``activation`` and ``activation_params`` (or _alpha, _beta, _gamma) ask for.

    Raises:
        UnsupportedModelError: An activation that the operator does not define.
    """
    kind = checked_attribute(node, "activation", "")
    if not kind:
        return value
    if "activation_params" in node.attributes:
        numbers = list(node.attributes["activation_params"].as_floats())
    else:
        stated = [checked_attribute(node, f"activation_{n}", math.nan) for n in ("alpha", "beta", "gamma")]
        numbers = [n for n in stated if not math.isnan(n)]
    label = kind.lower()
    if kind == "Clip" and len(numbers) >= 2:
        bounds = [parts.number(node, f"{label}_{i}", number) for i, number in enumerate(numbers[:2])]
        return parts.op(node, "Clip", [value, *bounds], label)
    names = {"Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
    if kind == "Softmax":
        attributes = [ir.AttrInt64("axis", checked_attribute(node, "activation_axis", -1))]
    elif kind in names:
        attributes = [ir.AttrFloat32(n, number) for n, number in zip(names[kind], numbers, strict=False)]
    else:
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}): its activation {kind} is not known. Save the model with the "
            "optimisations of ONNX Runtime disabled."
        )
    return parts.op(node, kind, [value], label, attributes)


# -- activations -------------------------------------------------------------------------------------------------------


def gelu(parts: Parts, node: ir.Node) -> ir.Value | None:
    """Gelu, BiasGelu: 0.5 * x * (1 + erf(x / sqrt(2))), of x plus the bias."""
    x = plus(parts, node, required(node, 0), given(node, 1))
    value = parts.binary(node, "Mul", x, math.sqrt(0.5), "scaled")
    value = parts.binary(node, "Add", parts.op(node, "Erf", [value], "erf"), 1.0, "one")
    value = parts.op(node, "Mul", [x, value], "product")
    return parts.binary(node, "Mul", value, 0.5, "")


def fast_gelu(parts: Parts, node: ir.Node) -> ir.Value | None:
    """FastGelu: the approximation by tanh, of x plus the bias."""
    return _fast_gelu(parts, node, plus(parts, node, required(node, 0), given(node, 1)))


def _fast_gelu(parts: Parts, node: ir.Node, x: ir.Value) -> ir.Value:
    value = parts.op(node, "Mul", [x, x], "square")
    value = parts.binary(node, "Mul", value, SQRT_2_OVER_PI * CUBIC, "cubic")
    value = parts.binary(node, "Add", value, SQRT_2_OVER_PI, "linear")
    value = parts.op(node, "Tanh", [parts.op(node, "Mul", [x, value], "inner")], "tanh")
    value = parts.binary(node, "Mul", parts.binary(node, "Add", value, 1.0, "one"), 0.5, "half")
    return parts.op(node, "Mul", [x, value], "gelu")


def quick_gelu(parts: Parts, node: ir.Node) -> ir.Value | None:
    """QuickGelu: x * sigmoid(alpha * x)."""
    x = required(node, 0)
    value = parts.binary(node, "Mul", x, checked_attribute(node, "alpha", 1.702), "alpha")
    return parts.op(node, "Mul", [x, parts.op(node, "Sigmoid", [value], "sigmoid")], "")


def bias_add(parts: Parts, node: ir.Node) -> ir.Value | None:
    """BiasAdd: x + bias + skip."""
    return parts.op(
        node, "Add", [parts.op(node, "Add", [required(node, 0), required(node, 1)], ""), required(node, 2)], "skip"
    )


FusedRule = Callable[[Parts, ir.Node], "ir.Value | None"]
MICROSOFT: dict[str, FusedRule] = {
    "FusedConv": fused_conv,
    "NhwcFusedConv": nhwc_conv,
    "NhwcConv": nhwc_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "TransposeMatMul": fused_matmul,
    "FusedMatMulActivation": fused_matmul,
    "GemmFastGelu": gemm_fast_gelu,
    "Gelu": gelu,
    "BiasGelu": gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
    "BiasAdd": bias_add,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified,
    "SimplifiedLayerNormalization": simplified,
    "Attention": attention,
    "QAttention": attention,
    "MultiHeadAttention": multi_head_attention,
    "EmbedLayerNormalization": embedding,
    "QEmbedLayerNormalization": embedding,
    "BiasSoftmax": bias_softmax,
    "GroupNorm": group_norm,
}
RULES: dict[tuple[str, str], FusedRule] = {
    **{("com.microsoft", op_type): rule for op_type, rule in MICROSOFT.items()},
    (NHWC, "Conv"): nhwc_conv,
    # registered in the default domain by ONNX Runtime, and in no version of ONNX
    ("", "SimplifiedLayerNormalization"): simplified,
}
"""Domain and operator -> the rule that writes it; without a result the node stays."""
