"""Read the protobuf of a model without the content of its large tensors.

A 2 GB file costs two copies of itself when protobuf parses it. Here the wire format is walked, large ``raw_data`` is
skipped, and each such tensor is described as external data inside the model file itself. Field numbers: onnx.proto.
"""

from __future__ import annotations

from amct_onnx.common.wire_format import LENGTH, field_start
from amct_onnx.errors import ModelFileError
from amct_onnx.files.file_tensor import SourceFile

CUT_BYTES = 1 << 16
"""Bytes from which a tensor's content stays in the file; smaller messages are not scanned."""
HERE = "\0"
"""External location of tensors in the model file itself. No file has this name."""
MAX_GRAPH_BYTES = 2**31 - 1
"""Bytes of protobuf, large tensors apart, that the protobuf library parses."""
MAX_FIELDS = 64
"""Different fields of one message that are looked at; the largest message of ONNX has 15."""
MAX_DEPTH = 100
"""Limit of nested messages, as in the protobuf library."""
WINDOW = 1 << 18
"""Bytes of the file that are held for reading tags and lengths."""
MAX_VARINT = 10
"""Bytes of the longest number in protobuf."""
INNER = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
"""Message -> field number -> kind of message: all paths to a tensor."""
FLOAT, FLOAT_DATA, DATA_TYPE, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 4, 2, 9, 13, 14
VARINT, FIXED64, FIXED32 = 0, 1, 5


def graph_without_large_tensors(source: SourceFile) -> bytes:
    """The model's protobuf in which large tensors are external data at location HERE.

    Raises:
        ModelFileError: The bytes are not a protobuf message, or the graph itself is too large.
    """
    pieces = _Scan(source).message("model", 0, source.size, 0)
    return b"".join(pieces)


def outermost_fields(source: SourceFile) -> set[tuple[int, int]]:
    """Numbers and wire types of the outermost fields of a protobuf message; empty when the bytes are something else."""
    fields: set[tuple[int, int]] = set()
    scan, position = _Scan(source), 0
    try:
        while position < source.size and len(fields) < MAX_FIELDS:
            number, wire, _, position, _ = scan._field(position, source.size)
            fields.add((number, wire))
    except ModelFileError:
        return set()
    return fields


class _Scan:
    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._start = self._stop = 0
        self._window = bytearray()
        self._kept = 0

    def message(self, kind: str, start: int, stop: int, depth: int) -> list[bytes]:
        """The message's fields, those that hold a large tensor rewritten."""
        if depth > MAX_DEPTH:
            raise self._error(start, f"messages are nested more than {MAX_DEPTH} deep")
        if kind == "tensor":
            return self._tensor(start, stop)
        inner = INNER[kind]
        pieces: list[bytes] = []
        kept = position = start
        while position < stop:
            number, wire, first, end, _ = self._field(position, stop)
            if end - first > CUT_BYTES and wire == LENGTH and number in inner:
                pieces += self._copy(kept, position)
                content = self.message(inner[number], first, end, depth + 1)
                pieces += [field_start(number, sum(map(len, content))), *content]
                kept = end
            position = end
        return pieces + self._copy(kept, stop)

    def _tensor(self, start: int, stop: int) -> list[bytes]:
        fields = []
        position = start
        data_type = 0
        while position < stop:
            number, wire, first, end, value = self._field(position, stop)
            if number == DATA_TYPE and wire == VARINT:
                data_type = value
            fields.append((number, wire, position, first, end))
            position = end
        contents = [f for f in fields if f[0] in (FLOAT_DATA, RAW_DATA)]
        number, wire, position, first, end = contents[0] if contents else (0, 0, 0, 0, 0)
        # packed floats are stored as their bytes, exactly like raw_data; several contents are left to the parser
        whole = len(contents) == 1 and wire == LENGTH and (number == RAW_DATA or data_type == FLOAT)
        elsewhere = any(f[0] in (EXTERNAL_DATA, DATA_LOCATION) for f in fields)
        if not whole or elsewhere or end - first <= CUT_BYTES:
            return self._copy(start, stop)
        pieces = self._copy(start, position) + self._copy(end, stop)
        for key, text in (("location", HERE), ("offset", str(first)), ("length", str(end - first))):
            entry = _text(1, key) + _text(2, text)
            pieces.append(field_start(EXTERNAL_DATA, len(entry)) + entry)
        return [*pieces, bytes([DATA_LOCATION << 3 | VARINT, 1])]

    def _field(self, position: int, stop: int) -> tuple[int, int, int, int, int]:
        """Number, wire type, first byte of the content, end, and the value of a varint."""
        tag, first = self._read_varint(position, stop)
        number, wire = tag >> 3, tag & 7
        value = 0
        if wire == LENGTH:
            length, first = self._read_varint(first, stop)
            end = first + length
        elif wire == VARINT:
            value, end = self._read_varint(first, stop)
        elif wire in (FIXED32, FIXED64):
            end = first + (4 if wire == FIXED32 else 8)
        else:
            raise self._error(position, f"its bytes are not those of a model: protobuf has no wire type {wire}")
        if number == 0 or end > stop:
            raise self._error(position, "a field ends beyond its message: the file is truncated or damaged")
        return number, wire, first, end, value

    def _read_varint(self, position: int, stop: int) -> tuple[int, int]:
        whole = position + MAX_VARINT <= self._stop or self._stop == self._source.size
        if not (self._start <= position <= self._stop and whole):
            self._start = position
            self._stop = min(self._source.size, position + WINDOW)
            self._window = self._source.read(self._start, self._stop - self._start)
        result = shift = 0
        window, index = self._window, position - self._start
        for byte in window[index : index + MAX_VARINT]:
            index += 1
            result |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        else:
            if index - (position - self._start) < MAX_VARINT:
                raise self._error(position, "the file is truncated")
            raise self._error(position, "its bytes are not those of a model: a number has more than ten")
        end = self._start + index
        if end > stop:
            raise self._error(position, "the file is truncated")
        return result, end

    def _copy(self, start: int, stop: int) -> list[bytes]:
        self._kept += stop - start
        if self._kept > MAX_GRAPH_BYTES:
            raise self._error(start, "the graph without its large tensors exceeds 2 GiB")
        return [bytes(self._source.read(start, stop - start))] if stop > start else []

    def _error(self, position: int, what: str) -> ModelFileError:
        return ModelFileError(
            f"{self._source.path}: not a valid ONNX model ({what}, at byte {position}). "
            "Export or download the model again."
        )


def _text(number: int, text: str) -> bytes:
    return field_start(number, len(text)) + text.encode()
