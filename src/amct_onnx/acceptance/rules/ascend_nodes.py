"""Rules on the attributes and parameters of AscendQuant, AscendDequant and AscendAntiQuant themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.acceptance.model_view import (
    ANTIQUANT,
    ASCEND,
    DEQUANT,
    QUANT,
    ModelView,
    array,
    attribute,
    attribute_type,
    constant,
    source_of,
)
from amct_onnx.acceptance.products import CHECKED, Product
from amct_onnx.acceptance.report import ERROR, NOTE, WARNING
from amct_onnx.acceptance.rule import Hit, Rule
from amct_onnx.arithmetic import FLOAT16_TINY

QUANT_PLUGIN = "ops-nn: quant/ascend_quant/framework/ascend_quant_onnx_plugin.cpp"
DEQUANT_PLUGIN = "ops-nn: quant/ascend_dequant/framework/ascend_dequant_onnx_plugin.cpp"
ANTIQUANT_PLUGIN = "ops-nn: quant/ascend_anti_quant/framework/ascend_anti_quant_onnx_plugin.cpp"
HOST_OPS = "ge: quant_pass/quant_host_cpu_op_common.cc"
FLOAT16_MAX = 65504.0
SQUARE_ROOT_TINY = FLOAT16_TINY**2
"""Below it even the square root leaves float16's normal range."""
DST_TYPES = ("INT8", "INT4", "INT16")
GE_FLOAT, GE_FLOAT16, GE_BFLOAT16 = 0, 1, 27
RECIPROCAL_TOLERANCE = 1e-6
"""Relative; a float32 reciprocal times its scale is within one or two units of 2^-23 of 1."""


def _number(node: ir.Node, name: str) -> float | None:
    """A FLOAT attribute, as the plugin takes it; None when it is absent or of another type."""
    return attribute(node, name, 0.0) if attribute_type(node, name) == ir.AttributeType.FLOAT else None


def _flag(node: ir.Node, name: str) -> bool:
    return attribute(node, name, 0) != 0


def _dst_type(node: ir.Node) -> str:
    """dst_type as the plugin reads it: without trailing blanks."""
    return attribute(node, "dst_type", "").rstrip(" ")


def scale_lost(view: ModelView) -> Iterator[Hit]:
    """Scale absent or not FLOAT."""
    for node in view.nodes(QUANT, ANTIQUANT):
        kind = attribute_type(node, "scale")
        if kind != ir.AttributeType.FLOAT:
            yield Hit("it has no scale" if kind is None else f"its scale is stored as {kind.name}", view.names[node])


def offset_lost(view: ModelView) -> Iterator[Hit]:
    """Offset not FLOAT."""
    for node in view.nodes(QUANT, ANTIQUANT):
        kind = attribute_type(node, "offset")
        if kind not in (None, ir.AttributeType.FLOAT):
            yield Hit(f"its offset is stored as {kind.name if kind else ''}", view.names[node])


def offset_absent(view: ModelView) -> Iterator[Hit]:
    """Offset absent."""
    for node in view.nodes(QUANT, ANTIQUANT):
        if attribute_type(node, "offset") is None:
            yield Hit("it has no offset", view.names[node])


def scale_value(view: ModelView) -> Iterator[Hit]:
    """Scale zero, negative, infinite or NaN."""
    for node in view.nodes(QUANT, ANTIQUANT):
        scale = _number(node, "scale")
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            yield Hit(f"its scale is {scale}", view.names[node])


def scale_range(view: ModelView) -> Iterator[Hit]:
    """Scale outside float16's normal range."""
    for node in view.nodes(QUANT, ANTIQUANT):
        scale = _number(node, "scale")
        if scale is not None and math.isfinite(scale) and scale > 0 and not FLOAT16_TINY <= scale <= FLOAT16_MAX:
            yield Hit(f"its scale is {scale:.9g}, float16's normal range is 2^-14 to 65504", view.names[node])


def offset_value(view: ModelView) -> Iterator[Hit]:
    """Offset that is no integer of the int8 range."""
    for node in view.nodes(QUANT, ANTIQUANT):
        offset = _number(node, "offset")
        if offset is None or _dst_type(node) == "INT16":
            continue
        low, high = (-8, 7) if _dst_type(node) == "INT4" else (-128, 127)
        if not (math.isfinite(offset) and offset == math.floor(offset) and low <= offset <= high):
            yield Hit(f"its offset is {offset}, not an integer from {low} to {high}", view.names[node])


def dst_type_unknown(view: ModelView) -> Iterator[Hit]:
    """dst_type that the plugin does not know."""
    for node in view.nodes(QUANT):
        kind = attribute_type(node, "dst_type")
        if kind is None:
            continue
        if kind != ir.AttributeType.STRING:
            yield Hit(f"its dst_type is stored as {kind.name}", view.names[node])
        elif _dst_type(node) not in DST_TYPES:
            yield Hit(f"its dst_type is '{attribute(node, 'dst_type', '')}'", view.names[node])


def dst_type_int16(view: ModelView) -> Iterator[Hit]:
    """dst_type INT16."""
    for node in view.nodes(QUANT):
        if _dst_type(node) == "INT16":
            yield Hit("its dst_type is INT16", view.names[node])


def int4(view: ModelView) -> Iterator[Hit]:
    """4-bit activations or weights."""
    for node in view.nodes(QUANT):
        if _dst_type(node) == "INT4":
            yield Hit("its dst_type is INT4", view.names[node])
    for layer in view.layers:
        if layer.weight is not None and layer.weight.dtype == ir.DataType.INT4:
            yield Hit("its weight is INT4", view.names[layer.node], layer.weight.name or "")


def square_root_mode(view: ModelView) -> Iterator[Hit]:
    """sqrt_mode or relu_flag set in the file."""
    for node in view.nodes(*ASCEND):
        for name in ("sqrt_mode", "relu_flag"):
            if _flag(node, name):
                yield Hit(f"{name} is set", view.names[node])


def square_root_vector(view: ModelView) -> Iterator[Hit]:
    """sqrt_mode beside a uint64 deq_scale."""
    for node, scale in _scales(view):
        if _flag(node, "sqrt_mode") and scale.dtype == ir.DataType.UINT64:
            yield Hit("sqrt_mode is set and deq_scale is UINT64", view.names[node])


def rounding(view: ModelView) -> Iterator[Hit]:
    """A round_mode other than Round."""
    for node in view.nodes(QUANT):
        mode = attribute(node, "round_mode", "Round")
        if mode != "Round":
            yield Hit(f"its round_mode is '{mode}'", view.names[node])


def result_type(view: ModelView) -> Iterator[Hit]:
    """A dtype that is no number of GE's table, or is not stored as INT."""
    for node in view.nodes(DEQUANT, ANTIQUANT):
        kind = attribute_type(node, "dtype")
        if kind is None:
            continue
        value = attribute(node, "dtype", GE_FLOAT)
        allowed = (GE_FLOAT, GE_FLOAT16, GE_BFLOAT16) if node.op_type == DEQUANT else (GE_FLOAT, GE_FLOAT16)
        if kind != ir.AttributeType.INT:
            yield Hit(f"its dtype is stored as {kind.name}", view.names[node])
        elif value not in allowed:
            yield Hit(f"its dtype is {value}; {', '.join(map(str, allowed))} are meant", view.names[node])


def result_bfloat16(view: ModelView) -> Iterator[Hit]:
    """AscendDequant to bfloat16."""
    for node in view.nodes(DEQUANT):
        if attribute(node, "dtype", GE_FLOAT) == GE_BFLOAT16:
            yield Hit("its dtype is 27, bfloat16", view.names[node])


def input_count(view: ModelView) -> Iterator[Hit]:
    """An Ascend operator with too few or too many inputs."""
    for node in view.nodes(*ASCEND):
        expected = 2 if node.op_type == DEQUANT else 1
        given = sum(v is not None for v in node.inputs)
        if given != expected or len(node.inputs) != expected:
            yield Hit(f"{node.op_type} has {given} inputs, {expected} expected", view.names[node])


def _scales(view: ModelView) -> Iterator[tuple[ir.Node, ir.TensorProtocol]]:
    for node in view.nodes(DEQUANT):
        tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if tensor is not None:
            yield node, tensor


def _packed(view: ModelView) -> Iterator[tuple[ir.Node, str, npt.NDArray[Any]]]:
    """The uint64 elements of every readable deq_scale."""
    for node, tensor in _scales(view):
        values = array(tensor) if tensor.dtype == ir.DataType.UINT64 else None
        if values is not None:
            yield node, tensor.name or "", values.reshape(-1).astype(np.uint64)


def _float_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return (values & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)


def deq_scale_variable(view: ModelView) -> Iterator[Hit]:
    """deq_scale fed by a node."""
    for node in view.nodes(DEQUANT):
        if len(node.inputs) > 1 and node.inputs[1] is not None and constant(node.inputs[1]) is None:
            producer = node.inputs[1].producer()
            what = producer.op_type if producer is not None else "a graph input"
            yield Hit(f"its deq_scale comes from {what}", view.names[node], node.inputs[1].name or "")


def deq_scale_rank(view: ModelView) -> Iterator[Hit]:
    """deq_scale that is not 1-D."""
    for node, tensor in _scales(view):
        if len(tensor.shape) != 1:
            shape = list(tensor.shape)
            yield Hit(f"its deq_scale has shape {shape}", view.names[node], tensor.name or "")


def deq_scale_length(view: ModelView) -> Iterator[Hit]:
    """deq_scale whose length is neither 1 nor the number of output channels."""
    for layer in view.layers:
        channels = layer.channels
        for node in layer.dequants:
            tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if tensor is not None and channels is not None and tensor.size not in (1, channels):
                detail = f"its deq_scale has {tensor.size} elements, the layer {channels} output channels"
                yield Hit(detail, view.names[node], tensor.name or "")


def deq_scale_type(view: ModelView) -> Iterator[Hit]:
    """deq_scale of an element type that the operator does not take."""
    for node, tensor in _scales(view):
        if tensor.dtype not in (ir.DataType.UINT64, ir.DataType.FLOAT16):
            yield Hit(f"its deq_scale is {tensor.dtype.name}", view.names[node], tensor.name or "")


def deq_scale_float16(view: ModelView) -> Iterator[Hit]:
    """deq_scale stored as float16."""
    for node, tensor in _scales(view):
        if tensor.dtype == ir.DataType.FLOAT16:
            yield Hit("its deq_scale is FLOAT16", view.names[node], tensor.name or "")


def deq_scale_bits(view: ModelView) -> Iterator[Hit]:
    """deq_scale with a shift N, a weight offset or other bits above the scale."""
    for node, name, values in _packed(view):
        high = values >> np.uint64(32)
        if not high.any():
            continue
        channel = int(np.flatnonzero(high)[0])
        bits = int(high[channel])
        parts = [f"shift N = {bits & 0xFF}"] * bool(bits & 0xFF)
        parts += [f"offset_w = {bits >> 8 & 0xFF}"] * bool(bits >> 8 & 0xFF)
        parts += ["bits 63..48 set"] * bool(bits >> 16)
        yield Hit(f"element {channel} of its deq_scale has {', '.join(parts)}", view.names[node], name)


def deq_scale_value(view: ModelView) -> Iterator[Hit]:
    """deq_scale zero, negative, infinite or NaN."""
    for node, name, values in _packed(view):
        scales = _float_bits(values)
        bad = np.flatnonzero(~(np.isfinite(scales) & (scales > 0)))
        if bad.size:
            yield Hit(f"element {bad[0]} of its deq_scale is {scales[bad[0]]}", view.names[node], name)


def deq_scale_float16_range(view: ModelView) -> Iterator[Hit]:
    """deq_scale that float16 cannot hold, even as a square root."""
    for node, name, values in _packed(view):
        scales = _float_bits(values).astype(np.float64)
        bad = np.flatnonzero((scales > FLOAT16_MAX) | ((scales > 0) & (scales < SQUARE_ROOT_TINY)))
        if bad.size:
            yield Hit(f"element {bad[0]} of its deq_scale is {scales[bad[0]]:.9g}", view.names[node], name)


def deq_scale_square_root(view: ModelView) -> Iterator[Hit]:
    """deq_scale that is applied twice as a square root, one finding for the model."""
    found = [
        (node, name)
        for node, name, values in _packed(view)
        if ((scales := _float_bits(values).astype(np.float64)) < FLOAT16_TINY).any() and (scales > 0).all()
    ]
    if found:
        detail = f"{len(found)} deq_scale constants hold values below 2^-14; the first is this one"
        yield Hit(detail, view.names[found[0][0]], found[0][1])


def antiquant_factors(view: ModelView) -> Iterator[Hit]:
    """AscendAntiQuant whose factors are not those of the AscendQuant in front."""
    for node in view.nodes(ANTIQUANT):
        quant, _ = source_of(node.inputs[0] if node.inputs else None, QUANT)
        if quant is None:
            continue
        ours, theirs = _number(node, "offset") or 0.0, _number(quant, "offset") or 0.0
        back, there = _number(node, "scale"), _number(quant, "scale")
        if ours != theirs:
            yield Hit(f"its offset is {ours:g}, that of '{view.names[quant]}' is {theirs:g}", view.names[node])
        elif back and there and abs(back * there - 1) > RECIPROCAL_TOLERANCE:
            yield Hit(f"its scale {back:.9g} is not 1/{there:.9g} of '{view.names[quant]}'", view.names[node])


def quant_input_type(view: ModelView) -> Iterator[Hit]:
    """AscendQuant of a tensor that is known to be neither float32 nor float16."""
    for node in view.nodes(QUANT):
        value = node.inputs[0] if node.inputs else None
        if value is not None and value.dtype not in (None, ir.DataType.FLOAT, ir.DataType.FLOAT16):
            yield Hit(f"its input is {value.dtype.name}", view.names[node], value.name or "")


def float16_chain(view: ModelView) -> Iterator[Hit]:
    """AscendQuant on a product that computes it in float16, one finding for the model."""
    nodes = list(view.nodes(QUANT))
    if nodes:
        yield Hit(f"{len(nodes)} AscendQuant nodes; the first is this one", view.names[nodes[0]])


def _float16(product: Product) -> bool:
    return product.float16_chain


def _shape_checked(product: Product) -> bool:
    return product.deq_scale_shape == CHECKED


def _shape_unchecked(product: Product) -> bool:
    return product.deq_scale_shape != CHECKED


def _int4_limited(product: Product) -> bool:
    return product.int4 != "ND as well"


def _float16_scale(product: Product) -> bool:
    return product.float16_deq_scale


_SHAPE_WHY = (
    "JudgeQuantMode wants a 1-D constant directly at the operator and stops the compile with a parameter error."
)
_SHAPE_WHY_NOT = (
    "The current compiler does not check this on the product, older ones did on every product, and the quantization "
    "passes expect a 1-D constant."
)
_SHAPE_SOURCE = "ge: nn_engine/.../graph_fusion.cc (JudgeQuantMode); older fusion engine (JudgeDeqscaleShape)"
_SHAPE_REMEDY = (
    "Store deq_scale as a UINT64 initializer of shape [1] or [output channels] that feeds the node directly."
)

RULES = (
    Rule(
        id="quant-scale-lost",
        severity=ERROR,
        title="Scale that the plugin does not take",
        why="The plugin takes scale only as a FLOAT attribute; anything else silently becomes 0.0 and the output "
        "constant.",
        source=f"{QUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
        remedy="Write scale as a FLOAT attribute (AscendQuant: 1/scale_d, AscendAntiQuant: scale_d).",
        find=scale_lost,
    ),
    Rule(
        id="quant-offset-lost",
        severity=ERROR,
        title="Offset that the plugin does not take",
        why="The plugin takes offset only as a FLOAT attribute; an INT one silently becomes 0.0.",
        source=f"{QUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
        remedy="Write offset as a FLOAT attribute, although it is an integer.",
        find=offset_lost,
    ),
    Rule(
        id="quant-offset-absent",
        severity=WARNING,
        title="Offset not written",
        why="A missing offset becomes 0.0 without a message.",
        source=f"{QUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
        remedy="Write offset even when it is 0.",
        find=offset_absent,
    ),
    Rule(
        id="quant-scale-value",
        severity=ERROR,
        title="Unusable scale",
        why="The scale is multiplied: zero makes the output constant, and nothing checks for infinity, NaN or sign.",
        source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
        remedy="Calibrate the quantizer again.",
        find=scale_value,
    ),
    Rule(
        id="quant-scale-range",
        severity=WARNING,
        title="Scale outside float16's normal range",
        why="The product multiplies in float16. GE replaces such a scale of AscendQuant by its square root, applied "
        "twice; float16 products are at their edge there.",
        source=f"{HOST_OPS} (DealQauntNotRequant); ops-nn: quant/ascend_quant/tests/assets/golden.py",
        remedy="Train with a range for which scale_d and 1/scale_d lie between 2^-14 and 65504.",
        find=scale_range,
        products=_float16,
    ),
    Rule(
        id="quant-offset-value",
        severity=ERROR,
        title="Offset that is no int8 integer",
        why="The quantization passes copy the offset to the layer as int8; a fraction or a larger number is lost there "
        "while AscendQuant itself uses it in full.",
        source="older fusion engine: BiasOptimizeQuantRollbackBase (SetQuantParameters)",
        remedy="Write the zero point in int8 range (a uint8 zero point minus 128).",
        find=offset_value,
    ),
    Rule(
        id="quant-dst-type",
        severity=ERROR,
        title="dst_type that the plugin does not know",
        why="Only the strings INT16 and INT4 are recognised; everything else, UINT8 and int4 included, silently "
        "means INT8.",
        source=QUANT_PLUGIN,
        remedy="Write dst_type='INT8' and shift unsigned factors by -128.",
        find=dst_type_unknown,
    ),
    Rule(
        id="quant-int16",
        severity=ERROR,
        title="int16 activations",
        why="int16 is only meaningful on products of the nano class.",
        source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
        remedy="Quantize the activation to 8 bits.",
        find=dst_type_int16,
    ),
    Rule(
        id="int4",
        severity=WARNING,
        title="int4",
        why="Outside 950, int4 needs the formats NC1HWC0 or FRACTAL_NZ, a static shape and an even last dimension, "
        "or is not established at all.",
        source="ops-nn: quant/ascend_quant; ge: tests/.../aic-ascend910b-ops-info-legacy.json",
        remedy="Store 4-bit weights as int8; quantize activations to 8 bits.",
        find=int4,
        products=_int4_limited,
    ),
    Rule(
        id="compiler-flag",
        severity=WARNING,
        title="sqrt_mode or relu_flag in the file",
        why="GE's passes set these flags themselves; in the file sqrt_mode applies the scale twice and relu_flag "
        "adds a Relu.",
        source=HOST_OPS,
        remedy="Leave the attribute out; keep Relu as a node.",
        find=square_root_mode,
    ),
    Rule(
        id="dequant-sqrt-vector",
        severity=ERROR,
        title="sqrt_mode beside a uint64 deq_scale",
        why="The vector dequantization of the product takes a uint64 deq_scale only without sqrt_mode.",
        source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
        remedy="Leave sqrt_mode out and store the scale itself.",
        find=square_root_vector,
        products=lambda p: p.vector_dequant,
    ),
    Rule(
        id="quant-rounding",
        severity=WARNING,
        title="Rounding other than to nearest",
        why="ONNX rounds to nearest, ties to even, which is Round; the other modes change every second value by one "
        "step.",
        source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
        remedy="Leave round_mode out.",
        find=rounding,
    ),
    Rule(
        id="result-type",
        severity=ERROR,
        title="dtype that GE does not mean",
        why="dtype is an INT of GE's own table (0 float, 1 float16, 27 bfloat16), not of ONNX, where float16 is 10.",
        source=f"{DEQUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
        remedy="Write dtype=0 for float32 or 1 for float16.",
        find=result_type,
    ),
    Rule(
        id="result-bfloat16",
        severity=WARNING,
        title="AscendDequant to bfloat16",
        why="The product's AscendDequant writes float16.",
        source="ge: tests/.../aic-ascend910b-ops-info-legacy.json; ops-nn: quant/ascend_dequant",
        remedy="Write dtype=0 or 1.",
        find=result_bfloat16,
        products=lambda p: not p.bfloat16_dequant,
    ),
    Rule(
        id="ascend-inputs",
        severity=ERROR,
        title="Ascend operator with wrong inputs",
        why="AscendQuant and AscendAntiQuant have one input, AscendDequant has two: the int32 result and deq_scale.",
        source="ops-nn: quant/*/op_graph",
        remedy="Write the inputs that the operator has.",
        find=input_count,
    ),
    Rule(
        id="quant-input-type",
        severity=ERROR,
        title="AscendQuant of something that is no float",
        why="The operator takes float32 and float16.",
        source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
        remedy="Cast the tensor to float32 in front.",
        find=quant_input_type,
    ),
    Rule(
        id="deq-scale-variable",
        severity=ERROR,
        title="deq_scale that is no constant",
        why=_SHAPE_WHY,
        source=_SHAPE_SOURCE,
        remedy=_SHAPE_REMEDY,
        find=deq_scale_variable,
        products=_shape_checked,
    ),
    Rule(
        id="deq-scale-variable-unchecked",
        severity=WARNING,
        title="deq_scale that is no constant",
        why=_SHAPE_WHY_NOT,
        source=_SHAPE_SOURCE,
        remedy=_SHAPE_REMEDY,
        find=deq_scale_variable,
        products=_shape_unchecked,
    ),
    Rule(
        id="deq-scale-rank",
        severity=ERROR,
        title="deq_scale that is not 1-D",
        why=_SHAPE_WHY,
        source=_SHAPE_SOURCE,
        remedy=_SHAPE_REMEDY,
        find=deq_scale_rank,
        products=_shape_checked,
    ),
    Rule(
        id="deq-scale-rank-unchecked",
        severity=WARNING,
        title="deq_scale that is not 1-D",
        why=_SHAPE_WHY_NOT,
        source=_SHAPE_SOURCE,
        remedy=_SHAPE_REMEDY,
        find=deq_scale_rank,
        products=_shape_unchecked,
    ),
    Rule(
        id="deq-scale-length",
        severity=ERROR,
        title="deq_scale of a wrong length",
        why="A 1-D deq_scale belongs to the channel axis of the device's layout: one element, or one for each output "
        "channel.",
        source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
        remedy=_SHAPE_REMEDY,
        find=deq_scale_length,
    ),
    Rule(
        id="deq-scale-type",
        severity=ERROR,
        title="deq_scale of a wrong element type",
        why="The operator takes UINT64 (the bits of a float32) or float16.",
        source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
        remedy="Store the float32 bits of each scale, zero-extended to UINT64.",
        find=deq_scale_type,
    ),
    Rule(
        id="deq-scale-float16",
        severity=ERROR,
        title="float16 deq_scale",
        why="The operator list of the product has AscendDequant with a uint64 deq_scale only.",
        source="ge: tests/.../aic-ascend910b-ops-info-legacy.json",
        remedy="Store the float32 bits of each scale, zero-extended to UINT64.",
        find=deq_scale_float16,
        products=lambda p: p.uint64_deq_scale_only,
    ),
    Rule(
        id="deq-scale-bits",
        severity=ERROR,
        title="deq_scale with bits above the scale",
        why="Bits 39..32 are a shift N, which sends the layer into the int16 scheme; bits 47..40 are the weight's "
        "offset, which must be 0; the rest is reserved.",
        source="ge: quant_pass/quant_host_cpu_op_common.h; older fusion engine (JudgeDeqscaleShape)",
        remedy="Store the float32 bits of each scale, zero-extended to UINT64; quantize weights symmetrically.",
        find=deq_scale_bits,
    ),
    Rule(
        id="deq-scale-value",
        severity=ERROR,
        title="Unusable deq_scale",
        why="The low 32 bits are read as a float32 scale; zero, infinity, NaN and negative numbers are no scale.",
        source="ge: quant_pass/quant_host_cpu_op_common.h",
        remedy="Store the float32 bits of scale_d * scale_w; calibrate again when that product is zero or infinite.",
        find=deq_scale_value,
    ),
    Rule(
        id="deq-scale-float16-range",
        severity=WARNING,
        title="deq_scale outside float16's range",
        why="The product turns deq_scale into float16, as a square root below 2^-14; above 65504 and below 2^-28 "
        "neither is a normal float16.",
        source=HOST_OPS,
        remedy="Train with ranges for which scale_d * scale_w lies between 2^-28 and 65504.",
        find=deq_scale_float16_range,
        products=_float16_scale,
    ),
    Rule(
        id="deq-scale-square-root",
        severity=NOTE,
        title="deq_scale applied as a square root, twice",
        why="The product turns deq_scale into float16 and, below 2^-14, into its square root with sqrt_mode: two "
        "roundings more than a node-by-node evaluation has.",
        source=HOST_OPS,
        remedy="None needed; expect differences of about 2^-10 relative.",
        find=deq_scale_square_root,
        products=_float16_scale,
    ),
    Rule(
        id="antiquant-factors",
        severity=WARNING,
        title="AscendAntiQuant with other factors than AscendQuant",
        why="The plugin flips the offset's sign itself, so that the pair carries the same offset; scales are "
        "reciprocal.",
        source=ANTIQUANT_PLUGIN,
        remedy="Write offset_d in both, 1/scale_d in AscendQuant and scale_d in AscendAntiQuant.",
        find=antiquant_factors,
    ),
    Rule(
        id="float16-chain",
        severity=NOTE,
        title="Activations quantized in float16",
        why="The product rounds input, scale, offset and every intermediate to float16; 1 to 4 % of the integers "
        "differ by one step from a float32 evaluation.",
        source="ops-nn: quant/ascend_quant/tests/assets/golden.py",
        remedy="None needed; compare with that tolerance.",
        find=float16_chain,
        products=_float16,
    ),
)
