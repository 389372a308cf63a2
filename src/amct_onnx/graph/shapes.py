"""onnx's shape inference on a model in memory.

onnx-ir's own pass looks every initializer up in the list of inputs and builds a second model out of the result; here
the graph is only serialised, and types and shapes are taken from the result.
"""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from amct_onnx.common.wire_format import field_start
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.serialised import graph_bytes

GRAPH = 7
"""Number of a model's field."""
KEEP_SHAPE = ("QuantizeLinear", "DequantizeLinear", "Clip", "Cast", "Identity")
MAX_CONTENT = 1000
"""Inference gets the content of initializers up to this size; larger ones hold no shapes."""
MAX_VECTOR = 1 << 16
"""Elements of a 1-D tensor. Data propagation makes an object of 140 bytes for each, whether or not it is a shape."""


UNKNOWN = "unknown"


def infer_shapes(model: ir.Model, *, strict: bool) -> None:
    """Complete types and shapes in place; what cannot be inferred stays as it is.

    Args:
        model: a model without functions.
        strict: whether a node that contradicts its schema ends the inference, which then changes nothing.
    """
    graph = model.graph
    initializers = list(graph.initializers.values())
    for value in initializers:
        tensor = value.const_value
        if tensor is not None:
            value.shape = value.shape or ir.Shape(tensor.shape.numpy())
            value.dtype = value.dtype or tensor.dtype
    listed = {v.name for v in graph.inputs}
    small = [v for v in initializers if v.const_value is not None and v.const_value.nbytes <= MAX_CONTENT]
    try:
        # as bytes, so that no second message lives beside those that onnx makes
        content = _message(model, [*graph.inputs, *(v for v in initializers if v.name not in listed)], small)
        inferred = _inferred(content, strict=strict, data_prop=False)
        if not _is_complete(inferred.graph) and _longest_vector(inferred.graph) <= MAX_VECTOR:
            inferred = _inferred(content, strict=strict, data_prop=True)
    except Exception:  # onnx raises several classes, onnx-ir and protobuf others
        return
    _take_over(graph, inferred.graph)


def _message(model: ir.Model, inputs: list[ir.Value], initializers: list[ir.Value]) -> bytes:
    head = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        head.opset_import.add(domain=domain, version=version)
    graph = graph_bytes(model.graph, inputs, initializers)
    return bytes(head.SerializeToString()) + field_start(GRAPH, len(graph)) + graph


def _inferred(content: bytes, *, strict: bool, data_prop: bool) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(content, check_type=strict, strict_mode=strict, data_prop=data_prop)


def _is_complete(graph: onnx.GraphProto) -> bool:
    """Whether every result of a graph without bodies has a size, known or named, on each axis."""
    known = {
        v.name
        for v in (*graph.output, *graph.value_info)
        if v.type.tensor_type.HasField("shape") and all(d.WhichOneof("value") for d in v.type.tensor_type.shape.dim)
    }
    bodies = any(a.HasField("g") or a.graphs for n in graph.node for a in n.attribute)
    return not bodies and all(name in known for n in graph.node for name in n.output if name)


def _longest_vector(graph: onnx.GraphProto) -> int:
    """Elements of the largest 1-D tensor whose size is known, bodies included."""
    longest = max((math.prod(t.dims) for t in graph.initializer if len(t.dims) == 1), default=0)
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) == 1:
            longest = max(longest, sizes[0].dim_value)
    bodies = (g for n in graph.node for a in n.attribute for g in (a.g, *a.graphs))
    return max(longest, *(_longest_vector(g) for g in bodies), 0)


def _take_over(graph: ir.Graph, inferred: onnx.GraphProto) -> None:
    """Types and shapes of a graph and of the bodies in it, which may use one name for different tensors."""
    inferred_types = {v.name: v.type for v in (*inferred.value_info, *inferred.output, *inferred.input)}
    known: dict[bytes, tuple[ir.Shape | None, ir.TypeProtocol | None]] = {}
    # initializers have the type and shape of their tensors
    unknown = (v for v in graph.initializers.values() if v.const_value is None or v.shape is None or v.type is None)
    for value in (*graph.inputs, *unknown, *(v for node in graph for v in node.outputs)):
        kind = inferred_types.get(value.name or "")
        if kind is None or _is_held(value, kind):
            continue
        content = kind.SerializeToString(deterministic=True)
        if content not in known:
            known[content] = _read(kind)
        shape, of_type = known[content]
        if shape is not None and value.shape != shape:
            value.shape = shape
        if of_type is not None and value.type != of_type:
            value.type = of_type
    for node, proto in zip(graph, inferred.node, strict=True):
        bodies = bodies_of(node)
        if bodies:
            results = [g for a in proto.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
            if len(results) == len(bodies):  # else one is empty, and written as nothing
                for body, result in zip(bodies, results, strict=True):
                    _take_over(body, result)


def _read(kind: onnx.TypeProto) -> tuple[ir.Shape | None, ir.TypeProtocol | None]:
    """Shape and type, which many tensors share."""
    shape = ir.serde.deserialize_type_proto_for_shape(kind)
    if shape is not None:
        shape.freeze()
    return shape, ir.serde.deserialize_type_proto_for_type(kind)


def _is_held(value: ir.Value, kind: onnx.TypeProto) -> bool:
    """Whether a tensor has this type and shape already, as most have; told without an object for each size."""
    tensor = kind.tensor_type
    if value.shape is None or not isinstance(value.type, ir.TensorType) or not tensor.HasField("shape"):
        return False
    sizes = tuple(getattr(d, field) if (field := d.WhichOneof("value")) else None for d in tensor.shape.dim)
    return value.type.dtype == tensor.elem_type and not kind.denotation and value.shape.dims == sizes


def sizes_that_differ(first: ir.Value | None, x: str, second: ir.Value | None, w: str, labels: str) -> str:
    """Which of an Einsum's labels may have two sizes, one of them a 1 that is repeated; empty when none may.

    A free axis is known to be as long as another of the same name.

    Args:
        first: operand with one axis for each letter of ``x``.
        x: its labels.
        second: operand with one axis for each letter of ``w``.
        w: its labels.
        labels: labels that both operands have.
    """
    shapes = [known_shape(v) for v in (first, second)]

    def size(index: int, axis: int) -> str:
        shape = shapes[index]
        found = None if shape is None or len(shape) <= axis else shape[axis]
        return str(found) if isinstance(found, int) else (found and found.value) or UNKNOWN

    pairs = ((label, size(0, x.index(label)), size(1, w.index(label))) for label in labels)
    return ", ".join(f"'{label}' ({a} and {b})" for label, a, b in pairs if UNKNOWN in (a, b) or a != b)


def known_shape(value: ir.Value | None) -> ir.Shape | None:
    """The shape that is known of a tensor, or of the one in front of what keeps its shape."""
    while value is not None:
        if value.const_value is not None:
            return ir.Shape(value.const_value.shape.numpy())
        if value.shape is not None:
            return value.shape if isinstance(value.shape, ir.Shape) else ir.Shape(value.shape)
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in KEEP_SHAPE and node.inputs else None
    return None


def stored_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a constant, also behind Q, DQ, Cast, Identity or Clip; of other tensors the one that is known.

    Exporters declare no shapes inside a weight's Q/DQ pair, but the elements are those of the initializer.
    """
    while value is not None:
        if value.const_value is not None:
            return tuple(value.const_value.shape.numpy())
        if value.shape is not None and all(isinstance(d, int) for d in value.shape):
            return tuple(int(d) for d in value.shape if isinstance(d, int))
        node = value.producer()
        if node is None or node.op_type not in KEEP_SHAPE or not node.inputs:
            return None
        value = node.inputs[0]
    return None
