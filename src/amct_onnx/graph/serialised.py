"""A model as a protobuf message: the same bytes as onnx-ir's, in half of the time and without metadata stores.

onnx-ir makes a store on every value that it writes, looks at each tensor through protocols and describes each type
anew. What is rare (bodies, attributes of other kinds, functions) is left to it. One thing it writes is left out: the
type and shape of an initializer a second time, among those of the results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
import onnx_ir as ir

from amct_onnx.graph.copied_model import with_graph
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.marks import marks_of, texts_of
from amct_onnx.graph.tensor_content import tensor_content

ANNOTATION = "quant_parameter_tensor_names"
"""Key in a value's meta where onnx-ir keeps the quantization annotation of a file."""
BATCH = 1000
"""Nodes, or types, that are in memory as messages."""
SIMPLE = {ir.AttributeType.INT: "i", ir.AttributeType.FLOAT: "f", ir.AttributeType.INTS: "ints"}
"""Kind of an attribute -> the field that holds its value as it is."""


def without_graph(model: ir.Model) -> onnx.ModelProto:
    """The message of a model without functions, but for its graph."""
    around = with_graph(model, ir.Graph([], [], nodes=[], opset_imports=dict(model.opset_imports)))
    proto: onnx.ModelProto = ir.to_proto(around)
    proto.ClearField("graph")
    return proto


def graph_bytes(
    graph: ir.Graph, inputs: Iterable[ir.Value] | None = None, initializers: Iterable[ir.Value] = ()
) -> bytes:
    """A graph as bytes; its message is never whole in memory.

    Args:
        graph: is not changed.
        inputs: values to declare as inputs; the graph's own without them.
        initializers: those of its initializers that are written with their content; of the others the types alone.
    """
    writer = _GraphWriter(graph)
    writer.write(list(graph.inputs if inputs is None else inputs), list(initializers))
    return writer.content()


def tensor_proto(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    """The message of an initializer, with its content."""
    tensor.name = name
    if type(tensor) is not ir.Tensor or tensor.doc_string or tensor.metadata_props:
        return ir.serde.serialize_tensor(tensor)
    return onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=_dims(tensor), raw_data=tensor_content(tensor))


def description_of(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    """The message of an initializer without its content."""
    proto = onnx.TensorProto(
        name=name, data_type=int(tensor.dtype), dims=_dims(tensor), doc_string=tensor.doc_string or None
    )
    for key in sorted(tensor.metadata_props):
        proto.metadata_props.add(key=key, value=tensor.metadata_props[key])
    return proto


def _dims(tensor: ir.TensorProtocol) -> Any:
    """The numbers of a tensor's shape, which onnx-ir would look at one by one: a tensor has no free axis."""
    return tensor.shape.dims


class _Batch:
    """Entries of one repeated field, as bytes but for the last ones."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._graph = onnx.GraphProto()

    def entries(self, field: str) -> Any:
        """Where the next entry is added."""
        entries = getattr(self._graph, field)
        if len(entries) < BATCH:
            return entries
        self._parts.append(self._graph.SerializeToString())
        self._graph = onnx.GraphProto()
        return getattr(self._graph, field)

    def content(self) -> bytes:
        """All of them."""
        return b"".join([*self._parts, self._graph.SerializeToString()])


class _GraphWriter:
    """Writes the fields of a graph, and joins them in the order of their numbers, as protobuf does."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes, self._infos = _Batch(), _Batch()
        self._ends = onnx.GraphProto(name=graph.name or None, doc_string=graph.doc_string or None)
        self._notes = onnx.GraphProto()
        self._types: dict[tuple[ir.DataType, int], tuple[ir.Shape | None, onnx.TypeProto]] = {}
        self._equal: dict[tuple[object, ...] | None, onnx.TypeProto] = {}

    def content(self) -> bytes:
        """The message."""
        parts = self._nodes, self._ends, self._infos, self._notes
        return b"".join(p.content() if isinstance(p, _Batch) else p.SerializeToString() for p in parts)

    def write(self, inputs: list[ir.Value], initializers: list[ir.Value]) -> None:
        """See ``graph_bytes``."""
        stored = self._graph.initializers
        for value in inputs:
            self._declare(self._ends.input, value)
            if value.name not in stored:
                self._annotate(value)
        declared = {v.name for v in inputs}
        for value in stored.values():
            self._annotate(value)
            if value.name not in declared and (value.const_value is None or value.doc_string or texts_of(value)):
                self._declare_known(value)
        for value in initializers:
            if value.const_value is not None:
                self._ends.initializer.append(tensor_proto(value.name or "", value.const_value))
        for node in self._graph:
            self._node(node)
            for value in node.outputs:
                if not value.is_graph_output():
                    self._annotate(value)
                    self._declare_known(value)
        for value in self._graph.outputs:
            self._declare(self._ends.output, value)
            self._annotate(value)
        texts = texts_of(self._graph) or {}
        for key in sorted(texts):
            self._notes.metadata_props.add(key=key, value=texts[key])

    def _declare_known(self, value: ir.Value) -> None:
        """Declare a value of which anything is known."""
        if value.name and (value.shape is not None or value.type is not None or value.doc_string or texts_of(value)):
            self._declare(self._infos.entries("value_info"), value)

    def _declare(self, into: Any, value: ir.Value) -> None:
        kind = value.type
        if type(kind) is not ir.TensorType or kind.denotation or value.doc_string or texts_of(value):
            ir.serde.serialize_value_into(into.add(), value)
            return
        key = (kind.dtype, id(value.shape))
        known = self._types.get(key)
        if known is None:
            # the shape is kept, so that no other gets its id
            known = self._types[key] = (value.shape, self._type(value, kind.dtype))
        into.add(name=value.name, type=known[1])

    def _type(self, value: ir.Value, dtype: ir.DataType) -> onnx.TypeProto:
        """Most tensors have one of a few types and shapes."""
        shape = value.shape
        named = shape is None or any(shape.get_denotation(axis) for axis in range(len(shape)))
        key = None if shape is None or named else (dtype, *shape.dims)
        known = self._equal.get(key)
        if known is None:
            info = onnx.ValueInfoProto()
            ir.serde.serialize_value_into(info, value)
            known = info.type
            if key is not None:
                self._equal[key] = known
        return known

    def _annotate(self, value: ir.Value) -> None:
        names = marks_of(value).get(ANNOTATION)
        if names:
            entry = self._notes.quantization_annotation.add(tensor_name=value.name)
            for key in sorted(names):
                entry.quant_parameter_tensor_names.add(key=key, value=names[key])

    def _node(self, node: ir.Node) -> None:
        outputs = [v.name for v in node.outputs]
        if not all(outputs) or node.device_configurations or bodies_of(node):
            ir.serde.serialize_node_into(self._nodes.entries("node").add(), node)
            return
        proto = self._nodes.entries("node").add(
            op_type=node.op_type,
            input=["" if v is None else v.name for v in node.inputs],
            output=outputs,
            name=node.name or None,
            domain=node.domain or None,
            overload=node.overload or None,
            doc_string=node.doc_string or None,
        )
        texts = texts_of(node)
        if texts:
            for key in sorted(texts):
                proto.metadata_props.add(key=key, value=texts[key])
        for attribute in node.attributes.values():
            field = SIMPLE.get(attribute.type)
            if attribute.is_ref():
                ir.serde.serialize_reference_attribute_into(proto.attribute.add(), attribute)
            elif field is None or attribute.doc_string:
                ir.serde.serialize_attribute_into(proto.attribute.add(), attribute)
            else:
                proto.attribute.add(name=attribute.name, type=int(attribute.type), **{field: attribute.value})
