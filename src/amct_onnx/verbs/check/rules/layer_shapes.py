"""Rules on int8 layers that depend on axes, channels and product: what is rolled back, rewritten, fused."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.device.chips import LAYERS
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import CONVOLUTIONS
from amct_onnx.verbs.check.model_view import (
    ANTIQUANT,
    DEQUANT,
    QUANT,
    IntegerLayer,
    ModelView,
    static_shape,
    weight_shape,
)
from amct_onnx.verbs.check.report import ERROR, NOTE, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import LIMITS

SMALL_CHANNELS = 16
"""Input channels up to which a Conv is rolled back to float: the block of float16 channels."""
PASSING = ("Relu", "LeakyRelu", "Clip", "Concat")
"""Operators between AscendDequant and AscendQuant through which the requant passes look."""
_CONV_1D_WHY = (
    "The plugin makes Unsqueeze, Conv2D, Squeeze of it, so that operators stand between AscendQuant, the layer and "
    "AscendDequant; a pass reorders them on some products only."
)
_CONV_1D_SOURCE = "ops-nn: common/src/framework/conv_onnx_plugin.cpp"
_CONV_1D_REMEDY = "Write it as a 2-D convolution: unsqueeze in front of AscendQuant, squeeze behind AscendDequant."
_ROLLBACK_WHY = (
    "A Conv of at most 16 input channels gets its weight and bias dequantized and runs in float16: its activation "
    "is then not quantized, and the result differs from int8."
)
_ROLLBACK_REMEDY = (
    "Keep the layer float in training, or accept that it runs in float16. On 310P and 310B the model's first layer "
    "stays int8 with a static AIPP, enable_first_layer_quantization: true in --compression_optimize_conf, and "
    "--enable_small_channel=1: `amct_onnx atc --first_layer` writes all three."
)


def _spatial(layer: IntegerLayer) -> int | None:
    """Number of spatial axes of a convolution."""
    kernel = attribute(layer.node, "kernel_shape", ())
    if kernel:
        return len(kernel)
    return len(layer.weight.shape) - 2 if layer.weight is not None else None


@rule(
    id="conv-transpose-3d",
    severity=ERROR,
    title="int8 ConvTranspose over three axes",
    why="Conv3DTranspose has no int8 form.",
    source="ops-nn: conv/conv3d_backprop_input (operator prototype)",
    remedy="Keep the layer float.",
)
def transpose_3d(view: ModelView) -> Iterator[Hit]:
    """int8 ConvTranspose over three axes."""
    for layer in view.cubes("ConvTranspose"):
        if _spatial(layer) == 3:
            yield Hit("it has three spatial axes", view.names[layer.node])


@rule(
    id="conv-3d",
    severity=WARNING,
    title="int8 Conv over three axes",
    why="An int8 3-D convolution is listed for 910B, A3 and 950; on this product none is established.",
    source="ops-nn: conv/conv3d_v2; ge: operator lists",
    remedy="Keep the layer float, or try it on the device.",
    chips=lambda p: not p.conv3d,
)
def conv_3d(view: ModelView) -> Iterator[Hit]:
    """int8 Conv over three axes."""
    for layer in view.cubes("Conv"):
        if _spatial(layer) == 3:
            yield Hit("it has three spatial axes", view.names[layer.node])


@rule(
    id="conv-3d-dilation",
    severity=ERROR,
    title="int8 Conv dilated in depth",
    why="The int8 form of Conv3D takes dilation 1 in depth only.",
    source="ops-nn: conv/conv3d_v2; CANN documentation of AMCT: restrictions on quantized layers",
    remedy="Keep the layer float.",
)
def conv_3d_dilation(view: ModelView) -> Iterator[Hit]:
    """int8 Conv over three axes whose dilation in depth is not 1."""
    for layer in view.cubes("Conv"):
        dilations = attribute(layer.node, "dilations", ())
        if _spatial(layer) == 3 and dilations and dilations[0] != 1:
            yield Hit(f"its dilations are {list(dilations)}", view.names[layer.node])


@rule(
    id="layer-undocumented",
    severity=NOTE,
    title="int8 layer that the product's documentation does not name",
    why="Of quantized layers the documentation names ConvTranspose alone for this product.",
    source=LIMITS,
    remedy="Keep the layers float, or try them on the device.",
    chips=lambda p: p.int8_layers != LAYERS,
)
def layer_undocumented(view: ModelView) -> Iterator[Hit]:
    """int8 layers other than ConvTranspose, one finding for the model."""
    found = [layer.node for layer in view.cubes() if layer.node.op_type != "ConvTranspose"]
    if found:
        yield Hit(f"{len(found)} int8 layers of other operators; the first is this one", view.names[found[0]])


@rule(
    id="add-undocumented",
    severity=NOTE,
    title="Add of two quantized inputs",
    why="For this product the documentation allows one quantized input of an Add.",
    source=LIMITS,
    remedy="Quantize one input of the Add only.",
    chips=lambda p: p.int8_layers != LAYERS,
)
def add_undocumented(view: ModelView) -> Iterator[Hit]:
    """An Add both of whose inputs come from AscendAntiQuant, one finding for the model."""
    found = [node for node in view.nodes("Add") if _both_quantized(node)]
    if found:
        detail = f"both inputs of {len(found)} Add nodes come from AscendAntiQuant; the first is this one"
        yield Hit(detail, view.names[found[0]])


def _both_quantized(node: ir.Node) -> bool:
    producers = [v.producer() for v in node.inputs if v is not None]
    return len(producers) == 2 and all(p is not None and p.op_type == ANTIQUANT for p in producers)


@rule(
    id="conv-1d-offset",
    severity=WARNING,
    title="int8 Conv over one axis with an offset",
    why=f"{_CONV_1D_WHY} With an offset the result may be wrong.",
    source=_CONV_1D_SOURCE,
    remedy=_CONV_1D_REMEDY,
)
def conv_1d_offset(view: ModelView) -> Iterator[Hit]:
    """int8 convolution over one axis with a zero point."""
    for layer in view.cubes(*CONVOLUTIONS):
        if _spatial(layer) == 1 and layer.offset:
            yield Hit(f"it has one spatial axis, the offset is {layer.offset:g}", view.names[layer.node])


@rule(
    id="conv-1d",
    severity=NOTE,
    title="int8 Conv over one axis",
    why=_CONV_1D_WHY,
    source=_CONV_1D_SOURCE,
    remedy=_CONV_1D_REMEDY,
)
def conv_1d(view: ModelView) -> Iterator[Hit]:
    """int8 convolution over one axis without a zero point."""
    for layer in view.cubes(*CONVOLUTIONS):
        if _spatial(layer) == 1 and not layer.offset:
            yield Hit("it has one spatial axis", view.names[layer.node])


@rule(
    id="small-channels",
    severity=WARNING,
    title="Conv that is rolled back to float",
    why=_ROLLBACK_WHY,
    source="ge: tests/.../ge_proto_00015_OptimizeQuantGraph_FeGraphFusionAfter.txt; older fusion engine",
    remedy=_ROLLBACK_REMEDY,
    chips=lambda p: p.small_channel_rollback,
)
@rule(
    id="small-channels-unproven",
    severity=NOTE,
    title="Conv that may be rolled back to float",
    why=f"{_ROLLBACK_WHY} Seen on 310 and 910; for this product it is not established.",
    source="older fusion engine: BiasOptimizeQuantRollbackBase",
    remedy=_ROLLBACK_REMEDY,
    chips=lambda p: not p.small_channel_rollback,
)
def small_channels(view: ModelView) -> Iterator[Hit]:
    """int8 Conv of at most 16 input channels."""
    for layer in view.cubes("Conv"):
        shape = weight_shape(layer)
        group = attribute(layer.node, "group", 1)
        if shape is not None and len(shape) > 2 and shape[1] * group <= SMALL_CHANNELS:
            yield Hit(f"it has {counted(shape[1] * group, 'input channel')}", view.names[layer.node])


@rule(
    id="requant-fusion",
    severity=NOTE,
    title="Requantization fused",
    why="On 310 and 910 the next quantizer's scale is multiplied into deq_scale, on 310P both operators become one "
    "AscendRequant: a default build is not numerically equal to node-by-node evaluation.",
    source="older fusion engine: V100RequantFusionPass, V200RequantFusionPass",
    remedy="To compare layer by layer, switch the passes off: `amct_onnx atc --comparable_dumps` writes the file for "
    "--fusion_switch_file and sets --quant_dumpable=1.",
    chips=lambda p: bool(p.requant_fusion),
)
def requant(view: ModelView) -> Iterator[Hit]:
    """AscendDequant that reaches AscendQuant through what the fusion passes see through, one finding for the model."""
    found = [n for n in view.nodes(DEQUANT) if _requantized(n)]
    if found:
        yield Hit(f"{len(found)} AscendDequant nodes feed AscendQuant; the first is this one", view.names[found[0]])


def _requantized(node: ir.Node) -> bool:
    for value in node.outputs:
        for use in value.uses():
            if use.node.op_type == QUANT:
                return True
            if use.node.op_type in PASSING and any(
                u.node.op_type == QUANT for out in use.node.outputs for u in out.uses()
            ):
                return True
    return False


@rule(
    id="int4-odd",
    severity=ERROR,
    title="int4 with an odd last dimension",
    why="Two int4 values share a byte: the last dimension must be even.",
    source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
    remedy="Quantize to 8 bits.",
)
def odd_int4(view: ModelView) -> Iterator[Hit]:
    """int4 quantization of a tensor whose last dimension is odd."""
    for node in view.nodes(QUANT):
        value = node.inputs[0] if node.inputs else None
        shape = static_shape(value.shape) if value is not None else None
        if attribute(node, "dst_type", "").rstrip(" ") == "INT4" and shape and shape[-1] % 2:
            yield Hit(f"the last dimension of its input is {shape[-1]}", view.names[node])
