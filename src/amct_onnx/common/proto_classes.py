"""Protobuf messages of formats that others define, built from their field numbers: no generated code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

Fields = Sequence[tuple[str, int, str]]
"""Of a message: name, number and type of each field. A type is a scalar of protobuf, or the name of a message or enum
of the same schema, and may begin with ``repeated``."""


def message_classes(
    package: str, messages: Mapping[str, Fields], enums: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, type[Message]]:
    """The class of each message, by name; fields that are absent are told from those that are zero (proto2)."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, values in (enums or {}).items():
        enum = file.enum_type.add(name=name)
        for text, number in values.items():
            enum.value.add(name=text, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated = kind.startswith("repeated ")
            kind = kind.removeprefix("repeated ")
            own = kind in messages or kind in (enums or {})
            scalar = "MESSAGE" if kind in messages else "ENUM" if own else kind.upper()
            message.field.add(
                name=field,
                number=number,
                type=getattr(kinds, f"TYPE_{scalar}"),
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
                type_name=f".{package}.{kind}" if own else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    # before 4.22 by an object; CANN's own Python has 3.20
    class_of = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype
    return {n: class_of(pool.FindMessageTypeByName(f"{package}.{n}")) for n in messages}
