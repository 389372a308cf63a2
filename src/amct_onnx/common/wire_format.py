"""Fields of protobuf messages as bytes, for messages that are never whole in memory."""

from __future__ import annotations

LENGTH = 2
"""Wire type of a field whose content follows its length."""


def varint(number: int) -> bytes:
    """The wire form of an unsigned number."""
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    result.append(number)
    return bytes(result)


def field_start(number: int, length: int) -> bytes:
    """What stands in front of the content of a text or message.

    Args:
        number: of the field.
        length: bytes of the content.
    """
    return varint(number << 3 | LENGTH) + varint(length)
