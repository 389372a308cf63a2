"""A tensor that no longer needs the protobuf message it was parsed from.

A message lives as long as any of its tensors does: a thousand layers' nodes would stay in memory twice. Its tensors
also build shape and type anew each time they are asked.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir

from amct_onnx.graph.tensor_content import BYTE

MAX_RANK = 32
"""Dimensions of a tensor: numpy 1 has no more."""


class DetachedTensors:
    """Makes tensors that hold their own content; equal shapes are one object."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[int | ir.SymbolicDim, ...], ir.Shape] = {}
        self._types: dict[int, tuple[ir.DataType, np.dtype[np.generic]] | None] = {}

    def shared(self, shape: ir.Shape | None) -> ir.Shape | None:
        """The one object for this shape; a shape with denotations as it is."""
        if shape is None or any(shape.get_denotation(axis) for axis in range(len(shape))):
            return shape
        shape.freeze()
        return self._shapes.setdefault(shape.dims, shape)

    def detach(self, proto: onnx.TensorProto) -> ir.TensorProtocol | None:
        """The same tensor by itself, written as the same bytes.

        Returns:
            None where its content is not whole bytes in raw_data, or not as many as its shape asks for.
        """
        content, kind = proto.raw_data, self._type(proto.data_type)
        if not content or kind is None or proto.data_location == onnx.TensorProto.EXTERNAL:
            return None
        sizes = tuple(proto.dims)
        dtype, stored = kind
        if len(content) != math.prod(sizes) * stored.itemsize or min(sizes, default=0) < 0 or len(sizes) > MAX_RANK:
            return None
        shape = self._shapes.get(sizes)
        if shape is None:
            shape = self._shapes[sizes] = ir.Shape(sizes, frozen=True)
        return ir.Tensor(
            np.frombuffer(content, stored).reshape(sizes),
            dtype,
            shape=shape,
            name=proto.name,
            doc_string=proto.doc_string or None,
            metadata_props={entry.key: entry.value for entry in proto.metadata_props} or None,
        )

    def _type(self, number: int) -> tuple[ir.DataType, np.dtype[np.generic]] | None:
        """An element type and how its elements lie in raw_data; None for one that has no bytes of its own."""
        if number not in self._types:
            self._types[number] = _stored_type(number)
        return self._types[number]


def _stored_type(number: int) -> tuple[ir.DataType, np.dtype[np.generic]] | None:
    try:
        dtype = ir.DataType(number)
    except ValueError:
        return None
    if dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING) or dtype.bitwidth < BYTE:
        return None
    return dtype, dtype.numpy().newbyteorder("<")
