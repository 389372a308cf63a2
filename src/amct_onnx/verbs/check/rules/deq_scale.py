"""Rules on AscendDequant's parameter: where it comes from, its shape, type, bits and value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arithmetic import FLOAT16_MAX, FLOAT16_TINY
from amct_onnx.common.counted import counted
from amct_onnx.device.chips import CHECKED, Chip
from amct_onnx.verbs.check.model_view import DEQUANT, ModelView, constant, folded
from amct_onnx.verbs.check.report import ERROR, NOTE, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import HOST_OPS

SQUARE_ROOT_TINY = FLOAT16_TINY**2
"""Below it even the square root leaves float16's normal range."""
_SHAPE_WHY = (
    "JudgeQuantMode wants a 1-D constant and stops the compile with a parameter error. Operators whose only input is a "
    "constant are computed before."
)
_SHAPE_WHY_NOT = (
    "The current compiler does not check this on the product, older ones did on every product, and the quantization "
    "passes expect a 1-D constant."
)
_SHAPE_SOURCE = "ge: nn_engine/.../graph_fusion.cc (JudgeQuantMode); older fusion engine (JudgeDeqscaleShape)"
_SHAPE_REMEDY = (
    "Store deq_scale as a UINT64 initializer of shape [1] or [output channels] that feeds the node directly."
)


def _float_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return (values & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)


def _shape_checked(product: Chip) -> bool:
    return product.deq_scale_shape == CHECKED


def _shape_unchecked(product: Chip) -> bool:
    return product.deq_scale_shape != CHECKED


@rule(
    id="deq-scale-variable",
    severity=ERROR,
    title="deq_scale that is not a constant",
    why=_SHAPE_WHY,
    source=_SHAPE_SOURCE,
    remedy=_SHAPE_REMEDY,
    chips=_shape_checked,
)
@rule(
    id="deq-scale-variable-unchecked",
    severity=WARNING,
    title="deq_scale that is not a constant",
    why=_SHAPE_WHY_NOT,
    source=_SHAPE_SOURCE,
    remedy=_SHAPE_REMEDY,
    chips=_shape_unchecked,
)
def deq_scale_variable(view: ModelView) -> Iterator[Hit]:
    """deq_scale fed by a node."""
    for node in view.nodes(DEQUANT):
        if len(node.inputs) > 1 and node.inputs[1] is not None and folded(node.inputs[1]) is None:
            producer = node.inputs[1].producer()
            what = producer.op_type if producer is not None else "a graph input"
            yield Hit(f"its deq_scale comes from {what}", view.names[node], node.inputs[1].name or "")


@rule(
    id="deq-scale-rank",
    severity=ERROR,
    title="deq_scale that is not 1-D",
    why=_SHAPE_WHY,
    source=_SHAPE_SOURCE,
    remedy=_SHAPE_REMEDY,
    chips=_shape_checked,
)
@rule(
    id="deq-scale-rank-unchecked",
    severity=WARNING,
    title="deq_scale that is not 1-D",
    why=_SHAPE_WHY_NOT,
    source=_SHAPE_SOURCE,
    remedy=_SHAPE_REMEDY,
    chips=_shape_unchecked,
)
def deq_scale_rank(view: ModelView) -> Iterator[Hit]:
    """deq_scale that is not 1-D."""
    for node, tensor in view.deq_scales:
        if len(tensor.shape) != 1:
            shape = list(tensor.shape)
            yield Hit(f"its deq_scale has shape {shape}", view.names[node], tensor.name or "")


@rule(
    id="deq-scale-length",
    severity=ERROR,
    title="deq_scale of a wrong length",
    why="A 1-D deq_scale belongs to the channel axis of the device's layout: one element, or one for each output "
    "channel.",
    source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
    remedy=_SHAPE_REMEDY,
)
def deq_scale_length(view: ModelView) -> Iterator[Hit]:
    """deq_scale whose length is neither 1 nor the number of output channels."""
    for layer in view.layers:
        channels = layer.channels
        for node in layer.dequants:
            tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if tensor is not None and channels is not None and tensor.size not in (1, channels):
                detail = f"its deq_scale has {tensor.size} elements, the layer {counted(channels, 'output channel')}"
                yield Hit(detail, view.names[node], tensor.name or "")


@rule(
    id="deq-scale-type",
    severity=ERROR,
    title="deq_scale of a wrong element type",
    why="The operator takes UINT64 (the bits of a float32) or float16.",
    source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
    remedy="Store the float32 bits of each scale, zero-extended to UINT64.",
)
def deq_scale_type(view: ModelView) -> Iterator[Hit]:
    """deq_scale of an element type that the operator does not take."""
    for node, tensor in view.deq_scales:
        if tensor.dtype not in (ir.DataType.UINT64, ir.DataType.FLOAT16):
            yield Hit(f"its deq_scale is {tensor.dtype.name}", view.names[node], tensor.name or "")


@rule(
    id="deq-scale-float16",
    severity=ERROR,
    title="float16 deq_scale",
    why="910B, A3 and 950 list AscendDequant with a uint64 deq_scale only; on 310P JudgeQuantMode reads it as uint64, "
    "past the end of a float16 constant.",
    source="ge: tests/.../aic-ascend910b-ops-info-legacy.json, graph_fusion.cc (JudgeQuantMode); ops-nn: "
    "quant/ascend_dequant/op_host/ascend_dequant_def.cpp",
    remedy="Store the float32 bits of each scale, zero-extended to UINT64.",
    chips=lambda p: p.uint64_deq_scale_only,
)
def deq_scale_float16(view: ModelView) -> Iterator[Hit]:
    """deq_scale stored as float16."""
    for node, tensor in view.deq_scales:
        if tensor.dtype == ir.DataType.FLOAT16:
            yield Hit("its deq_scale is FLOAT16", view.names[node], tensor.name or "")


@rule(
    id="deq-scale-bits",
    severity=ERROR,
    title="deq_scale with bits above the scale",
    why="Bits 39..32 are a shift N, which sends the layer into the int16 scheme; bits 47..40 are the weight's "
    "offset, which must be 0; the rest is reserved.",
    source="ge: quant_pass/quant_host_cpu_op_common.h; older fusion engine (JudgeDeqscaleShape)",
    remedy="Store the float32 bits of each scale, zero-extended to UINT64; quantize weights symmetrically.",
)
def deq_scale_bits(view: ModelView) -> Iterator[Hit]:
    """deq_scale with a shift N, a weight offset or other bits above the scale."""
    for node, name, values in view.packed_scales:
        high = values >> np.uint64(32)
        if not high.any():
            continue
        channel = int(np.flatnonzero(high)[0])
        bits = int(high[channel])
        parts = [f"shift N = {bits & 0xFF}"] * bool(bits & 0xFF)
        parts += [f"offset_w = {bits >> 8 & 0xFF}"] * bool(bits >> 8 & 0xFF)
        parts += ["bits 63..48 set"] * bool(bits >> 16)
        yield Hit(f"element {channel} of its deq_scale has {', '.join(parts)}", view.names[node], name)


@rule(
    id="deq-scale-value",
    severity=ERROR,
    title="Unusable deq_scale",
    why="The low 32 bits are read as a float32 scale; zero, infinity, NaN and negative numbers are not scales.",
    source="ge: quant_pass/quant_host_cpu_op_common.h",
    remedy="Store the float32 bits of scale_d * scale_w; calibrate again when that product is zero or infinite.",
)
def deq_scale_value(view: ModelView) -> Iterator[Hit]:
    """deq_scale zero, negative, infinite or NaN."""
    for node, name, values in view.packed_scales:
        scales = _float_bits(values)
        bad = np.flatnonzero(~(np.isfinite(scales) & (scales > 0)))
        if bad.size:
            yield Hit(f"element {bad[0]} of its deq_scale is {scales[bad[0]]}", view.names[node], name)


@rule(
    id="deq-scale-float16-range",
    severity=WARNING,
    title="deq_scale outside float16's range",
    why="The product turns deq_scale into float16, as a square root below 2^-14; above 65504 and below 2^-28 "
    "neither is a normal float16.",
    source=HOST_OPS,
    remedy="Train with ranges for which scale_d * scale_w lies between 2^-28 and 65504.",
    chips=lambda p: p.float16_deq_scale,
)
def deq_scale_float16_range(view: ModelView) -> Iterator[Hit]:
    """deq_scale that float16 cannot hold, even as a square root."""
    for node, name, values in view.packed_scales:
        scales = _float_bits(values).astype(np.float64)
        bad = np.flatnonzero((scales > FLOAT16_MAX) | ((scales > 0) & (scales < SQUARE_ROOT_TINY)))
        if bad.size:
            yield Hit(f"element {bad[0]} of its deq_scale is {scales[bad[0]]:.9g}", view.names[node], name)


@rule(
    id="deq-scale-square-root",
    severity=NOTE,
    title="deq_scale applied as a square root, twice",
    why="The product turns deq_scale into float16 and, below 2^-14, into its square root with sqrt_mode: two "
    "roundings more than a node-by-node evaluation has.",
    source=HOST_OPS,
    remedy="None needed; expect differences of about 2^-10 relative.",
    chips=lambda p: p.float16_deq_scale,
)
def deq_scale_square_root(view: ModelView) -> Iterator[Hit]:
    """deq_scale that is applied twice as a square root, one finding for the model."""
    found = [
        (node, name)
        for node, name, values in view.packed_scales
        if ((scales := _float_bits(values).astype(np.float64)) < FLOAT16_TINY).any() and (scales > 0).all()
    ]
    if found:
        detail = f"{len(found)} deq_scale constants hold values below 2^-14; the first is this one"
        yield Hit(detail, view.names[found[0][0]], found[0][1])
