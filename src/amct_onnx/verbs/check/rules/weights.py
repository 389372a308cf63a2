"""Rules on the weight and bias of int8 layers, and the sum that they make."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT8_MIN, INT32_MAX
from amct_onnx.device.facts import weight_sums
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import CONVOLUTIONS, PRODUCTS, layout_of
from amct_onnx.verbs.check.model_view import IntegerLayer, ModelView, array, constant, data_input, weight_shape
from amct_onnx.verbs.check.report import ERROR, NOTE, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import LIMITS, PASSES

ADD_FUSION = "ops-nn: matmul/mat_mul_v3/op_graph/fusion_pass/matmul_biasadd_fusion_pass.cpp"


@rule(
    id="weight-variable",
    severity=ERROR,
    title="int8 layer without a constant weight",
    why="The passes read the weight as a constant; a quantized convolution or Gemm of two activations is not "
    "supported.",
    source=PASSES,
    remedy="Store the weight as an int8 initializer.",
)
def weight_variable(view: ModelView) -> Iterator[Hit]:
    """An int8 Conv, ConvTranspose or Gemm whose weight is not a constant."""
    for layer in view.cubes(*CONVOLUTIONS, "Gemm"):
        if layer.weight is None:
            yield Hit("its weight is not a constant", view.names[layer.node])


@rule(
    id="two-activations",
    severity=ERROR,
    title="MatMul of two activations with an offset",
    why="No weight is there to compensate the offset with: two quantized activations must be symmetric.",
    source="ops-nn: matmul/mat_mul_v3/framework/matmul_onnx_plugin.cpp; CANN documentation of AMCT",
    remedy="Train both activation quantizers with zero point 0, or keep the MatMul float.",
)
def two_activations(view: ModelView) -> Iterator[Hit]:
    """A MatMul of two activations, one of them with a zero point."""
    for layer in view.cubes("MatMul"):
        quants = layer.quants if layer.multiplies_activations else ()
        offsets = [
            f"the offset of '{view.names[quant]}' is {offset:g}"
            for quant in dict.fromkeys(quants)
            if quant is not None and (offset := attribute(quant, "offset", 0.0))
        ]
        if offsets:
            yield Hit(f"both inputs are activations, and {' and '.join(offsets)}", view.names[layer.node])


@rule(
    id="two-activations-one-float",
    severity=ERROR,
    title="MatMul of int8 and float",
    why="The matrix unit takes int8 with int8; the operators list no mixture.",
    source="ops-nn: matmul/ (operator prototypes)",
    remedy="Quantize both inputs, or put AscendAntiQuant behind the AscendQuant of the one.",
)
def one_activation_float(view: ModelView) -> Iterator[Hit]:
    """A MatMul of two activations of which one has no AscendQuant."""
    for layer in view.cubes("MatMul"):
        if not layer.multiplies_activations or None not in layer.quants:
            continue
        place = layer.quants.index(None)
        value = layer.node.inputs[place]
        if value is not None and value.dtype != ir.DataType.INT8:
            detail = f"its {('first', 'second')[place]} input has no AscendQuant, the other has"
            yield Hit(detail, view.names[layer.node], value.name or "")


@rule(
    id="two-activations-no-gain",
    severity=NOTE,
    title="int8 MatMul of two activations without a documented gain",
    why="The documentation names A2, A3 and 200I/500 A2 (310B) as the products that gain from an int8 MatMul of two "
    "activations; this product is not among them.",
    source=LIMITS,
    remedy="Measure on the device; with --act_matmul off the layers stay float.",
    chips=lambda p: not p.activation_products,
)
def two_activations_no_gain(view: ModelView) -> Iterator[Hit]:
    """int8 MatMuls of two activations, one finding for the model."""
    found = [layer.node for layer in view.cubes("MatMul") if layer.multiplies_activations]
    if found:
        yield Hit(f"{len(found)} int8 MatMul of two activations; the first is this one", view.names[found[0]])


@rule(
    id="weight-type",
    severity=ERROR,
    title="Weight that is not int8",
    why="The matrix unit takes int8 with int8; the operators list no mixture with float or uint8.",
    source="ops-nn: conv/, matmul/ (operator prototypes)",
    remedy="Store the weight as symmetric int8.",
)
def weight_type(view: ModelView) -> Iterator[Hit]:
    """A weight that is neither int8 nor int4."""
    for layer in view.cubes():
        if layer.weight is not None and layer.weight.dtype not in (ir.DataType.INT8, ir.DataType.INT4):
            detail = f"its weight is {layer.weight.dtype.name} while its activation is quantized"
            if layer.weight.dtype == ir.DataType.UINT8:
                detail = "its weight is UINT8"
            yield Hit(detail, view.names[layer.node], layer.weight.name or "")


@rule(
    id="activation-not-quantized",
    severity=ERROR,
    title="int8 weight with a float activation",
    why="The matrix unit takes int8 with int8; without AscendQuant the activation stays float.",
    source="ops-nn: conv/, matmul/ (operator prototypes)",
    remedy="Quantize the activation, or store the weight as float.",
)
def activation_float(view: ModelView) -> Iterator[Hit]:
    """An int8 weight whose activation is not quantized."""
    for layer in view.cubes():
        if layer.quants == (None, None):
            yield Hit("its weight is an integer, its activation has no AscendQuant", view.names[layer.node])


@rule(
    id="matmul-weight-rank",
    severity=ERROR,
    title="MatMul weight that is not 2-D",
    why="BatchMatMulV2 takes an int8 constant only as a 2-D second input.",
    source="ops-nn: matmul/mat_mul_v3; CANN documentation of AMCT",
    remedy="Store the weight as [K, N].",
)
def weight_rank(view: ModelView) -> Iterator[Hit]:
    """A MatMul weight that is not 2-D."""
    for layer in view.cubes("MatMul"):
        if layer.weight is not None and len(layer.weight.shape) != 2:
            shape = list(layer.weight.shape)
            yield Hit(f"its weight has shape {shape}", view.names[layer.node], layer.weight.name or "")


@rule(
    id="weight-moved",
    severity=WARNING,
    title="Weight behind an operator",
    why="The passes look for a constant directly at the layer; whether the operator is folded before they run "
    "is not established.",
    source=PASSES,
    remedy="Store the weight in the layout that the layer takes.",
)
def weight_moved(view: ModelView) -> Iterator[Hit]:
    """Operators between the constant weight and the layer."""
    for layer in view.cubes():
        if layer.weight is not None and layer.weight_moves:
            moves = ", ".join(n.op_type for n in reversed(layer.weight_moves))
            yield Hit(f"its weight passes through {moves}", view.names[layer.node], layer.weight.name or "")


@rule(
    id="bias-type",
    severity=ERROR,
    title="Bias that is not int32",
    why="An int8 layer accumulates in int32 and takes an int32 bias.",
    source="ops-nn: conv/conv2d_v2 (operator prototype); asc-devkit: Mmad",
    remedy="Store round(bias / (scale_d * scale_w)) as int32, or add the float bias behind AscendDequant.",
)
def bias_type(view: ModelView) -> Iterator[Hit]:
    """A bias that is not int32."""
    for layer in view.cubes():
        tensor = constant(layer.bias)
        if tensor is not None and tensor.dtype != ir.DataType.INT32:
            yield Hit(f"its bias is {tensor.dtype.name}", view.names[layer.node], tensor.name or "")


@rule(
    id="bias-variable",
    severity=ERROR,
    title="Bias that is not a constant",
    why="The passes put a host operator between the bias's constant and the layer.",
    source=PASSES,
    remedy="Store the bias as an int32 initializer.",
)
def bias_variable(view: ModelView) -> Iterator[Hit]:
    """A bias that is not a constant."""
    for layer in view.cubes():
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


@rule(
    id="bias-shape",
    severity=ERROR,
    title="Bias that is not [output channels]",
    why="Only a 1-D bias of the result's last (Gemm, MatMul) or channel dimension is folded into the int32 sum.",
    source=ADD_FUSION,
    remedy="Store the bias as [output channels].",
)
def bias_shape(view: ModelView) -> Iterator[Hit]:
    """A bias whose shape is not [output channels]."""
    for layer in view.cubes():
        tensor, channels = constant(layer.bias), layer.channels
        if tensor is None:
            continue
        if len(tensor.shape) != 1 or (channels is not None and tensor.size != channels):
            expected = "output channels" if channels is None else channels
            detail = f"its bias has shape {list(tensor.shape)}, [{expected}] is meant"
            yield Hit(detail, view.names[layer.node], tensor.name or "")


@rule(
    id="channel-scales",
    severity=WARNING,
    title="Per-channel Gemm or MatMul",
    why="The documentation of CANN 8.5 and 9.1 allows per-tensor weights only; the operator itself takes one "
    "scale for each channel, and documentation of 8.2 allowed it.",
    source=LIMITS,
    remedy="Convert with one dequantization scale and a Mul (the default of `amct_onnx convert`).",
)
def channel_scales(view: ModelView) -> Iterator[Hit]:
    """Gemm or MatMul with one scale for each channel."""
    for layer in view.cubes(*PRODUCTS):
        for node in layer.dequants:
            tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if tensor is not None and tensor.size > 1:
                yield Hit(f"its deq_scale has {tensor.size} elements", view.names[layer.node], tensor.name or "")


@rule(
    id="accumulator",
    severity=WARNING,
    title="Sum beyond int32",
    why="Products are summed in int32; beyond it neither wrapping nor saturation is promised.",
    source="asc-devkit: Mmad",
    remedy="Use fewer input channels, or larger scales for weight and bias.",
)
def accumulator(view: ModelView) -> Iterator[Hit]:
    """A layer whose sum may leave int32; the weight is read only when its size alone does not settle it."""
    for layer in view.cubes():
        terms = _terms_of_activations(layer)
        if terms is not None and terms * INT8_MIN**2 > INT32_MAX:
            yield Hit(f"its sum may reach {terms * INT8_MIN**2:.4g}, int32 ends at {INT32_MAX}", view.names[layer.node])
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


def _terms_of_activations(layer: IntegerLayer) -> int | None:
    """How many products a MatMul of two activations adds; None for other layers, and where no shape says it."""
    if not layer.multiplies_activations or layer.node.op_type != "MatMul":
        return None
    for quant, axis in zip(layer.quants, (-1, -2), strict=True):
        value = quant.inputs[0] if quant is not None and quant.inputs else None
        shape = value.shape if value is not None else None
        if shape is not None and len(shape):
            length = shape[axis if len(shape) > 1 else 0]
            if isinstance(length, int):
                return length
    return None


def _exact_bound(layer: IntegerLayer, reach: float, bias: npt.NDArray[np.float64]) -> float:
    """Largest sum of |weight| over one output channel, times the activation's reach, plus the channel's |bias|."""
    assert layer.weight is not None
    weight, shape, layout = array(layer.weight, most=1 << 40), weight_shape(layer), layout_of(layer.node)
    if weight is None or weight.ndim < 2 or shape is None or layout is None:
        return 0.0
    sums = weight_sums(layout, weight if weight.shape == shape else weight.T)
    reached = (sums.positive + sums.negative) * reach
    return float((reached + (bias if bias.size == reached.size else bias.max())).max())
