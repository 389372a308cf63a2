"""A digest of a model's graph and weights: the same for the same numbers, wherever and however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.tensor_content import tensor_bytes, tensor_content

WHOLE_BYTES = 1 << 16
"""Larger tensors are sampled: a conversion reads its weights once, and no tensor is ever whole in memory."""
PIECES, PIECE_BYTES = 16, 1 << 12


def model_digest(model: ir.Model) -> str:
    """SHA-256 of the opsets, nodes, attributes, tensors, inputs and outputs; not of names of files, texts or metadata.

    Of a tensor above ``WHOLE_BYTES``, ``PIECES`` pieces count that are spread over it, its first and last bytes among
    them. Training changes all weights; a single one that was edited between the pieces does not show here.

    Args:
        model: is read, not changed.
    """
    digest = hashlib.sha256()
    _add(digest, sorted((domain or "", version) for domain, version in model.opset_imports.items()))
    _add_graph(digest, model.graph)
    for function in model.functions.values():
        _add(digest, ("function", function.identifier()))
        for node in function:
            _add_node(digest, node)
    return digest.hexdigest()


def _add(digest: Any, content: object) -> None:
    text = repr(content).encode(errors="backslashreplace")
    digest.update(b"%d:%b" % (len(text), text))


def _add_tensor(digest: Any, name: str, tensor: ir.TensorProtocol) -> None:
    dtype, size = tensor.dtype, tensor_bytes(tensor)
    _add(digest, (name, int(dtype), tensor.shape.numpy()))
    if dtype == ir.DataType.STRING:
        _add(digest, tensor.numpy().tolist())
        return
    # a tensor in a file is read in parts
    read = getattr(tensor, "read", None)
    if size <= WHOLE_BYTES:
        digest.update(tensor_content(tensor) if read is None else read(0, size))
        return
    read = read or _reader(tensor_content(tensor))
    for piece in range(PIECES):
        digest.update(read(piece * (size - PIECE_BYTES) // (PIECES - 1), PIECE_BYTES))


def _reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda start, length: content[start : start + length]


def _add_graph(digest: Any, graph: ir.Graph) -> None:
    _add(digest, [(v.name, str(v.dtype), str(v.shape)) for v in graph.inputs])
    for name, value in sorted(graph.initializers.items()):
        if value.const_value is None:
            _add(digest, name)
        else:
            _add_tensor(digest, name, value.const_value)
    for node in graph:
        _add_node(digest, node)
    _add(digest, [v.name for v in graph.outputs])


def _add_node(digest: Any, node: ir.Node) -> None:
    names = [v.name if v is not None else None for v in node.inputs]
    _add(digest, (node.domain, node.op_type, node.name, names, [v.name for v in node.outputs]))
    for name, attribute in sorted(node.attributes.items()) if node.attributes else ():
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            _add_tensor(digest, name, attribute.as_tensor())
        elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            _add(
                digest, (name, str(attribute.type), attribute.ref_attr_name if attribute.is_ref() else attribute.value)
            )
    for body in bodies_of(node):
        _add_graph(digest, body)
