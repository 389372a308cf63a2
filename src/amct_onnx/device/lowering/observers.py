"""Extra outputs that show layers and count what their values do."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.device.lowering.lowered import Counters, Tap
from amct_onnx.device.lowering.operators import Quantized
from amct_onnx.device.lowering.state import IntegerLayer, LoweringState


def add_taps(state: LoweringState) -> tuple[Tap, ...]:
    """Make int8 input, int32 accumulator and output of each dequantized layer of the main graph outputs."""
    observed = []
    for layer in state.layers:
        summed = layer.accumulator
        if summed is None or layer.output is None or not _in_main_graph(state, layer):
            continue
        names = [
            _output(state, value)
            for value in (
                state.integers_of(layer.input),
                summed.value if not summed.integral else state.integers_of(summed),
                layer.output,
            )
        ]
        quantizer, moved = layer.input.quantizer, layer.input.moved
        producer = moved[-1] if moved else (quantizer.name or "") if quantizer is not None else ""
        observed.append(Tap(layer.node.name or "", layer.node.op_type, producer, layer.dequantizer, *names))
    return tuple(observed)


def add_counters(state: LoweringState) -> tuple[Counters, ...]:
    """Make what counts ties, saturation and the accumulator's extremes of each layer of the main graph outputs."""
    of_quantizer: dict[ir.Node, list[str]] = {}
    observed = []
    for layer in state.layers:
        summed, quantizer = layer.accumulator, layer.input.quantizer
        if summed is None or not _in_main_graph(state, layer):
            continue
        counts = ["", ""]
        quantized = state.quantized.get(quantizer) if quantizer is not None else None
        if quantizer is not None and quantized is not None:
            if quantizer not in of_quantizer:
                of_quantizer[quantizer] = [_output(state, v) for v in _ties_and_kept(state, quantized)]
            counts = of_quantizer[quantizer]
        producer = summed.value.producer()
        assert producer is not None
        state.edit.after(producer)
        none = [ir.AttrInt64("keepdims", 0)]
        extremes = [_output(state, state.edit.node(op, [summed.value], none)) for op in ("ReduceMax", "ReduceMin")]
        observed.append(Counters(layer.node.name or "", *counts, *extremes))
    return tuple(observed)


def _output(state: LoweringState, value: ir.Value) -> str:
    """Make a value an output; its name."""
    if value.is_graph_output():
        state.edit.at_end()
        value = state.edit.node("Identity", [value])
    state.graph.outputs.append(value)
    return value.name or ""


def _in_main_graph(state: LoweringState, layer: IntegerLayer) -> bool:
    summed = layer.accumulator
    return summed is not None and summed.value.graph is state.graph


def _ties_and_kept(state: LoweringState, quantized: Quantized) -> list[ir.Value]:
    """[is an exact tie, was not clipped], right behind the quantizer so that its stages need not be kept."""
    edit, producer = state.edit, quantized.centred.producer()
    assert producer is not None
    edit.after(producer)
    distance = edit.node("Abs", [edit.node("Sub", [quantized.exact, quantized.rounded])])
    tie = edit.node("Equal", [distance, edit.number(0.5)])
    return [tie, edit.node("Equal", [quantized.rounded, quantized.clipped])]
