"""Cast(float16 -> float32) -> Q -> DQ -> Cast(float32 -> float16) becomes Q -> DQ on float16.

A float16 value is a float32 value, so the integers are the same; the dequantized value is rounded to float16 once in
both forms. Q and DQ of the canonical form take any float type in any opset.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.float_types import float_type_of


def drop_casts_around_quantizers(model: ir.Model) -> None:
    """Rewrite the graph in place where all readers of the pair cast back to float16."""
    for node in nodes_of(model):
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None:
            continue
        up = node.inputs[0].producer()
        if not _is_cast(up, ir.DataType.FLOAT) or up is None or up.inputs[0] is None or not _is_half(up.inputs[0]):
            continue
        dequantizers = [use.node for use in _behind(node).uses()]
        if node.outputs[0].is_graph_output() or not dequantizers:
            continue
        if not all(dq.op_type == "DequantizeLinear" and _read_as_half(dq) for dq in dequantizers):
            continue
        node.replace_input_with(0, up.inputs[0])
        for dq in dequantizers:
            dq.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
            for use in list(dq.outputs[0].uses()):
                cast = use.node.outputs[0]
                ir.convenience.replace_all_uses_with(cast, dq.outputs[0])
                assert use.node.graph is not None
                use.node.graph.remove(use.node, safe=True)


def _behind(quantize: ir.Node) -> ir.Value:
    """The integers that the DequantizeLinear reads: a Clip or Identity may stand between."""
    value = quantize.outputs[0]
    while True:
        users = list(value.uses())
        if len(users) != 1 or users[0].node.op_type not in ("Clip", "Identity"):
            return value
        value = users[0].node.outputs[0]


def _is_cast(node: ir.Node | None, to: ir.DataType) -> bool:
    return node is not None and node.op_type == "Cast" and node.attributes["to"].as_int() == int(to)


def _is_half(value: ir.Value) -> bool:
    return float_type_of(value) == ir.DataType.FLOAT16


def _read_as_half(dq: ir.Node) -> bool:
    output = dq.outputs[0]
    casts = [use.node for use in output.uses()]
    return (
        bool(casts)
        and not output.is_graph_output()
        and all(_is_cast(c, ir.DataType.FLOAT16) and not c.outputs[0].is_graph_output() for c in casts)
    )
