"""Rules on the attributes and inputs of AscendQuant, AscendDequant and AscendAntiQuant, as the plugins read them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.common.arithmetic import FLOAT16_MAX, FLOAT16_TINY
from amct_onnx.common.counted import counted
from amct_onnx.graph.attributes import attribute
from amct_onnx.verbs.check.model_view import (
    ANTIQUANT,
    ASCEND,
    DEQUANT,
    QUANT,
    ModelView,
    attribute_type,
    float_attribute,
)
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import ANTIQUANT_PLUGIN, HOST_OPS, PARSER

QUANT_PLUGIN = "ops-nn: quant/ascend_quant/framework/ascend_quant_onnx_plugin.cpp"
DEQUANT_PLUGIN = "ops-nn: quant/ascend_dequant/framework/ascend_dequant_onnx_plugin.cpp"
DST_TYPES = ("INT8", "INT4", "INT16")
MEANT_AS_INT8 = ("", "INT8")
"""In any case of letters: what the plugin makes of them is what they mean."""
GE_FLOAT, GE_FLOAT16, GE_BFLOAT16 = 0, 1, 27
OPTIONS = {
    QUANT: {"round_mode": ir.AttributeType.STRING, "sqrt_mode": ir.AttributeType.INT},
    DEQUANT: {"sqrt_mode": ir.AttributeType.INT, "relu_flag": ir.AttributeType.INT},
    ANTIQUANT: {"sqrt_mode": ir.AttributeType.INT},
}
"""Attributes that may be missing, and the type in which the plugins read them."""


def _flag(node: ir.Node, name: str) -> bool:
    return attribute(node, name, 0) != 0


def _dst_type(node: ir.Node) -> str:
    """dst_type as the plugin reads it: without trailing blanks."""
    return attribute(node, "dst_type", "").rstrip(" ")


@rule(
    id="quant-scale-lost",
    severity=ERROR,
    title="Scale that the plugin does not take",
    why="The plugin takes scale only as a FLOAT attribute; anything else silently becomes 0.0 and the output constant.",
    source=f"{QUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
    remedy="Write scale as a FLOAT attribute (AscendQuant: 1/scale_d, AscendAntiQuant: scale_d).",
)
def scale_lost(view: ModelView) -> Iterator[Hit]:
    """Scale absent or not FLOAT."""
    for node in view.nodes(QUANT, ANTIQUANT):
        kind = attribute_type(node, "scale")
        if kind != ir.AttributeType.FLOAT:
            yield Hit("it has no scale" if kind is None else f"its scale is stored as {kind.name}", view.names[node])


@rule(
    id="quant-offset-lost",
    severity=ERROR,
    title="Offset that the plugin does not take",
    why="The plugin takes offset only as a FLOAT attribute; an INT one silently becomes 0.0.",
    source=f"{QUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
    remedy="Write offset as a FLOAT attribute, although it is an integer.",
)
def offset_lost(view: ModelView) -> Iterator[Hit]:
    """Offset not FLOAT."""
    for node in view.nodes(QUANT, ANTIQUANT):
        kind = attribute_type(node, "offset")
        if kind not in (None, ir.AttributeType.FLOAT):
            yield Hit(f"its offset is stored as {kind.name if kind else ''}", view.names[node])


@rule(
    id="quant-offset-absent",
    severity=WARNING,
    title="Offset not written",
    why="A missing offset becomes 0.0 without a message.",
    source=f"{QUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
    remedy="Write offset even when it is 0.",
)
def offset_absent(view: ModelView) -> Iterator[Hit]:
    """Offset absent."""
    for node in view.nodes(QUANT, ANTIQUANT):
        if attribute_type(node, "offset") is None:
            yield Hit("it has no offset", view.names[node])


@rule(
    id="quant-scale-value",
    severity=ERROR,
    title="Unusable scale",
    why="The scale is multiplied: zero makes the output constant, and nothing checks for infinity, NaN or sign.",
    source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
    remedy="Calibrate the quantizer again.",
)
def scale_value(view: ModelView) -> Iterator[Hit]:
    """Scale zero, negative, infinite or NaN."""
    for node in view.nodes(QUANT, ANTIQUANT):
        scale = float_attribute(node, "scale")
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            yield Hit(f"its scale is {scale}", view.names[node])


@rule(
    id="quant-scale-range",
    severity=WARNING,
    title="Scale outside float16's normal range",
    why="The product multiplies in float16. GE replaces such a scale of AscendQuant by its square root, applied "
    "twice; float16 products are at their edge there.",
    source=f"{HOST_OPS} (DealQauntNotRequant); ops-nn: quant/ascend_quant/tests/assets/golden.py",
    remedy="Train with a range for which scale_d and 1/scale_d lie between 2^-14 and 65504.",
    chips=lambda p: p.float16_chain,
)
def scale_range(view: ModelView) -> Iterator[Hit]:
    """Scale outside float16's normal range."""
    for node in view.nodes(QUANT, ANTIQUANT):
        scale = float_attribute(node, "scale")
        if scale is not None and math.isfinite(scale) and scale > 0 and not FLOAT16_TINY <= scale <= FLOAT16_MAX:
            yield Hit(f"its scale is {scale:.9g}, float16's normal range is 2^-14 to 65504", view.names[node])


@rule(
    id="quant-offset-value",
    severity=ERROR,
    title="Offset that is not an int8 integer",
    why="The quantization passes copy the offset to the layer as int8; a fraction or a larger number is lost there "
    "while AscendQuant itself uses it in full.",
    source="older fusion engine: BiasOptimizeQuantRollbackBase (SetQuantParameters)",
    remedy="Write the zero point in int8 range (a uint8 zero point minus 128).",
)
def offset_value(view: ModelView) -> Iterator[Hit]:
    """Offset that is not an integer of the int8 range."""
    for node in view.nodes(QUANT, ANTIQUANT):
        offset = float_attribute(node, "offset")
        if offset is None or _dst_type(node) == "INT16":
            continue
        low, high = (-8, 7) if _dst_type(node) == "INT4" else (-128, 127)
        if not (math.isfinite(offset) and offset == math.floor(offset) and low <= offset <= high):
            yield Hit(f"its offset is {offset}, not an integer from {low} to {high}", view.names[node])


@rule(
    id="quant-dst-type",
    severity=ERROR,
    title="dst_type that the plugin does not know",
    why="Only the strings INT16 and INT4 are recognised; everything else silently means INT8, also UINT8 and int4, "
    "which mean something else.",
    source=QUANT_PLUGIN,
    remedy="Write dst_type='INT8' and shift unsigned factors by -128.",
)
def dst_type_unknown(view: ModelView) -> Iterator[Hit]:
    """dst_type that the plugin does not know."""
    for node in view.nodes(QUANT):
        kind = attribute_type(node, "dst_type")
        if kind is None:
            continue
        if kind != ir.AttributeType.STRING:
            yield Hit(f"its dst_type is stored as {kind.name}", view.names[node])
        elif _dst_type(node) not in DST_TYPES and _dst_type(node).upper() not in MEANT_AS_INT8:
            yield Hit(f"its dst_type is '{attribute(node, 'dst_type', '')}'", view.names[node])


@rule(
    id="quant-int16",
    severity=ERROR,
    title="int16 activations",
    why="int16 is only meaningful on products of the nano class.",
    source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
    remedy="Quantize the activation to 8 bits.",
)
def dst_type_int16(view: ModelView) -> Iterator[Hit]:
    """dst_type INT16."""
    for node in view.nodes(QUANT):
        if _dst_type(node) == "INT16":
            yield Hit("its dst_type is INT16", view.names[node])


@rule(
    id="int4",
    severity=WARNING,
    title="int4",
    why="Outside 950, int4 needs the formats NC1HWC0 or FRACTAL_NZ, a static shape and an even last dimension, "
    "or is not established at all.",
    source="ops-nn: quant/ascend_quant; ge: tests/.../aic-ascend910b-ops-info-legacy.json",
    remedy="Store 4-bit weights as int8; quantize activations to 8 bits.",
    chips=lambda p: p.int4 != "ND as well",
)
def int4(view: ModelView) -> Iterator[Hit]:
    """4-bit activations or weights."""
    for node in view.nodes(QUANT):
        if _dst_type(node) == "INT4":
            yield Hit("its dst_type is INT4", view.names[node])
    for layer in view.layers:
        if layer.weight is not None and layer.weight.dtype == ir.DataType.INT4:
            yield Hit("its weight is INT4", view.names[layer.node], layer.weight.name or "")


@rule(
    id="compiler-flag",
    severity=WARNING,
    title="sqrt_mode or relu_flag in the file",
    why="GE's passes set these flags themselves. In the file sqrt_mode applies the scale twice, where a pass does not "
    "overwrite it, and a negative scale becomes NaN; relu_flag adds a Relu.",
    source=HOST_OPS,
    remedy="Leave the attribute out; keep Relu as a node.",
)
def square_root_mode(view: ModelView) -> Iterator[Hit]:
    """sqrt_mode or relu_flag set in the file."""
    for node in view.nodes(*ASCEND):
        for name in ("sqrt_mode", "relu_flag"):
            if _flag(node, name):
                yield Hit(f"{name} is set", view.names[node])


@rule(
    id="dequant-sqrt-vector",
    severity=ERROR,
    title="sqrt_mode beside a uint64 deq_scale",
    why="The vector dequantization of the product takes a uint64 deq_scale only without sqrt_mode.",
    source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
    remedy="Leave sqrt_mode out and store the scale itself.",
    chips=lambda p: p.vector_dequant,
)
def square_root_vector(view: ModelView) -> Iterator[Hit]:
    """sqrt_mode beside a uint64 deq_scale."""
    for node, scale in view.deq_scales:
        if _flag(node, "sqrt_mode") and scale.dtype == ir.DataType.UINT64:
            yield Hit("sqrt_mode is set and deq_scale is UINT64", view.names[node])


@rule(
    id="quant-rounding",
    severity=WARNING,
    title="Rounding other than to nearest",
    why="ONNX rounds to nearest, ties to even, which is Round; the other modes change every second value by one step.",
    source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
    remedy="Leave round_mode out.",
)
def rounding(view: ModelView) -> Iterator[Hit]:
    """A round_mode other than Round."""
    for node in view.nodes(QUANT):
        mode = attribute(node, "round_mode", "Round")
        if mode != "Round":
            yield Hit(f"its round_mode is '{mode}'", view.names[node])


@rule(
    id="option-type",
    severity=WARNING,
    title="Option stored in another type",
    why="The plugin takes round_mode only as STRING and looks at the integer of sqrt_mode and relu_flag: one "
    "stored otherwise has no effect, without a message.",
    source=f"{QUANT_PLUGIN}; {DEQUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
    remedy="Leave the attribute out.",
)
def option_lost(view: ModelView) -> Iterator[Hit]:
    """An option that is stored in another type than the plugin reads."""
    for node in view.nodes(*ASCEND):
        for name, stored in OPTIONS[node.op_type].items():
            kind = attribute_type(node, name)
            if kind not in (None, stored):
                yield Hit(f"its {name} is stored as {kind.name if kind else ''}", view.names[node])


@rule(
    id="result-type",
    severity=ERROR,
    title="dtype of another table than GE's",
    why="dtype is an INT of GE's own table (0 float, 1 float16, 27 bfloat16), not of ONNX, where float16 is 10.",
    source=f"{DEQUANT_PLUGIN}; {ANTIQUANT_PLUGIN}",
    remedy="Write dtype=0 for float32 or 1 for float16.",
)
def result_type(view: ModelView) -> Iterator[Hit]:
    """A dtype that is not a number of GE's table, or not stored as INT."""
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


@rule(
    id="result-bfloat16",
    severity=WARNING,
    title="AscendDequant to bfloat16",
    why="AscendDequant writes float16 on every product, also on 950; that a cast to bfloat16 is put behind it is not "
    "established.",
    source="ops-nn: quant/ascend_dequant/op_host/ascend_dequant_def.cpp; ge: tests/.../"
    "aic-ascend910b-ops-info-legacy.json",
    remedy="Write dtype=0 or 1.",
)
def result_bfloat16(view: ModelView) -> Iterator[Hit]:
    """AscendDequant to bfloat16."""
    for node in view.nodes(DEQUANT):
        if attribute(node, "dtype", GE_FLOAT) == GE_BFLOAT16:
            yield Hit("its dtype is 27, bfloat16", view.names[node])


@rule(
    id="ascend-inputs",
    severity=ERROR,
    title="Ascend operator with wrong inputs",
    why="AscendQuant and AscendAntiQuant have one input, AscendDequant has two: the int32 result and deq_scale. At an "
    "input too many the parser stops since 2026-08-19 (E19999); 9.1 and earlier drop it without a message.",
    source=f"ops-nn: quant/*/op_graph; {PARSER} (SetOperatorInputs)",
    remedy="Write the inputs that the operator has.",
)
def input_count(view: ModelView) -> Iterator[Hit]:
    """An Ascend operator with too few or too many inputs."""
    for node in view.nodes(*ASCEND):
        expected = 2 if node.op_type == DEQUANT else 1
        given = sum(v is not None for v in node.inputs)
        if given != expected or len(node.inputs) != expected:
            empty = len(node.inputs) - given
            found = f"{counted(len(node.inputs), 'input')}{f', {empty} of them empty' if empty else ''}"
            yield Hit(f"{node.op_type} has {found}, {expected} expected", view.names[node])


@rule(
    id="quant-input-type",
    severity=ERROR,
    title="AscendQuant of a tensor that is not float",
    why="The operator takes float32 and float16.",
    source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
    remedy="Cast the tensor to float32 in front.",
)
def quant_input_type(view: ModelView) -> Iterator[Hit]:
    """AscendQuant of a tensor that is known to be neither float32 nor float16."""
    for node in view.nodes(QUANT):
        value = node.inputs[0] if node.inputs else None
        if value is not None and value.dtype not in (None, ir.DataType.FLOAT, ir.DataType.FLOAT16):
            yield Hit(f"its input is {value.dtype.name}", view.names[node], value.name or "")
