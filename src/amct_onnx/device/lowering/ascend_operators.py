"""AscendQuant, AscendDequant and AscendAntiQuant of the graph become the operators of the chip's rules."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Float32
from amct_onnx.device.ascend_arithmetic import unpack_deq_scale
from amct_onnx.device.lowering.node_attributes import lost_offset, quantizer_factors
from amct_onnx.device.lowering.operators import ANTIQUANTIZE, DEQUANTIZE, QUANTIZE
from amct_onnx.device.lowering.state import GE_FLOAT, GE_FLOAT16, Accumulator, Int8Tensor, LoweringState
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute


def lower_quant(state: LoweringState, node: ir.Node) -> None:
    """AscendQuant: its result is held in centred form."""
    kind = attribute(node, "dst_type", "INT8").rstrip(" ")
    if kind in ("INT4", "INT16"):
        raise UnsupportedModelError(
            f"Node '{node.name}': dst_type {kind} is not simulated, only INT8 is. Quantize the layer to 8 bits."
        )
    mode = attribute(node, "round_mode", "Round")
    if mode != "Round":
        raise UnsupportedModelError(
            f"Node '{node.name}': round_mode '{mode}' is not simulated, only Round is. Leave round_mode out."
        )
    scale, offset = quantizer_factors(node)
    state.warnings += lost_offset(node)
    x = state.as_float32(_source(node))
    stages = QUANTIZE[state.profile.quantize](state.edit, x, scale, offset, _flag(node, "sqrt_mode"))
    state.quantized[node] = stages
    state.int8[node.outputs[0]] = Int8Tensor(stages.centred, offset, node)
    state.replaced.append(node)


def lower_dequant(state: LoweringState, node: ir.Node) -> None:
    """AscendDequant: its scale belongs to the channels of the layer right before it."""
    value, parameter = _source(node), node.inputs[1] if len(node.inputs) > 1 else None
    if parameter is None or not state.constants.is_constant(parameter):
        raise UnsupportedModelError(
            f"Node '{node.name}' (AscendDequant): its deq_scale must be an initializer; ATC refuses anything else. "
            "Convert the model again."
        )
    packed = state.constants.array(parameter)
    if packed.ndim != 1 or packed.dtype not in (np.uint64, np.float16, np.float32) or not packed.size:
        raise UnsupportedModelError(
            f"Node '{node.name}' (AscendDequant): its deq_scale is {packed.dtype} of shape {list(packed.shape)}; "
            "ATC takes uint64 of shape [1] or [channels]. Convert the model again."
        )
    scale, shift, offset_w = unpack_deq_scale(packed)
    accumulator = state.int32.get(value)
    if accumulator is None:
        accumulator = Accumulator(value, False, None, None)
    layer = accumulator.layer
    if shift.any() or offset_w.any():
        field_name = "a shift N (GE's int16 scheme)" if shift.any() else "offset_w"
        text = f"AscendDequant '{node.name}' carries {field_name}, which is not simulated: the scale alone is applied"
        (layer.warnings if layer is not None else state.warnings).append(text)
    if scale.size > 1:
        scale = _along_channels(scale, accumulator, node)
    source = accumulator.value
    if not accumulator.in_float:
        source = state.edit.cast(source, ir.DataType.FLOAT)
    result = DEQUANTIZE[state.profile.dequantize](
        state.edit, source, scale, _flag(node, "sqrt_mode"), _flag(node, "relu_flag")
    )
    result = _float_result(state, node, result)
    if layer is not None and layer.output is None:
        layer.dequantizer, layer.output, layer.accumulator = node.name or "", result, accumulator
        layer.deq_scale = (float(scale.min()), float(scale.max()))


def lower_antiquant(state: LoweringState, node: ir.Node) -> None:
    """AscendAntiQuant: its offset may differ from the one that its input is centred on."""
    int8 = state.held_int8(_source(node), node)
    scale, offset = quantizer_factors(node)
    state.warnings += lost_offset(node)
    value = int8.value
    if offset != int8.offset:
        value = state.edit.node("Add", [value, state.edit.number(int8.offset - offset)])
    result = ANTIQUANTIZE[state.profile.antiquantize](state.edit, value, scale, _flag(node, "sqrt_mode"))
    _float_result(state, node, result)


def _source(node: ir.Node) -> ir.Value:
    value = node.inputs[0] if node.inputs else None
    if value is None:
        raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}) has no input. Write the model again.")
    return value


def _flag(node: ir.Node, name: str) -> bool:
    return attribute(node, name, 0) != 0


def _along_channels(scale: Float32, accumulator: Accumulator, node: ir.Node) -> Float32:
    """The scales in a shape that broadcasts against the accumulator."""
    axis, layer = accumulator.axis, accumulator.layer
    if axis is None or layer is None:
        raise UnsupportedModelError(
            f"Node '{node.name}' (AscendDequant): {scale.size} scales, but no Conv, ConvTranspose, Gemm or MatMul "
            "stands right before it that says which axis they belong to. Put it directly behind its layer."
        )
    if layer.sums is not None and layer.sums.positive.size not in (1, scale.size):
        raise UnsupportedModelError(
            f"Node '{node.name}' (AscendDequant): {scale.size} scales for {layer.sums.positive.size} output "
            f"channels of '{layer.node.name}'. Write the model again."
        )
    if axis == -1:
        return scale
    return scale.reshape([-1] + [1] * (layer.rank - 2))


def _float_result(state: LoweringState, node: ir.Node, result: ir.Value) -> ir.Value:
    """Put the result in the place of the node's, in the type that its ``dtype`` asks for."""
    kind = attribute(node, "dtype", GE_FLOAT)
    if kind not in (GE_FLOAT, GE_FLOAT16):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): dtype {kind} is not simulated, only 0 (float) and 1 (float16) are. "
            "Write it as one of these."
        )
    if kind == GE_FLOAT16:
        result = state.edit.cast(result, ir.DataType.FLOAT16)
    old = node.outputs[0]
    if old.is_graph_output():
        name = old.name
        old.name = state.edit.unique(f"{name}:replaced")
        result.name, result.shape = name, old.shape
    # also when the file declares another type for a graph output
    result.type = ir.TensorType(ir.DataType.FLOAT if kind == GE_FLOAT else ir.DataType.FLOAT16)
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    state.replaced.append(node)
    return result
