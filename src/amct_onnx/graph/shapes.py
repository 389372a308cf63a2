"""onnx's shape inference on a model in memory.

onnx-ir's own pass looks every initializer up in the list of inputs and builds a second model out of the result; here
the graph is only serialised, and types and shapes are taken from the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from amct_onnx.common.wire_format import field_start
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.serialised import graph_bytes
from amct_onnx.graph.tensor_content import tensor_bytes

GRAPH = 7
"""Number of a model's field."""
PAIR = ("QuantizeLinear", "DequantizeLinear")
KEEP_SHAPE = ("QuantizeLinear", "DequantizeLinear", "Clip", "Cast", "Identity")
MAX_CONTENT = 1000
"""Inference gets the content of initializers up to this size; larger ones hold no shapes."""
MAX_VECTOR = 1 << 16
"""Elements of a 1-D tensor. Data propagation makes an object of 140 bytes for each, whether or not it is a shape."""


UNKNOWN = "unknown"


def infer_shapes(model: ir.Model, *, strict: bool, outputs: bool = False) -> None:
    """Complete types and shapes in place; what cannot be inferred stays as it is.

    Args:
        model: a model without functions.
        strict: whether a node that contradicts its schema ends the inference, which then changes nothing.
        outputs: whether that holds for the graph's outputs too; else a shape that they declare stays as it is, with
            its open axes, for which inference makes up names.
    """
    graph = model.graph
    initializers = list(graph.initializers.values())
    for value in initializers:
        tensor = value.const_value
        if tensor is not None:
            if value.shape is None or (not value.shape.dims and tensor.shape.numpy()):
                value.shape = ir.Shape(tensor.shape.numpy())
            value.dtype = value.dtype or tensor.dtype
    listed = {v.name for v in graph.inputs}
    small = [v for v in initializers if v.const_value is not None and _may_be_shape(v, v.const_value)]
    try:
        # as bytes, so that no second message lives beside those that onnx makes
        content = _message(model, [*graph.inputs, *(v for v in initializers if v.name not in listed)], small)
        inferred = _inferred(content, strict=strict, data_prop=False)
        types = _Types(inferred.graph)
        if not _is_complete(graph, types) and _longest_vector(inferred.graph) <= MAX_VECTOR:
            inferred = _inferred(content, strict=strict, data_prop=True)
            types = _Types(inferred.graph)
    except Exception:  # onnx raises several classes, onnx-ir and protobuf others
        return
    declared = [] if outputs else [(v, v.shape) for v in graph.outputs if v.shape is not None]
    _take_over(graph, inferred.graph, types)
    for value, shape in declared:
        value.shape = shape


def _may_be_shape(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    """Whether a node's shape may follow from the content of an initializer: not of factors, which most are."""
    return tensor_bytes(tensor) <= MAX_CONTENT and not all(use.node.op_type in PAIR for use in value.uses())


def _message(model: ir.Model, inputs: list[ir.Value], initializers: list[ir.Value]) -> bytes:
    head = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        head.opset_import.add(domain=domain, version=version)
    graph = graph_bytes(model.graph, inputs, initializers)
    return bytes(head.SerializeToString()) + field_start(GRAPH, len(graph)) + graph


def _inferred(content: bytes, *, strict: bool, data_prop: bool) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(content, check_type=strict, strict_mode=strict, data_prop=data_prop)


@dataclass(frozen=True)
class _Kind:
    """What many tensors share.

    Attributes:
        shape: None where nothing is known of it.
        type: None where it is unknown.
        complete: whether it is a tensor with a size, known or named, on each axis.
    """

    shape: ir.Shape | None
    type: ir.TypeProtocol | None
    complete: bool


class _Types:
    """The types of a graph in a message; equal ones are one object."""

    def __init__(self, graph: onnx.GraphProto, known: dict[bytes, _Kind] | None = None) -> None:
        self._known: dict[bytes, _Kind] = {} if known is None else known
        self._of = {v.name: self._kind(v.type) for v in (*graph.value_info, *graph.output, *graph.input)}

    def of(self, value: ir.Value) -> _Kind | None:
        """The type and shape of a tensor of this name."""
        return self._of.get(value.name or "")

    def of_body(self, body: onnx.GraphProto) -> _Types:
        """The types of a body, which may use one name for different tensors."""
        return _Types(body, self._known)

    def _kind(self, proto: onnx.TypeProto) -> _Kind:
        content = proto.SerializeToString(deterministic=True)
        known = self._known.get(content)
        if known is None:
            known = self._known[content] = _read(proto)
        return known


def _is_complete(graph: ir.Graph, types: _Types) -> bool:
    """Whether every result of a graph without bodies has a size, known or named, on each axis."""
    for node in graph:
        if bodies_of(node):
            return False
        for value in node.outputs:
            kind = types.of(value)
            if value.name and (kind is None or not kind.complete):
                return False
    return True


def _longest_vector(graph: onnx.GraphProto) -> int:
    """Elements of the largest 1-D tensor whose size is known, bodies included."""
    longest = max((math.prod(t.dims) for t in graph.initializer if len(t.dims) == 1), default=0)
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) == 1:
            longest = max(longest, sizes[0].dim_value)
    bodies = (g for n in graph.node for a in n.attribute for g in (a.g, *a.graphs))
    return max(longest, *(_longest_vector(g) for g in bodies), 0)


def _take_over(graph: ir.Graph, inferred: onnx.GraphProto, types: _Types) -> None:
    """Types and shapes of a graph and of the bodies in it."""
    # initializers have the type and shape of their tensors
    unknown = (v for v in graph.initializers.values() if v.const_value is None or v.shape is None or v.type is None)
    nodes = list(graph)
    for value in (*graph.inputs, *unknown, *(v for node in nodes for v in node.outputs)):
        kind = types.of(value)
        if kind is None:
            continue
        if kind.shape is not None and value.shape != kind.shape:
            value.shape = kind.shape
        if kind.type is not None and value.type != kind.type:
            value.type = kind.type
    for index, node in enumerate(nodes):
        bodies = bodies_of(node)
        if bodies:
            attributes = inferred.node[index].attribute
            results = [g for a in attributes for g in ([a.g] if a.HasField("g") else a.graphs)]
            if len(results) == len(bodies):  # else one is empty, and written as nothing
                for body, result in zip(bodies, results, strict=True):
                    _take_over(body, result, types.of_body(result))


def _read(proto: onnx.TypeProto) -> _Kind:
    """Shape and type, which many tensors share; of a map, which onnx-ir does not read, nothing is known."""
    try:
        shape, kind = ir.serde.deserialize_type_proto_for_shape(proto), ir.serde.deserialize_type_proto_for_type(proto)
    except ir.serde.SerdeError:
        return _Kind(None, None, complete=False)
    if shape is not None:
        shape.freeze()
    sizes = proto.tensor_type.shape.dim if proto.tensor_type.HasField("shape") else [onnx.TensorShapeProto.Dimension()]
    complete = all(d.WhichOneof("value") for d in sizes)
    return _Kind(shape, kind, complete)


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
