"""CastLike becomes Cast to the type that it copies, which is known.

ATC has no plugin for CastLike. And torch's exporter writes the zero bias of a Conv as CastLike(0, activation), a
constant that would hang on an activation by its type alone.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.shapes import infer_shapes


def spell_out_cast_like(model: ir.Model) -> None:
    """Rewrite the nodes in place, also in bodies; one whose type cannot be inferred stays."""
    nodes = [n for n in nodes_of(model) if n.op_type == "CastLike" and n.domain == ""]
    # onnx's inference crashes on inputs without a type
    if any(_type(n) is None for n in nodes) and all(v.type is not None for v in model.graph.inputs):
        infer_shapes(model, strict=False)
    for node in nodes:
        kind = _type(node)
        if kind is not None:
            node.op_type = "Cast"
            node.attributes["to"] = ir.AttrInt64("to", int(kind))
            node.resize_inputs(1)


def _type(node: ir.Node) -> ir.DataType | None:
    like = node.inputs[1]
    return None if like is None else like.dtype
