"""Compose an output model: its graph serialised without the large tensors, whose positions in the files are then known.

Nothing is written and no weight is read here; a composition needs neither the graph nor its objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from amct_onnx.errors import OutputError
from amct_onnx.files.proto_scan import LENGTH, varint
from amct_onnx.graph.serialised import description_of, tensor_proto, to_proto

INLINE_LIMIT = 1_900_000_000
"""Bytes up to which a model is one file: protobuf ends at 2 GiB, and ATC looks for weights in the model file."""
EXTERNAL_FROM = 1 << 16
"""Bytes of a tensor that goes to the data file when a model exceeds INLINE_LIMIT."""
ALIGNMENT = 4096
"""Alignment of tensors in the data file: a memory page, so that a reader may map them."""
DATA_SUFFIX = ".data"
"""Suffix of the data file, appended to the name of its model file."""
MAX_MESSAGE_BYTES = 2**31 - 1
GRAPH_TAG, INITIALIZER_TAG, RAW_DATA_TAG = (varint(n << 3 | LENGTH) for n in (7, 5, 9))


@dataclass(frozen=True)
class Piece:
    """A tensor's place in a file."""

    position: int
    tensor: ir.TensorProtocol


@dataclass(frozen=True)
class Composition:
    """A model ready to be written.

    Attributes:
        path: path of the model file.
        external_names: names of the initializers in the data file.
        head: bytes of the model file at positions.
        size: size of the model file.
        inline: tensors in the model file.
        external: tensors in the data file.
        data_size: size of the data file.
    """

    path: Path
    external_names: frozenset[str]
    head: list[tuple[int, bytes]]
    size: int
    inline: list[Piece]
    external: list[Piece]
    data_size: int

    @property
    def data_path(self) -> Path:
        """Name of the data file; None without one."""
        return data_path(self.path)


def data_path(model_path: Path) -> Path:
    """The data file of a model file."""
    return model_path.with_name(model_path.name + DATA_SUFFIX)


def weight_bytes(model: ir.Model) -> int:
    """Total bytes of the initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def compose(model: ir.Model, path: Path, inline: frozenset[str] = frozenset()) -> Composition:
    """Serialise the graph and give every large tensor its position.

    Args:
        model: is read, not changed.
        path: path of the model file.
        inline: names of initializers that stay in the model file as long as it holds them.

    Raises:
        OutputError: What must be in the model file exceeds a protobuf message.
    """
    tensors = {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}
    external_names = _external(tensors, inline)
    proto = to_proto(model, content=False)
    described = (
        (description_of(n, t), t) if _is_streamed(t) else (tensor_proto(n, t), None) for n, t in tensors.items()
    )
    return _composition(proto, described, path, external_names)


def compose_proto(
    proto: onnx.ModelProto, path: Path, streamed: Mapping[str, ir.TensorProtocol], external_names: frozenset[str]
) -> Composition:
    """Give every streamed tensor its position.

    Args:
        proto: the initializers in ``streamed`` are described as external data in it; spent afterwards.
        path: path of the model file.
        streamed: the content of these initializers, by name.
        external_names: those of them that go to the data file; the others are written into the model file.

    Raises:
        OutputError: What must be in the model file exceeds a protobuf message.
    """
    described = ((tensor, streamed.get(tensor.name)) for tensor in proto.graph.initializer)
    return _composition(proto, described, path, external_names)


def _composition(
    proto: onnx.ModelProto,
    described: Iterable[tuple[onnx.TensorProto, ir.TensorProtocol | None]],
    path: Path,
    external_names: frozenset[str],
) -> Composition:
    """The same; for each initializer its message, and the tensor that is streamed into its place in the file."""
    external: list[Piece] = []
    data_size = 0
    tensors: list[tuple[bytes, ir.TensorProtocol | None]] = []
    for initializer, tensor in described:
        if tensor is not None:
            del initializer.external_data[:]
            initializer.ClearField("data_location")
        if initializer.name in external_names and tensor is not None:
            offset = -(-data_size // ALIGNMENT) * ALIGNMENT
            data_size = offset + tensor.nbytes
            external.append(Piece(offset, tensor))
            initializer.data_location = onnx.TensorProto.EXTERNAL
            for key, text in (("location", data_path(path).name), ("offset", offset), ("length", tensor.nbytes)):
                initializer.external_data.add(key=key, value=str(text))
            tensor = None
        tensors.append((initializer.SerializeToString(), tensor))
    try:
        graph, head = _without_initializers(proto)
    except ValueError as error:  # protobuf's own limit
        raise _too_large(path) from error
    framed = [(_frame(content, tensor), tensor) for content, tensor in tensors]
    length = len(graph) + sum(len(c) + (t.nbytes if t is not None else 0) for c, t in framed)
    head = head + GRAPH_TAG + varint(length) + graph
    if len(head) + length - len(graph) > MAX_MESSAGE_BYTES:
        raise _too_large(path)
    parts: list[tuple[int, bytes]] = []
    pieces: list[Piece] = []
    start, current = 0, bytearray(head)
    for content, body in framed:
        current += content
        if body is not None:
            parts.append((start, bytes(current)))
            position = start + len(current)
            pieces.append(Piece(position, body))
            start, current = position + body.nbytes, bytearray()
    parts.append((start, bytes(current)))
    return Composition(path, external_names, parts, start + len(current), pieces, external, data_size)


def _without_initializers(proto: onnx.ModelProto) -> tuple[bytes, bytes]:
    """The graph without its initializers, and the model without its graph; the message is emptied of both."""
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    return graph, proto.SerializeToString()


def _too_large(path: Path) -> OutputError:
    return OutputError(
        f"{path}: what must be in the model file, without its large weights, exceeds the 2 GiB that one ONNX "
        "file can hold. Store the weights of the source as external data."
    )


def _frame(content: bytes, tensor: ir.TensorProtocol | None) -> bytes:
    """An initializer field of the graph, up to the bytes of the tensor that follow."""
    if tensor is None:
        return INITIALIZER_TAG + varint(len(content)) + content
    raw = RAW_DATA_TAG + varint(tensor.nbytes)
    return INITIALIZER_TAG + varint(len(content) + len(raw) + tensor.nbytes) + content + raw


def _external(tensors: dict[str, ir.TensorProtocol], inline: frozenset[str]) -> frozenset[str]:
    """Names of the initializers that go to the data file: none, those not needed inline, or all large ones."""
    large = {n: t.nbytes for n, t in tensors.items() if t.nbytes >= EXTERNAL_FROM and _is_streamed(t)}
    total = sum(t.nbytes for t in tensors.values())
    if total <= INLINE_LIMIT:
        return frozenset()
    movable = frozenset(large) - inline
    return movable if total - sum(large[n] for n in movable) <= INLINE_LIMIT else frozenset(large)


def _is_streamed(tensor: ir.TensorProtocol) -> bool:
    """Whether to stream a tensor: always a lazy one, so that it is computed once; others when they are large."""
    return hasattr(tensor, "blocks") or (tensor.nbytes >= EXTERNAL_FROM and tensor.dtype != ir.DataType.STRING)
