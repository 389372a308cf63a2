"""Q -> (Reshape, Squeeze, Cast, ...) -> DQ becomes Q -> DQ -> (Reshape, Squeeze, ...).

Data movement commutes with the element-wise DequantizeLinear, so the pair becomes adjacent without changing a bit.
"""

from __future__ import annotations

import onnx_ir as ir

MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Expand", "MaxPool"})
"""Operators that only select elements, on integers and on floats alike."""


def dequantize_before_moves(model: ir.Model) -> None:
    """Rewrite the graph in place; per-tensor quantizers only (a per-channel axis would move too)."""
    for dq in [n for n in ir.traversal.RecursiveGraphIterator(model.graph) if n.op_type == "DequantizeLinear"]:
        graph = dq.graph
        assert graph is not None
        while True:
            value, scale = dq.inputs[0], dq.inputs[1]
            move = value.producer() if value is not None else None
            source = move.inputs[0] if move is not None and move.inputs else None
            if move is None or source is None or source.producer() is None or move.graph is not dq.graph:
                break
            const = scale.const_value if scale is not None else None
            if move.op_type not in MOVES or (const is not None and const.size > 1) or not _leads_to_quantizer(source):
                break
            early = ir.Node(
                "",
                "DequantizeLinear",
                [source, *dq.inputs[1:]],
                [],
                num_outputs=1,
                name=f"{dq.name}/before_{move.name}",
            )
            moved = ir.Node(
                "",
                move.op_type,
                [early.outputs[0], *move.inputs[1:]],
                list(move.attributes.values()),
                num_outputs=1,
                name=f"{move.name}/of_{dq.name}",
            )
            early.outputs[0].name = f"{early.name}:0"
            moved.outputs[0].name = f"{moved.name}:0"
            moved.outputs[0].type, moved.outputs[0].shape = dq.outputs[0].type, dq.outputs[0].shape
            early.outputs[0].type = dq.outputs[0].type
            graph.insert_before(dq, [early, moved])
            ir.convenience.replace_all_uses_with(dq.outputs[0], moved.outputs[0], replace_graph_outputs=True)
            graph.remove(dq, safe=True)
            dq = early


def _leads_to_quantizer(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type == "QuantizeLinear":
            return True
        if node.op_type not in MOVES | {"Identity", "Cast", "Clip"}:
            return False
        node = node.inputs[0].producer()
    return False
