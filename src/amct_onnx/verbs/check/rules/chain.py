"""Rules on the chain AscendQuant, layer, (Add), AscendDequant, and on who else reads its integers."""

from __future__ import annotations

from collections.abc import Iterator

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.verbs.check.model_view import (
    ANTIQUANT,
    CUBE,
    DEQUANT,
    MOVES,
    POOL,
    QUANT,
    IntegerLayer,
    ModelView,
    array,
    constant,
)
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import LIMITS, PASSES

_CHAIN_REMEDY = (
    "Move the operator in front of AscendQuant or behind AscendDequant; store a bias as a 1-D int32 initializer of its "
    "own."
)


def _breaks(view: ModelView, layer: IntegerLayer) -> list[str]:
    """What stands in the chain AscendQuant -> layer (-> Add) -> AscendDequant and does not belong there."""
    found = [f"{n.op_type} '{view.names[n]}' in front" for n in reversed(layer.before) if n.op_type != "Pad"]
    if layer.quants[1] is not None:
        found += [f"{n.op_type} '{view.names[n]}' in front of its second input" for n in reversed(layer.weight_moves)]
    found += [f"{n.op_type} '{view.names[n]}' behind" for n in layer.after]
    if layer.add is not None:
        tensor, channels = constant(layer.bias), layer.channels
        if tensor is not None and (len(tensor.shape) != 1 or (channels is not None and tensor.size != channels)):
            found.append("an Add that is not folded")
    return found


@rule(
    id="chain-offset",
    severity=ERROR,
    title="Broken chain with an offset",
    why="The offset is compensated only in the strict chain AscendQuant, layer, bias, AscendDequant; with "
    "anything but Pad in between it is left in the result or the compile stops.",
    source=PASSES,
    remedy=_CHAIN_REMEDY,
)
def chain_offset(view: ModelView) -> Iterator[Hit]:
    """A broken chain with a zero point."""
    for layer in view.layers:
        parts = _breaks(view, layer)
        if parts and layer.offset:
            yield Hit(f"{'; '.join(parts)}; the offset is {layer.offset:g}", view.names[layer.node])


@rule(
    id="chain",
    severity=WARNING,
    title="Broken chain",
    why="The passes match the strict chain AscendQuant, layer, bias, AscendDequant; with other operators in "
    "between the layer is not fused, and the scale may be applied elsewhere.",
    source=PASSES,
    remedy=_CHAIN_REMEDY,
)
def chain_plain(view: ModelView) -> Iterator[Hit]:
    """A broken chain without a zero point."""
    for layer in view.layers:
        parts = _breaks(view, layer)
        if parts and not layer.offset:
            yield Hit("; ".join(parts), view.names[layer.node])


@rule(
    id="pad-value",
    severity=ERROR,
    title="int8 Pad that does not fill with zero",
    why="Behind AscendQuant real zero is the offset: filling with another integer changes the border.",
    source="ops-nn: conv/conv2d_v2 (padding with offset_x)",
    remedy="Move the Pad in front of AscendQuant, or fill with the offset.",
)
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


@rule(
    id="not-dequantized",
    severity=ERROR,
    title="int32 result without AscendDequant",
    why="Whatever reads the result directly gets the integer sum, unscaled and with the offset in it.",
    source=PASSES,
    remedy="Let every reader read AscendDequant's output, subgraphs and graph outputs as well.",
)
def not_dequantized(view: ModelView) -> Iterator[Hit]:
    """An int32 result that something else than AscendDequant reads."""
    for layer in view.layers:
        if layer.is_output:
            yield Hit("its int32 result is a graph output", view.names[layer.node])
        for node in layer.strangers:
            yield Hit(f"its int32 result is read by {node.op_type} '{view.names[node]}'", view.names[layer.node])
        if not layer.dequants and not layer.strangers and not layer.is_output:
            yield Hit("nothing dequantizes its result", view.names[layer.node])


@rule(
    id="dequant-without-layer",
    severity=ERROR,
    title="AscendDequant without an int8 layer",
    why="The operator takes the int32 result of an int8 layer.",
    source="ops-nn: quant/ascend_dequant/op_graph/ascend_dequant_proto.h",
    remedy="Feed it from the layer, or use AscendAntiQuant for int8.",
)
def dequant_without_layer(view: ModelView) -> Iterator[Hit]:
    """AscendDequant that belongs to no int8 layer."""
    owned = {node for layer in view.layers for node in layer.dequants}
    for node in view.nodes(DEQUANT):
        if node not in owned:
            value = node.inputs[0] if node.inputs else None
            producer = value.producer() if value is not None else None
            what = producer.op_type if producer is not None else "no node"
            yield Hit(f"its input comes from {what}, not from an int8 layer", view.names[node])


@rule(
    id="int8-reader",
    severity=WARNING,
    title="int8 tensor in a float operator",
    why="The result of AscendQuant is int8; operators other than data movement and int8 layers read it as that "
    "or not at all.",
    source="ops-nn: quant/ascend_quant/op_graph/ascend_quant_proto.h",
    remedy="Put AscendAntiQuant in between.",
)
def int8_reader(view: ModelView) -> Iterator[Hit]:
    """An int8 tensor that reaches an operator which is not an int8 layer."""
    allowed = {*MOVES, *CUBE, ANTIQUANT, POOL}
    for quant in view.nodes(QUANT):
        for value in quant.outputs:
            for use in value.uses():
                if use.node.op_type not in allowed or use.node.domain:
                    yield Hit(
                        f"its int8 result is read by {use.node.op_type} '{view.names[use.node]}'", view.names[quant]
                    )


@rule(
    id="int8-output",
    severity=WARNING,
    title="int8 output beside others",
    why="The documentation covers a quantizer at the graph's output when it is the only output.",
    source=LIMITS,
    remedy="Put AscendAntiQuant behind it, or make it the only output.",
)
def int8_output(view: ModelView) -> Iterator[Hit]:
    """An int8 graph output beside other outputs."""
    if len(view.model.graph.outputs) < 2:
        return
    for node in view.nodes(QUANT):
        if any(v.is_graph_output() for v in node.outputs):
            yield Hit("its int8 result is one of several graph outputs", view.names[node])


@rule(
    id="unknown-channels",
    severity=WARNING,
    title="Offset with unknown channels",
    why="The pass that compensates the offset steps aside when the channel dimension is unknown.",
    source=PASSES,
    remedy="Export with a fixed number of channels, or train with zero point 0.",
)
def unknown_channels(view: ModelView) -> Iterator[Hit]:
    """A zero point where the channel dimension is known to be dynamic."""
    for layer in view.cubes():
        quant = layer.quants[0]
        if not layer.offset or quant is None:
            continue
        value = quant.inputs[0] if quant.inputs else None
        shape = value.shape if value is not None else None
        axis = LAYER_KINDS[layer.node.op_type].result_axis
        if shape is not None and len(shape) > 1 and not isinstance(shape[axis], int):
            where = f"axis {axis % len(shape)}"
            yield Hit(f"{where} of its input is {shape[axis]}, the offset is {layer.offset:g}", view.names[layer.node])
