"""Compose an output model: its graph serialised without the large tensors, whose positions in the files are then known.

Nothing is written and no weight is read here; a composition needs neither the graph nor its objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from amct_onnx.common.wire_format import field_start
from amct_onnx.errors import OutputError
from amct_onnx.graph.serialised import description_of, graph_bytes, tensor_proto, without_graph
from amct_onnx.graph.tensor_content import tensor_bytes

INLINE_LIMIT = 1_900_000_000
"""Bytes up to which a model is one file: protobuf ends at 2 GiB, and ATC looks for weights in the model file."""
EXTERNAL_FROM = 1 << 16
"""Bytes of a tensor that goes to the data file when a model exceeds INLINE_LIMIT."""
ALIGNMENT = 4096
"""Alignment of tensors in the data file: a memory page, so that a reader may map them."""
DATA_SUFFIX = ".data"
"""Suffix of the data file, appended to the name of its model file."""
MAX_MESSAGE_BYTES = 2**31 - 1
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""Numbers of the fields of a model, a graph and a tensor."""


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
    return sum(tensor_bytes(v.const_value) for v in model.graph.initializers.values() if v.const_value is not None)


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
    sizes = {n: tensor_bytes(t) for n, t in tensors.items()}
    streamed = {n for n, t in tensors.items() if _is_streamed(t, sizes[n])}
    external_names = _external(sizes, streamed, inline)
    head = without_graph(model).SerializeToString()
    described = ((description_of(n, t), t) if n in streamed else (tensor_proto(n, t), None) for n, t in tensors.items())
    placed = _placed(described, path, external_names)
    return _composition(placed, graph_bytes(model.graph), head, path, external_names)


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
    placed = _placed(described, path, external_names)
    try:
        graph, head = _without_initializers(proto)
    except ValueError as error:  # protobuf's own limit
        raise _too_large(path) from error
    return _composition(placed, graph, head, path, external_names)


@dataclass(frozen=True)
class _Placed:
    """The initializers of a model.

    Attributes:
        tensors: for each its message, and the tensor that follows it in the model file.
        external: those in the data file.
        data_size: bytes of the data file.
    """

    tensors: list[tuple[bytes, ir.TensorProtocol | None]]
    external: list[Piece]
    data_size: int


def _placed(
    described: Iterable[tuple[onnx.TensorProto, ir.TensorProtocol | None]],
    path: Path,
    external_names: frozenset[str],
) -> _Placed:
    """Give the tensors of the data file their positions.

    Args:
        described: for each initializer its message, and the tensor that is streamed.
        path: as in ``compose_proto``.
        external_names: as there.
    """
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
    return _Placed(tensors, external, data_size)


def _composition(placed: _Placed, graph: bytes, head: bytes, path: Path, external_names: frozenset[str]) -> Composition:
    """The bytes of the model file between the tensors that follow.

    Args:
        placed: the initializers.
        graph: the graph without them.
        head: the model without its graph.
        path: as in ``compose_proto``.
        external_names: as there.
    """
    framed = [(_frame(content, tensor), tensor) for content, tensor in placed.tensors]
    length = len(graph) + sum(len(c) + (t.nbytes if t is not None else 0) for c, t in framed)
    head = head + field_start(GRAPH, length) + graph
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
    return Composition(path, external_names, parts, start + len(current), pieces, placed.external, placed.data_size)


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
        return field_start(INITIALIZER, len(content)) + content
    raw = field_start(RAW_DATA, tensor.nbytes)
    return field_start(INITIALIZER, len(content) + len(raw) + tensor.nbytes) + content + raw


def _external(sizes: dict[str, int], streamed: Set[str], inline: frozenset[str]) -> frozenset[str]:
    """Names of the initializers that go to the data file: none, those not needed inline, or all large ones."""
    total = sum(sizes.values())
    if total <= INLINE_LIMIT:
        return frozenset()
    large = {n: size for n, size in sizes.items() if size >= EXTERNAL_FROM and n in streamed}
    movable = frozenset(large) - inline
    return movable if total - sum(large[n] for n in movable) <= INLINE_LIMIT else frozenset(large)


def _is_streamed(tensor: ir.TensorProtocol, size: int) -> bool:
    """Whether to stream a tensor: always a lazy one, so that it is computed once; others when they are large."""
    return hasattr(tensor, "blocks") or (size >= EXTERNAL_FROM and tensor.dtype != ir.DataType.STRING)
