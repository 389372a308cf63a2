"""What a model file says that onnx-ir does not keep, read from its protobuf."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

DATA_FIELDS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True)
class FileFacts:
    """Facts of one file.

    Attributes:
        opsets: (domain, version) of every opset_import entry, in the file's order.
        without_data: names of tensors inside the file whose shape has elements and that hold none.
        checksums: names of external tensors with a ``checksum`` entry.
    """

    opsets: tuple[tuple[str, int], ...]
    without_data: tuple[str, ...]
    checksums: tuple[str, ...]


def facts_of(model: onnx.ModelProto) -> FileFacts:
    """Read the facts; no tensor's content is looked at."""
    without_data, checksums = [], []
    for name, tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if any(e.key == "checksum" for e in tensor.external_data):
                checksums.append(name)
        elif math.prod(tensor.dims) and not any(getattr(tensor, f) for f in DATA_FIELDS):
            without_data.append(name)
    opsets = tuple((o.domain, o.version) for o in model.opset_import)
    return FileFacts(opsets, tuple(without_data), tuple(checksums))


def drop_sparse_values(graph: onnx.GraphProto) -> None:
    """Empty the ``sparse_value`` of Constant nodes, bodies included: onnx-ir does not read it, and nor does the parser.

    The attribute stays as an empty text, so that a rule can name it.
    """
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                attribute.CopyFrom(onnx.helper.make_attribute(attribute.name, ""))
            elif attribute.HasField("g"):
                drop_sparse_values(attribute.g)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initializers, and the tensors of Constant nodes, of a graph and of its bodies."""
    yield from ((t.name, t) for t in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            elif attribute.HasField("t") and node.op_type == "Constant":
                yield (node.output[0] if node.output else node.name), attribute.t
