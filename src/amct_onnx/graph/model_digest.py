"""A digest of a model's graph and weights: the same for the same numbers, wherever and however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from amct_onnx.graph.edit import bodies_of

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
    digest.update(len(text).to_bytes(8, "little"))
    digest.update(text)


def _add_tensor(digest: Any, tensor: ir.TensorProtocol) -> None:
    _add(digest, (str(tensor.dtype), tuple(tensor.shape)))
    if tensor.dtype == ir.DataType.STRING:
        _add(digest, tensor.numpy().tolist())
        return
    size = tensor.nbytes
    # a tensor in a file is read in parts
    read = getattr(tensor, "read", None) or _reader(tensor.tobytes())
    if size <= WHOLE_BYTES:
        digest.update(read(0, size))
        return
    for piece in range(PIECES):
        digest.update(read(piece * (size - PIECE_BYTES) // (PIECES - 1), PIECE_BYTES))


def _reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda start, length: content[start : start + length]


def _add_graph(digest: Any, graph: ir.Graph) -> None:
    _add(digest, [(v.name, str(v.dtype), str(v.shape)) for v in graph.inputs])
    for name in sorted(graph.initializers):
        tensor = graph.initializers[name].const_value
        _add(digest, ("initializer", name))
        if tensor is not None:
            _add_tensor(digest, tensor)
    for node in graph:
        _add_node(digest, node)
    _add(digest, [v.name for v in graph.outputs])


def _add_node(digest: Any, node: ir.Node) -> None:
    names = [v.name if v is not None else None for v in node.inputs]
    _add(digest, (node.domain, node.op_type, node.name, names, [v.name for v in node.outputs]))
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            _add(digest, name)
            _add_tensor(digest, attribute.as_tensor())
        elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            _add(
                digest, (name, str(attribute.type), attribute.ref_attr_name if attribute.is_ref() else attribute.value)
            )
    for body in bodies_of(node):
        _add_graph(digest, body)
