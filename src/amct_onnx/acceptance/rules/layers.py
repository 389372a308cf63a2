"""Rules on int8 layers: weight, bias, and the chain AscendQuant, layer, (Add), AscendDequant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.acceptance.model_view import (
    ANTIQUANT,
    CUBE,
    DEQUANT,
    MOVES,
    POOL,
    QUANT,
    IntegerLayer,
    ModelView,
    array,
    attribute,
    constant,
    data_input,
    static_shape,
    weight_shape,
)
from amct_onnx.acceptance.report import ERROR, NOTE, WARNING
from amct_onnx.acceptance.rule import Hit, Rule
from amct_onnx.arithmetic import INT8_MIN, INT32_MAX

PASSES = "older fusion engine: QuantProcess passes (bias optimisation, quant rollback)"
ADD_FUSION = "ops-nn: matmul/mat_mul_v3/op_graph/fusion_pass/matmul_biasadd_fusion_pass.cpp"
LIMITS = "CANN documentation of AMCT: restrictions on quantized layers"
SMALL_CHANNELS = 16
"""Input channels up to which a Conv is rolled back to float: the block of float16 channels."""
PASSING = ("Relu", "LeakyRelu", "Clip", "Concat")
"""Operators between AscendDequant and AscendQuant through which the requant passes look."""
BLOCK = 1 << 22
"""Elements of a weight that are read at a time."""


def _cubes(view: ModelView, *op_types: str) -> Iterator[IntegerLayer]:
    yield from (layer for layer in view.layers if layer.node.op_type in (op_types or CUBE))


def _spatial(layer: IntegerLayer) -> int | None:
    """Number of spatial axes of a convolution."""
    kernel = attribute(layer.node, "kernel_shape", ())
    if kernel:
        return len(kernel)
    return len(layer.weight.shape) - 2 if layer.weight is not None else None


# -- weight and bias -----------------------------------------------------------------------------------------------


def weight_variable(view: ModelView) -> Iterator[Hit]:
    """An int8 Conv, ConvTranspose or Gemm whose weight is no constant."""
    for layer in _cubes(view, "Conv", "ConvTranspose", "Gemm"):
        if layer.weight is None:
            yield Hit("its weight is not a constant", view.names[layer.node])


def two_activations(view: ModelView) -> Iterator[Hit]:
    """A MatMul of two activations, one of them with a zero point."""
    for layer in _cubes(view, "MatMul"):
        if layer.weight is not None or constant(layer.node.inputs[0]) is not None:
            continue
        for quant in layer.quants:
            offset = attribute(quant, "offset", 0.0) if quant is not None else 0.0
            if offset:
                yield Hit(f"both inputs are activations, and the offset of one is {offset:g}", view.names[layer.node])
                break


def weight_type(view: ModelView) -> Iterator[Hit]:
    """A weight that is neither int8 nor int4."""
    for layer in _cubes(view):
        if layer.weight is not None and layer.weight.dtype not in (ir.DataType.INT8, ir.DataType.INT4):
            detail = f"its weight is {layer.weight.dtype.name} while its activation is quantized"
            if layer.weight.dtype == ir.DataType.UINT8:
                detail = "its weight is UINT8"
            yield Hit(detail, view.names[layer.node], layer.weight.name or "")


def activation_float(view: ModelView) -> Iterator[Hit]:
    """An int8 weight whose activation is not quantized."""
    for layer in _cubes(view):
        if layer.quants == (None, None):
            yield Hit("its weight is an integer, its activation has no AscendQuant", view.names[layer.node])


def weight_rank(view: ModelView) -> Iterator[Hit]:
    """A MatMul weight that is not 2-D."""
    for layer in _cubes(view, "MatMul"):
        if layer.weight is not None and len(layer.weight.shape) != 2:
            shape = list(layer.weight.shape)
            yield Hit(f"its weight has shape {shape}", view.names[layer.node], layer.weight.name or "")


def weight_moved(view: ModelView) -> Iterator[Hit]:
    """Operators between the constant weight and the layer."""
    for layer in _cubes(view):
        if layer.weight is not None and layer.weight_moves:
            moves = ", ".join(n.op_type for n in reversed(layer.weight_moves))
            yield Hit(f"its weight passes through {moves}", view.names[layer.node], layer.weight.name or "")


def bias_type(view: ModelView) -> Iterator[Hit]:
    """A bias that is not int32."""
    for layer in _cubes(view):
        tensor = constant(layer.bias)
        if tensor is not None and tensor.dtype != ir.DataType.INT32:
            yield Hit(f"its bias is {tensor.dtype.name}", view.names[layer.node], tensor.name or "")


def bias_variable(view: ModelView) -> Iterator[Hit]:
    """A bias that is no constant."""
    for layer in _cubes(view):
        if layer.bias is not None and constant(layer.bias) is None and not _cast_for_int4(layer):
            yield Hit("its bias is not a constant", view.names[layer.node], layer.bias.name or "")


def _cast_for_int4(layer: IntegerLayer) -> bool:
    """The vendor's tool casts the int32 bias of an int4 layer to float."""
    cast = layer.bias.producer() if layer.bias is not None else None
    quant = layer.quants[0]
    return (
        cast is not None
        and cast.op_type == "Cast"
        and constant(data_input(cast)) is not None
        and quant is not None
        and attribute(quant, "dst_type", "") == "INT4"
    )


def bias_shape(view: ModelView) -> Iterator[Hit]:
    """A bias whose shape is not [output channels]."""
    for layer in _cubes(view):
        tensor, channels = constant(layer.bias), layer.channels
        if tensor is None:
            continue
        if len(tensor.shape) != 1 or (channels is not None and tensor.size != channels):
            expected = "output channels" if channels is None else channels
            detail = f"its bias has shape {list(tensor.shape)}, [{expected}] is meant"
            yield Hit(detail, view.names[layer.node], tensor.name or "")


def bias_shared(view: ModelView) -> Iterator[Hit]:
    """A Gemm or MatMul bias with several readers."""
    for layer in _cubes(view, "Gemm", "MatMul"):
        if layer.bias is not None and constant(layer.bias) is not None:
            readers = len(list(layer.bias.uses()))
            if readers > 1:
                yield Hit(f"its bias has {readers} readers", view.names[layer.node], layer.bias.name or "")


def channel_scales(view: ModelView) -> Iterator[Hit]:
    """Gemm or MatMul with one scale for each channel."""
    for layer in _cubes(view, "Gemm", "MatMul"):
        for node in layer.dequants:
            tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if tensor is not None and tensor.size > 1:
                yield Hit(f"its deq_scale has {tensor.size} elements", view.names[layer.node], tensor.name or "")


def accumulator(view: ModelView) -> Iterator[Hit]:
    """A layer whose sum may leave int32; the weight is read only when its size alone does not settle it."""
    for layer in _cubes(view):
        tensor, channels = layer.weight, layer.channels
        if tensor is None or not channels or tensor.dtype != ir.DataType.INT8:
            continue
        values = array(constant(layer.bias))
        bias = np.abs(np.zeros(1) if values is None or not values.size else values.reshape(-1).astype(np.float64))
        reach = -INT8_MIN + abs(layer.offset)
        bound = tensor.size / channels * -INT8_MIN * reach + float(bias.max())
        if bound > INT32_MAX:
            bound = _exact_bound(layer, reach, bias)
        if bound > INT32_MAX:
            yield Hit(f"its sum may reach {bound:.4g}, int32 ends at {INT32_MAX}", view.names[layer.node])


def _exact_bound(layer: IntegerLayer, reach: float, bias: npt.NDArray[np.float64]) -> float:
    """Largest sum of |weight| over one output channel, times the activation's reach, plus the channel's |bias|."""
    assert layer.weight is not None
    weight = array(layer.weight, most=1 << 40)
    if weight is None or weight.ndim < 2:
        return 0.0
    axis = 0 if layer.node.op_type == "Conv" else weight.ndim - 1
    if layer.node.op_type == "ConvTranspose":
        # the sum runs over a group's input channels: the whole axis bounds it
        axis = 1
    if layer.node.op_type == "Gemm" and attribute(layer.node, "transB", 0):
        axis = 0
    if layer.node.op_type == "MatMul" and layer.weight_moves:
        axis = 0
    rows = np.moveaxis(weight, axis, 0)
    step = max(1, BLOCK // max(1, rows[0].size))
    sums = [
        np.abs(rows[i : i + step].astype(np.int16)).reshape(min(step, len(rows) - i), -1).sum(axis=1, dtype=np.int64)
        for i in range(0, len(rows), step)
    ]
    reached = np.concatenate(sums) * reach
    return float((reached + (bias if bias.size == reached.size else bias.max())).max())


# -- the chain -----------------------------------------------------------------------------------------------------


def _breaks(view: ModelView, layer: IntegerLayer) -> list[str]:
    """What stands in the chain AscendQuant -> layer (-> Add) -> AscendDequant and does not belong there."""
    found = [f"{n.op_type} '{view.names[n]}' in front" for n in reversed(layer.before) if n.op_type != "Pad"]
    found += [f"{n.op_type} '{view.names[n]}' behind" for n in layer.after]
    if layer.add is not None:
        tensor, channels = constant(layer.bias), layer.channels
        if tensor is not None and (len(tensor.shape) != 1 or (channels is not None and tensor.size != channels)):
            found.append("an Add that is not folded")
    return found


def chain_offset(view: ModelView) -> Iterator[Hit]:
    """A broken chain with a zero point."""
    for layer in view.layers:
        parts = _breaks(view, layer)
        if parts and layer.offset:
            yield Hit(f"{'; '.join(parts)}; the offset is {layer.offset:g}", view.names[layer.node])


def chain_plain(view: ModelView) -> Iterator[Hit]:
    """A broken chain without a zero point."""
    for layer in view.layers:
        parts = _breaks(view, layer)
        if parts and not layer.offset:
            yield Hit("; ".join(parts), view.names[layer.node])


def pad_value(view: ModelView) -> Iterator[Hit]:
    """An int8 Pad behind AscendQuant that does not fill with the zero point."""
    for layer in view.layers:
        for node in layer.before:
            if node.op_type != "Pad":
                continue
            fill = array(constant(node.inputs[2])) if len(node.inputs) > 2 and node.inputs[2] is not None else None
            value = float(fill.reshape(-1)[0]) if fill is not None and fill.size else 0.0
            if attribute(node, "mode", "constant") == "constant" and value != layer.offset:
                yield Hit(f"it fills with {value:g}, real zero is {layer.offset:g}", view.names[node])


def not_dequantized(view: ModelView) -> Iterator[Hit]:
    """An int32 result that something else than AscendDequant reads."""
    for layer in view.layers:
        if layer.is_output:
            yield Hit("its int32 result is a graph output", view.names[layer.node])
        for node in layer.strangers:
            yield Hit(f"its int32 result is read by {node.op_type} '{view.names[node]}'", view.names[layer.node])
        if not layer.dequants and not layer.strangers and not layer.is_output:
            yield Hit("nothing dequantizes its result", view.names[layer.node])


def dequant_without_layer(view: ModelView) -> Iterator[Hit]:
    """AscendDequant that belongs to no int8 layer."""
    owned = {node for layer in view.layers for node in layer.dequants}
    for node in view.nodes(DEQUANT):
        if node not in owned:
            value = node.inputs[0] if node.inputs else None
            producer = value.producer() if value is not None else None
            what = producer.op_type if producer is not None else "no node"
            yield Hit(f"its input comes from {what}, not from an int8 layer", view.names[node])


def int8_reader(view: ModelView) -> Iterator[Hit]:
    """An int8 tensor that reaches an operator which is no int8 layer."""
    allowed = {*MOVES, *CUBE, ANTIQUANT, POOL}
    for quant in view.nodes(QUANT):
        for value in quant.outputs:
            for use in value.uses():
                if use.node.op_type not in allowed or use.node.domain:
                    yield Hit(
                        f"its int8 result is read by {use.node.op_type} '{view.names[use.node]}'", view.names[quant]
                    )


def int8_output(view: ModelView) -> Iterator[Hit]:
    """An int8 graph output beside other outputs."""
    if len(view.model.graph.outputs) < 2:
        return
    for node in view.nodes(QUANT):
        if any(v.is_graph_output() for v in node.outputs):
            yield Hit("its int8 result is one of several graph outputs", view.names[node])


def unknown_channels(view: ModelView) -> Iterator[Hit]:
    """A zero point where the channel dimension is known to be dynamic."""
    for layer in _cubes(view):
        quant = layer.quants[0]
        if not layer.offset or quant is None:
            continue
        value = quant.inputs[0] if quant.inputs else None
        shape = value.shape if value is not None else None
        axis = 1 if layer.node.op_type.startswith("Conv") else -1
        if shape is not None and len(shape) > 1 and not isinstance(shape[axis], int):
            where = f"axis {axis % len(shape)}"
            yield Hit(f"{where} of its input is {shape[axis]}, the offset is {layer.offset:g}", view.names[layer.node])


# -- shapes and products -------------------------------------------------------------------------------------------


def transpose_3d(view: ModelView) -> Iterator[Hit]:
    """int8 ConvTranspose over three axes."""
    for layer in _cubes(view, "ConvTranspose"):
        if _spatial(layer) == 3:
            yield Hit("it has three spatial axes", view.names[layer.node])


def conv_3d(view: ModelView) -> Iterator[Hit]:
    """int8 Conv over three axes."""
    for layer in _cubes(view, "Conv"):
        if _spatial(layer) == 3:
            yield Hit("it has three spatial axes", view.names[layer.node])


def conv_1d_offset(view: ModelView) -> Iterator[Hit]:
    """int8 convolution over one axis with a zero point."""
    for layer in _cubes(view, "Conv", "ConvTranspose"):
        if _spatial(layer) == 1 and layer.offset:
            yield Hit(f"it has one spatial axis, the offset is {layer.offset:g}", view.names[layer.node])


def conv_1d(view: ModelView) -> Iterator[Hit]:
    """int8 convolution over one axis without a zero point."""
    for layer in _cubes(view, "Conv", "ConvTranspose"):
        if _spatial(layer) == 1 and not layer.offset:
            yield Hit("it has one spatial axis", view.names[layer.node])


def small_channels(view: ModelView) -> Iterator[Hit]:
    """int8 Conv of at most 16 input channels."""
    for layer in _cubes(view, "Conv"):
        shape = weight_shape(layer)
        group = attribute(layer.node, "group", 1)
        if shape is not None and len(shape) > 2 and shape[1] * group <= SMALL_CHANNELS:
            yield Hit(f"it has {shape[1] * group} input channels", view.names[layer.node])


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


def odd_int4(view: ModelView) -> Iterator[Hit]:
    """int4 quantization of a tensor whose last dimension is odd."""
    for node in view.nodes(QUANT):
        value = node.inputs[0] if node.inputs else None
        shape = static_shape(value.shape) if value is not None else None
        if attribute(node, "dst_type", "").rstrip(" ") == "INT4" and shape and shape[-1] % 2:
            yield Hit(f"the last dimension of its input is {shape[-1]}", view.names[node])


_CHAIN_REMEDY = (
    "Move the operator in front of AscendQuant or behind AscendDequant; store a bias as a 1-D int32 initializer of its "
    "own."
)
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
_ROLLBACK_REMEDY = "Keep the layer float in training, or accept that it runs in float16."

RULES = (
    Rule(
        id="weight-variable",
        severity=ERROR,
        title="int8 layer without a constant weight",
        why="The passes read the weight as a constant; a quantized convolution or Gemm of two activations is not "
        "supported.",
        source=PASSES,
        remedy="Store the weight as an int8 initializer.",
        find=weight_variable,
    ),
    Rule(
        id="two-activations",
        severity=ERROR,
        title="MatMul of two activations with an offset",
        why="No weight is there to compensate the offset with: two quantized activations must be symmetric.",
        source="ops-nn: matmul/mat_mul_v3/framework/matmul_onnx_plugin.cpp; CANN documentation of AMCT",
        remedy="Train both activation quantizers with zero point 0, or keep the MatMul float.",
        find=two_activations,
    ),
    Rule(
        id="weight-type",
        severity=ERROR,
        title="Weight that is not int8",
        why="The matrix unit takes int8 with int8; the operators list no mixture with float or uint8.",
        source="ops-nn: conv/, matmul/ (operator prototypes)",
        remedy="Store the weight as symmetric int8.",
        find=weight_type,
    ),
    Rule(
        id="activation-not-quantized",
        severity=ERROR,
        title="int8 weight with a float activation",
        why="The matrix unit takes int8 with int8; without AscendQuant the activation stays float.",
        source="ops-nn: conv/, matmul/ (operator prototypes)",
        remedy="Quantize the activation, or store the weight as float.",
        find=activation_float,
    ),
    Rule(
        id="matmul-weight-rank",
        severity=ERROR,
        title="MatMul weight that is not 2-D",
        why="BatchMatMulV2 takes an int8 constant only as a 2-D second input.",
        source="ops-nn: matmul/mat_mul_v3; CANN documentation of AMCT",
        remedy="Store the weight as [K, N].",
        find=weight_rank,
    ),
    Rule(
        id="weight-moved",
        severity=WARNING,
        title="Weight behind an operator",
        why="The passes look for a constant directly at the layer; whether the operator is folded before they run "
        "is not established.",
        source=PASSES,
        remedy="Store the weight in the layout that the layer takes.",
        find=weight_moved,
    ),
    Rule(
        id="bias-type",
        severity=ERROR,
        title="Bias that is not int32",
        why="An int8 layer accumulates in int32 and takes an int32 bias.",
        source="ops-nn: conv/conv2d_v2 (operator prototype); asc-devkit: Mmad",
        remedy="Store round(bias / (scale_d * scale_w)) as int32, or add the float bias behind AscendDequant.",
        find=bias_type,
    ),
    Rule(
        id="bias-variable",
        severity=ERROR,
        title="Bias that is no constant",
        why="The passes put a host operator between the bias's constant and the layer.",
        source=PASSES,
        remedy="Store the bias as an int32 initializer.",
        find=bias_variable,
    ),
    Rule(
        id="bias-shape",
        severity=ERROR,
        title="Bias that is not [output channels]",
        why="Only a 1-D bias of the result's last (Gemm, MatMul) or channel dimension is folded into the int32 sum.",
        source=ADD_FUSION,
        remedy="Store the bias as [output channels].",
        find=bias_shape,
    ),
    Rule(
        id="bias-shared",
        severity=WARNING,
        title="Gemm or MatMul bias with several readers",
        why="The Add is folded only when the bias has one reader; otherwise it stays between MatMul and AscendDequant.",
        source=ADD_FUSION,
        remedy="Give every layer a bias initializer of its own.",
        find=bias_shared,
    ),
    Rule(
        id="channel-scales",
        severity=WARNING,
        title="Per-channel Gemm or MatMul",
        why="The documentation of CANN 8.5 and 9.1 allows per-tensor weights only; the operator itself takes one "
        "scale for each channel, and documentation of 8.2 allowed it.",
        source=LIMITS,
        remedy="Convert with one dequantization scale and a Mul (the default of `amct_onnx convert`).",
        find=channel_scales,
    ),
    Rule(
        id="accumulator",
        severity=WARNING,
        title="Sum beyond int32",
        why="Products are summed in int32; beyond it neither wrapping nor saturation is promised.",
        source="asc-devkit: Mmad",
        remedy="Use fewer input channels, or larger scales for weight and bias.",
        find=accumulator,
    ),
    Rule(
        id="chain-offset",
        severity=ERROR,
        title="Broken chain with an offset",
        why="The offset is compensated only in the strict chain AscendQuant, layer, bias, AscendDequant; with "
        "anything but Pad in between it is left in the result or the compile stops.",
        source=PASSES,
        remedy=_CHAIN_REMEDY,
        find=chain_offset,
    ),
    Rule(
        id="chain",
        severity=WARNING,
        title="Broken chain",
        why="The passes match the strict chain AscendQuant, layer, bias, AscendDequant; with other operators in "
        "between the layer is not fused, and the scale may be applied elsewhere.",
        source=PASSES,
        remedy=_CHAIN_REMEDY,
        find=chain_plain,
    ),
    Rule(
        id="pad-value",
        severity=ERROR,
        title="int8 Pad that does not fill with zero",
        why="Behind AscendQuant real zero is the offset: filling with another integer changes the border.",
        source="ops-nn: conv/conv2d_v2 (padding with offset_x)",
        remedy="Move the Pad in front of AscendQuant, or fill with the offset.",
        find=pad_value,
    ),
    Rule(
        id="not-dequantized",
        severity=ERROR,
        title="int32 result without AscendDequant",
        why="Whatever reads the result directly gets the integer sum, unscaled and with the offset in it.",
        source=PASSES,
        remedy="Let every reader read AscendDequant's output, subgraphs and graph outputs as well.",
        find=not_dequantized,
    ),
    Rule(
        id="dequant-without-layer",
        severity=ERROR,
        title="AscendDequant without an int8 layer",
        why="The operator takes the int32 result of an int8 layer.",
        source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
        remedy="Feed it from the layer, or use AscendAntiQuant for int8.",
        find=dequant_without_layer,
    ),
    Rule(
        id="int8-reader",
        severity=WARNING,
        title="int8 tensor in a float operator",
        why="The result of AscendQuant is int8; operators other than data movement and int8 layers read it as that "
        "or not at all.",
        source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
        remedy="Put AscendAntiQuant in between.",
        find=int8_reader,
    ),
    Rule(
        id="int8-output",
        severity=WARNING,
        title="int8 output beside others",
        why="The documentation covers a quantizer at the graph's output when it is the only output.",
        source=LIMITS,
        remedy="Put AscendAntiQuant behind it, or make it the only output.",
        find=int8_output,
    ),
    Rule(
        id="unknown-channels",
        severity=WARNING,
        title="Offset with unknown channels",
        why="The pass that compensates the offset steps aside when the channel dimension is unknown.",
        source=PASSES,
        remedy="Export with a fixed number of channels, or train with zero point 0.",
        find=unknown_channels,
    ),
    Rule(
        id="conv-transpose-3d",
        severity=ERROR,
        title="int8 ConvTranspose over three axes",
        why="Conv3DTranspose has no int8 form.",
        source="ops-nn: conv/conv3d_backprop_input (operator prototype)",
        remedy="Keep the layer float.",
        find=transpose_3d,
    ),
    Rule(
        id="conv-3d",
        severity=WARNING,
        title="int8 Conv over three axes",
        why="An int8 3-D convolution is listed for 910B, A3 and 950; on this product none is established.",
        source="ops-nn: conv/conv3d_v2; ge: operator lists",
        remedy="Keep the layer float, or try it on the device.",
        find=conv_3d,
        products=lambda p: not p.conv3d,
    ),
    Rule(
        id="conv-1d-offset",
        severity=WARNING,
        title="int8 Conv over one axis with an offset",
        why=f"{_CONV_1D_WHY} With an offset the result may be wrong.",
        source=_CONV_1D_SOURCE,
        remedy=_CONV_1D_REMEDY,
        find=conv_1d_offset,
    ),
    Rule(
        id="conv-1d",
        severity=NOTE,
        title="int8 Conv over one axis",
        why=_CONV_1D_WHY,
        source=_CONV_1D_SOURCE,
        remedy=_CONV_1D_REMEDY,
        find=conv_1d,
    ),
    Rule(
        id="small-channels",
        severity=WARNING,
        title="Conv that is rolled back to float",
        why=_ROLLBACK_WHY,
        source="ge: tests/.../ge_proto_00015_OptimizeQuantGraph_FeGraphFusionAfter.txt; older fusion engine",
        remedy=_ROLLBACK_REMEDY,
        find=small_channels,
        products=lambda p: p.small_channel_rollback,
    ),
    Rule(
        id="small-channels-unproven",
        severity=NOTE,
        title="Conv that may be rolled back to float",
        why=f"{_ROLLBACK_WHY} Seen on 310 and 910; for this product it is not established.",
        source="older fusion engine: BiasOptimizeQuantRollbackBase",
        remedy=_ROLLBACK_REMEDY,
        find=small_channels,
        products=lambda p: not p.small_channel_rollback,
    ),
    Rule(
        id="requant-fusion",
        severity=NOTE,
        title="Requantization fused",
        why="On 310 and 910 the next quantizer's scale is multiplied into deq_scale, on 310P both operators become one "
        "AscendRequant: a default build is not numerically equal to node-by-node evaluation.",
        source="older fusion engine: V100RequantFusionPass, V200RequantFusionPass",
        remedy="To compare layer by layer, switch the passes off with --fusion_switch_file and set --quant_dumpable=1.",
        find=requant,
        products=lambda p: bool(p.requant_fusion),
    ),
    Rule(
        id="int4-odd",
        severity=ERROR,
        title="int4 with an odd last dimension",
        why="Two int4 values share a byte: the last dimension must be even.",
        source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
        remedy="Quantize to 8 bits.",
        find=odd_int4,
    ),
)
