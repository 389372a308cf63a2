"""Files that hold a part of a model: one graph, node, tensor, ... without the ModelProto around it.

Protobuf writes no type, and a message takes the fields of another where number and form agree. A part is told by the
numbers and forms of its outermost fields, which onnx's own descriptors give.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from google.protobuf.descriptor import FieldDescriptor

from amct_onnx.common.wire_format import LENGTH
from amct_onnx.files.file_tensor import SourceFile
from amct_onnx.files.proto_scan import FIXED32, FIXED64, VARINT, outermost_fields
from amct_onnx.files.signatures import FileKind

MODEL = "Save the whole model: onnx.save(model, path) of an onnx.ModelProto."
WRAP = "Write it as a model: onnx.save(onnx.helper.make_model(graph), path)."
FIXED = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_SFIXED64: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_SFIXED32: FIXED32,
}
LENGTHS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
PARTS: tuple[tuple[type, tuple[tuple[int, ...], ...], str, str], ...] = (
    (onnx.TensorProto, ((2,), (4, 5, 6, 7, 8, 9, 10, 11, 13)), "one tensor (TensorProto)", MODEL),
    (onnx.AttributeProto, ((1,), (20,)), "one attribute (AttributeProto)", MODEL),
    (onnx.FunctionProto, ((1,), (7,), (5, 9, 10)), "one function (FunctionProto)", MODEL),
    (onnx.NodeProto, ((1, 2), (4,)), "one node (NodeProto)", MODEL),
    (onnx.GraphProto, ((1, 5), (11, 12)), "a graph (GraphProto) without the model around it", WRAP),
    (onnx.SequenceProto, ((2,), (3, 4, 5, 6)), "a sequence of tensors (SequenceProto)", MODEL),
    (onnx.ValueInfoProto, ((1,), (2,)), "the type of one tensor (ValueInfoProto)", MODEL),
)
"""Message, fields of which it has at least one of each group, what it is, what to do; the most telling ones first."""


def bare_message(source: SourceFile) -> FileKind | None:
    """Which part of a model a file is; None for anything else."""
    fields = outermost_fields(source)
    if not fields:
        return None
    for message, groups, what, remedy in PARTS:
        present = {number for number, _ in fields}
        if all(any(n in present for n in group) for group in groups) and _fits(message, fields):
            return FileKind(what, remedy)
    return None


def _fits(message: type, fields: Collection[tuple[int, int]]) -> bool:
    """Whether the message has all these fields, in these forms."""
    known = message.DESCRIPTOR.fields_by_number  # type: ignore[attr-defined]
    return all(number in known and wire in _wires(known[number]) for number, wire in fields)


def _wires(field: FieldDescriptor) -> tuple[int, ...]:
    """The forms in which a field may be written; numbers that repeat may be packed."""
    if field.type in LENGTHS:
        return (LENGTH,)
    own = FIXED.get(field.type, VARINT)
    # protobuf 3.20 has the label alone, the newest ones have it no longer
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED
    return (own, LENGTH) if repeated else (own,)
