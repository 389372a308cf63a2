"""Lower a deploy graph to standard operators, which onnxruntime runs: a view, nothing is written."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, TopologicalSortPass

from amct_onnx.device.lowering.ascend_operators import lower_antiquant, lower_dequant, lower_quant
from amct_onnx.device.lowering.blocked_layout import DOMAIN
from amct_onnx.device.lowering.integer_layers import lower_layer
from amct_onnx.device.lowering.lowered import Lowered
from amct_onnx.device.lowering.movers import lower_int8_reader, lower_int32_reader
from amct_onnx.device.lowering.observers import add_counters, add_taps
from amct_onnx.device.lowering.state import LoweringState
from amct_onnx.device.profiles import Profile
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.float16_rounding import round_float16_nodes
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.model_kinds import kind_of
from amct_onnx.graph.unused_nodes import remove_unused_nodes

ASCEND = {"AscendQuant": lower_quant, "AscendDequant": lower_dequant, "AscendAntiQuant": lower_antiquant}


def lower(
    model: ir.Model, profile: Profile, *, taps: bool = False, counters: bool = False, integer_kernels: bool = False
) -> Lowered:
    """Lower a deploy model; the given model is used up.

    Args:
        model: with AscendQuant, AscendDequant, AscendAntiQuant in the default domain.
        profile: whose arithmetic the three operators follow.
        taps: let every layer's int8 input, int32 accumulator and output be outputs as well.
        counters: let counts of ties and saturation and the accumulator's extremes be outputs as well.
        integer_kernels: use ConvInteger and MatMulInteger also where float32 is proven exact (a yardstick).

    Raises:
        UnsupportedModelError: Something in it that ATC refuses or that has no public arithmetic.
    """
    if model.functions:
        model = InlinePass()(model).model
    try:
        TopologicalSortPass()(model)
    except ValueError as error:
        raise UnsupportedModelError(
            f"The graph holds a cycle and cannot be sorted ({error}). Write the model again."
        ) from error
    state = LoweringState(model, profile, integer_kernels)
    outputs = tuple(v.name or "" for v in state.graph.outputs)
    for value in [v for v in state.graph.inputs if v.is_initializer()]:
        state.graph.inputs.remove(value)  # ATC makes it a constant
    if not any(n.op_type in ASCEND for n in ir.traversal.RecursiveGraphIterator(state.graph)):
        kind, _ = kind_of(ir.traversal.RecursiveGraphIterator(state.graph))
        what = f"it is a {kind}" if kind else "either it is not a deploy model, or all its layers are float"
        state.warnings.append(
            f"The model holds no Ascend operator: {what}. To run it as on a device, give the deploy model."
        )
    _walk(state, state.graph)
    for node in reversed(state.replaced):
        if node.graph is not None and not any(v.uses() or v.is_graph_output() for v in node.outputs):
            node.graph.remove(node, safe=True)
    made_counters = add_counters(state) if counters else ()
    made_taps = add_taps(state) if taps else ()
    remove_unused_nodes(model)
    if any(n.domain == DOMAIN for n in ir.traversal.RecursiveGraphIterator(state.graph)):
        model.opset_imports[DOMAIN] = 1
    round_float16_nodes(model)
    facts = tuple(layer.facts() for layer in state.layers)
    return Lowered(model, outputs, facts, tuple(state.warnings), made_taps, made_counters)


def _walk(state: LoweringState, graph: ir.Graph) -> None:
    for node in list(graph):
        # shapes and types of the source may be stale, and are others here; onnxruntime infers them
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None
        state.edit.before(node)
        if node.domain in ("", "ai.onnx"):
            _lower_node(state, node)
        else:
            state.give_integers(node)
        for body in bodies_of(node):
            _walk(state, body)
    _hand_out(state, graph)


def _hand_out(state: LoweringState, graph: ir.Graph) -> None:
    """Graph outputs that are integers get their own names back."""
    for index, value in enumerate(graph.outputs):
        integer = state.as_integer(value)
        if integer is value:
            continue
        if integer.is_graph_output() or integer.graph is not graph:
            assert integer.producer() is not None
            last = graph[-1]
            state.edit.after(last)
            integer = state.edit.node("Identity", [integer])
        name = value.name
        value.name = state.edit.unique(f"{name}:lowered")
        integer.name, integer.shape = name, value.shape
        integer.type = ir.TensorType(ir.DataType.INT8 if value in state.int8 else ir.DataType.INT32)
        if value.producer() is not None:
            value.type = value.shape = None
        graph.outputs[index] = integer


def _lower_node(state: LoweringState, node: ir.Node) -> None:
    first = node.inputs[0] if node.inputs else None
    int8 = state.int8.get(first) if first is not None else None
    if node.op_type in ASCEND:
        ASCEND[node.op_type](state, node)
    elif node.op_type.startswith("Ascend"):
        raise UnsupportedModelError(
            f"Node '{node.name}': {node.op_type} has no place in a deploy model before ATC and is not simulated. "
            "Convert the QAT model again."
        )
    elif node.op_type in LAYER_KINDS and (int8 is not None or state.is_int8(node, 1)):
        lower_layer(state, node)
    elif int8 is not None and lower_int8_reader(state, node, int8):
        return
    elif not lower_int32_reader(state, node):
        state.give_integers(node)
