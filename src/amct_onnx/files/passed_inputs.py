"""Outputs that are graph inputs or initializers: one tensor that a file declares twice.

onnx-ir keeps one type for it, that of the output. What the input or the initializer says is the truth: ONNX Runtime
computes from it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ValueInfoProto

FALSE_ENDS = "amct_onnx.false_ends"
"""Key in ``model.meta``: sentences on outputs whose declaration contradicts the input or initializer that they are."""


def settle_passed_inputs(graph: onnx.GraphProto) -> list[str]:
    """Give such outputs of a graph and of its bodies the type of the input or initializer, in place.

    Returns:
        A sentence on each contradiction: tensor, claim and truth.
    """
    told = []
    for each in _graphs(graph):
        outputs = {v.name: v for v in each.output}
        known = {t.name: _declared(t) for t in each.initializer if t.name in outputs}
        known |= {v.name: v for v in each.input if v.name in outputs}
        for name, true in known.items():
            output = outputs[name]
            if _contradicts(output, true):
                told.append(
                    f"Tensor '{name}' is declared as {_text(output)} where it is an output, and is {_text(true)}. The "
                    "declaration is ignored."
                )
            if true.HasField("type"):
                output.type.CopyFrom(true.type)
    return told


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _declared(tensor: onnx.TensorProto) -> ValueInfoProto:
    info: ValueInfoProto = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
    return info


def _contradicts(output: ValueInfoProto, true: ValueInfoProto) -> bool:
    """Whether both say something of the element type, the rank or a size, and not the same."""
    one, other = output.type.tensor_type, true.type.tensor_type
    if one.elem_type and other.elem_type and one.elem_type != other.elem_type:
        return True
    if not (one.HasField("shape") and other.HasField("shape")):
        return False
    pairs = list(zip(one.shape.dim, other.shape.dim, strict=False))
    sizes = any(a.HasField("dim_value") and b.HasField("dim_value") and a.dim_value != b.dim_value for a, b in pairs)
    return sizes or len(one.shape.dim) != len(other.shape.dim)


def _text(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type
    name = (
        onnx.TensorProto.DataType.Name(kind.elem_type) if kind.elem_type in onnx.TensorProto.DataType.values() else ""
    )
    sizes = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    return f"{name or kind.elem_type} [{', '.join(sizes)}]"
