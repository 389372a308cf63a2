"""Rules on the attributes and inputs of Conv, ConvTranspose, Gemm and MatMul, quantized or not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import CONVOLUTIONS
from amct_onnx.verbs.check.model_view import CUBE, IntegerLayer, ModelView
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.conv_axes import spatial_axes
from amct_onnx.verbs.check.rules.sources import CONV_PLUGIN, LIMITS

TRANSPOSE_PLUGIN = "ops-nn: common/src/framework/conv_transpose_onnx_plugin.cpp"
GEMM_PLUGIN = "ops-nn: common/src/framework/gemm_onnx_plugin.cpp"
FREE_PADDING = ("NOTSET", "VALID")


@rule(
    id="attribute-type",
    severity=ERROR,
    title="Attribute stored as another type",
    why="The plugins look at name and type: an attribute of another type is passed over as if it were not there.",
    source=f"{CONV_PLUGIN}; {TRANSPOSE_PLUGIN}; {GEMM_PLUGIN}",
    remedy="Store the attribute as ONNX defines it.",
)
def mistyped(view: ModelView) -> Iterator[Hit]:
    """An attribute of another type than the operator's schema says."""
    for op_type in CUBE:
        schema = onnx.defs.get_schema(op_type)
        for node in view.nodes(op_type):
            for name, found in node.attributes.items():
                if name not in schema.attributes or found.is_ref():
                    continue
                expected = str(schema.attributes[name].type).rsplit(".", 1)[-1]
                if found.type.name != expected:
                    yield Hit(f"its {name} is stored as {found.type.name}, not {expected}", view.names[node])


@rule(
    id="conv-transpose-kernel-shape",
    severity=ERROR,
    title="ConvTranspose without kernel_shape",
    why="The plugin stops without kernel_shape.",
    source=TRANSPOSE_PLUGIN,
    remedy="Write kernel_shape.",
)
def transpose_kernel_shape(view: ModelView) -> Iterator[Hit]:
    """ConvTranspose without kernel_shape."""
    for node in view.nodes("ConvTranspose"):
        if "kernel_shape" not in node.attributes:
            yield Hit("it has no kernel_shape", view.names[node])


@rule(
    id="odd-pads",
    severity=ERROR,
    title="Odd number of pads",
    why="The plugin stops on pads of odd length.",
    source=f"{CONV_PLUGIN}; {TRANSPOSE_PLUGIN}",
    remedy="Write one pad for the begin and one for the end of each spatial axis.",
)
def odd_pads(view: ModelView) -> Iterator[Hit]:
    """Pads of odd length."""
    for node in view.nodes(*CONVOLUTIONS):
        pads = attribute(node, "pads", ())
        if len(pads) % 2:
            yield Hit(f"its pads are {list(pads)}", view.names[node])


@rule(
    id="conv-auto-pad-3d",
    severity=ERROR,
    title="3-D Conv with auto_pad",
    why="The plugin stops on a 3-D convolution whose auto_pad is neither NOTSET nor VALID.",
    source=CONV_PLUGIN,
    remedy="Write pads instead of auto_pad.",
)
def auto_pad_3d(view: ModelView) -> Iterator[Hit]:
    """Conv over three axes with auto_pad SAME."""
    for node in view.nodes("Conv"):
        mode = attribute(node, "auto_pad", "NOTSET")
        if mode not in FREE_PADDING and spatial_axes(node) == 3:
            yield Hit(f"its auto_pad is {mode}", view.names[node])


@rule(
    id="auto-pad",
    severity=WARNING,
    title="auto_pad instead of pads",
    why="The padding is then computed by the compiler; on ConvTranspose the attribute also changes a flag that the "
    "plugin keeps for all later ConvTranspose of the model.",
    source=f"{CONV_PLUGIN}; {TRANSPOSE_PLUGIN}",
    remedy="Write pads instead of auto_pad.",
)
def auto_pad(view: ModelView) -> Iterator[Hit]:
    """Another convolution with auto_pad SAME."""
    for node in view.nodes(*CONVOLUTIONS):
        mode = attribute(node, "auto_pad", "NOTSET")
        if mode not in FREE_PADDING and not (node.op_type == "Conv" and spatial_axes(node) == 3):
            yield Hit(f"its auto_pad is {mode}", view.names[node])


@rule(
    id="conv-transpose-output-shape",
    severity=ERROR,
    title="ConvTranspose with output_shape",
    why="The plugin keeps a flag that is never reset: this and every later ConvTranspose without auto_pad is "
    "compiled with SAME_LOWER padding.",
    source=TRANSPOSE_PLUGIN,
    remedy="Write pads and output_padding instead of output_shape.",
)
def output_shape(view: ModelView) -> Iterator[Hit]:
    """ConvTranspose with output_shape."""
    for node in view.nodes("ConvTranspose"):
        if "output_shape" in node.attributes:
            yield Hit(f"its output_shape is {list(attribute(node, 'output_shape', ()))}", view.names[node])


@rule(
    id="empty-input",
    severity=ERROR,
    title="Empty optional input",
    why="The plugin counts names, empty ones too: an empty third input makes a bias that nothing feeds.",
    source=f"{CONV_PLUGIN}; {TRANSPOSE_PLUGIN}; {GEMM_PLUGIN}",
    remedy="Drop the empty name.",
)
def empty_input(view: ModelView) -> Iterator[Hit]:
    """An empty optional input that the plugin counts."""
    for node in view.nodes(*CONVOLUTIONS, "Gemm"):
        if node.inputs and node.inputs[-1] is None:
            yield Hit(f"its input {len(node.inputs)} has an empty name", view.names[node])


@rule(
    id="gemm-alpha-dropped",
    severity=ERROR,
    title="Gemm whose alpha is dropped",
    why="The plugin applies alpha only together with a C: without one it silently compiles alpha = 1.",
    source=GEMM_PLUGIN,
    remedy="Fold alpha into the weight.",
)
def gemm_alpha_dropped(view: ModelView) -> Iterator[Hit]:
    """Gemm without C whose alpha is not 1."""
    for node in view.nodes("Gemm"):
        alpha = attribute(node, "alpha", 1.0)
        if len(node.inputs) != 3 and not _is_one(alpha):
            yield Hit(f"its alpha is {alpha} and it has no C", view.names[node])


def _is_one(value: float) -> bool:
    return math.isclose(value, 1.0, rel_tol=2.0**-23)


def _gemms(view: ModelView) -> Iterator[IntegerLayer]:
    yield from (layer for layer in view.layers if layer.node.op_type == "Gemm")


@rule(
    id="gemm-factors",
    severity=ERROR,
    title="int8 Gemm with alpha or beta",
    why="The plugin multiplies the int32 product and the bias by them, which breaks the pattern AscendQuant, "
    "MatMul, Add, AscendDequant.",
    source=f"{GEMM_PLUGIN}; {LIMITS}",
    remedy="Fold alpha into the weight's scale and beta into the bias; `amct_onnx convert` does so.",
)
def gemm_factors(view: ModelView) -> Iterator[Hit]:
    """int8 Gemm with alpha or beta."""
    for layer in _gemms(view):
        # beta scales only a C that is there
        for name in ("alpha", "beta")[: 1 + (len(layer.node.inputs) > 2)]:
            value = attribute(layer.node, name, 1.0)
            if not _is_one(value):
                yield Hit(f"its {name} is {value}", view.names[layer.node])


@rule(
    id="gemm-trans-a",
    severity=ERROR,
    title="int8 Gemm with transA",
    why="The documentation requires transpose_a = false for a quantized layer.",
    source=LIMITS,
    remedy="Transpose the activation in front of AscendQuant; `amct_onnx convert` does so.",
)
def gemm_trans_a(view: ModelView) -> Iterator[Hit]:
    """int8 Gemm with transA."""
    for layer in _gemms(view):
        if attribute(layer.node, "transA", 0):
            yield Hit("its transA is 1", view.names[layer.node])


@rule(
    id="gemm-trans-b",
    severity=WARNING,
    title="int8 Gemm with transB",
    why="The vendor's tool transposes the weight beforehand; that the passes take a transposed int8 weight is not "
    "established.",
    source="amct: conversion of Gemm",
    remedy="Store the weight as [K, N] with transB = 0; `amct_onnx convert` does so.",
)
def gemm_trans_b(view: ModelView) -> Iterator[Hit]:
    """int8 Gemm with transB."""
    for layer in _gemms(view):
        if attribute(layer.node, "transB", 0):
            yield Hit("its transB is 1", view.names[layer.node])


@rule(
    id="conv-transpose-dilation",
    severity=WARNING,
    title="int8 ConvTranspose with dilations",
    why="The documentation limits the quantized layer to dilation 1.",
    source=LIMITS,
    remedy="Keep the layer float.",
)
def transpose_dilation(view: ModelView) -> Iterator[Hit]:
    """int8 ConvTranspose with dilations."""
    for layer in view.layers:
        dilations = attribute(layer.node, "dilations", ())
        if layer.node.op_type == "ConvTranspose" and any(d != 1 for d in dilations):
            yield Hit(f"its dilations are {list(dilations)}", view.names[layer.node])
