"""Constant nodes with ``sparse_value`` become dense: neither onnx-ir nor ATC's parser reads a sparse tensor."""

from __future__ import annotations

import math

import numpy as np
import onnx

MAX_DENSE_BYTES = 256 << 20
"""Of one dense tensor: a file of 1 kB may not ask for 1 GB."""


class SparseError(ValueError):
    """A sparse tensor that contradicts itself or is too large; the text names the node and the reason."""


def densify_constants(graph: onnx.GraphProto) -> None:
    """Rewrite the nodes of a graph and of its bodies in place.

    Raises:
        SparseError: See the class.
    """
    for node in graph.node:
        for index, attribute in enumerate(node.attribute):
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                densify_constants(body)
            if node.op_type == "Constant" and attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                try:
                    dense = _dense(attribute.sparse_tensor)
                except (SparseError, ValueError, TypeError, IndexError) as error:  # numpy's and onnx's on odd content
                    raise SparseError(f"Constant '{node.name or node.output[0]}': {error}") from error
                del node.attribute[index]
                node.attribute.append(onnx.helper.make_attribute("value", dense))
                break


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The tensor with zeros where no value is given.

    Indices are [NNZ] positions in the flattened tensor, or [NNZ, rank] coordinates (onnx.proto, SparseTensorProto).
    """
    dims = list(sparse.dims)
    if any(d < 0 for d in dims):
        raise SparseError(f"its dimensions are {dims}")
    for part in (sparse.values, sparse.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL:
            raise SparseError("its values are external data")
    values = onnx.numpy_helper.to_array(sparse.values).reshape(-1)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    size = math.prod(dims)
    if size * values.dtype.itemsize > MAX_DENSE_BYTES:
        raise SparseError(f"it would have {size * values.dtype.itemsize:,} bytes when dense")
    if indices.ndim == 2:
        positions = np.ravel_multi_index(tuple(indices.T), dims) if indices.size else np.empty(0, np.int64)
    else:
        positions = indices.reshape(-1)
    if positions.size != values.size or (positions.size and not 0 <= positions.min() <= positions.max() < size):
        raise SparseError(f"its {values.size} values do not fit its indices or its shape {dims}")
    dense = np.zeros(size, values.dtype)
    dense[positions] = values
    return onnx.numpy_helper.from_array(dense.reshape(dims))
