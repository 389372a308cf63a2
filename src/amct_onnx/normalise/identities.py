"""What changes nothing goes, so that no quantizer hides behind it: Identity, a Cast to the type that a tensor has."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of


def drop_identities(model: ir.Model) -> None:
    """Rewrite the graph in place; what names a graph output, of a body too, stays."""
    for node in nodes_of(model):
        source = node.inputs[0] if node.domain == "" and len(node.inputs) == 1 else None
        if source is None or not _changes_nothing(node, source) or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _changes_nothing(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Cast":
        return source.dtype is not None and int(source.dtype) == node.attributes["to"].as_int()
    if node.op_type == "Transpose" and "perm" in node.attributes:
        perm = node.attributes["perm"].as_ints()
        return list(perm) == list(range(len(perm)))
    return node.op_type in ("Identity", "Concat", "Max", "Min", "Sum")  # of one input
