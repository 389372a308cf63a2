"""A tensor that no longer needs the protobuf message it was parsed from.

A message lives as long as any of its tensors does: a thousand layers' nodes would stay in memory twice. Its tensors
also build shape and type anew each time they are asked.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.serde import TensorProtoTensor


class DetachedTensors:
    """Makes tensors that hold their own content; equal shapes are one object."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[int | ir.SymbolicDim, ...], ir.Shape] = {}

    def shared(self, shape: ir.Shape | None) -> ir.Shape | None:
        """The one object for this shape; a shape with denotations as it is."""
        if shape is None or any(shape.get_denotation(axis) for axis in range(len(shape))):
            return shape
        shape.freeze()
        return self._shapes.setdefault(shape.dims, shape)

    def detach(self, tensor: ir.TensorProtocol, shape: ir.Shape, dtype: ir.DataType) -> ir.TensorProtocol:
        """The same tensor by itself, written as the same bytes; one that is not whole bytes in raw_data as it is.

        Args:
            tensor: its content fits its shape and type.
            shape: its shape, which a message's tensor builds anew each time.
            dtype: its type.
        """
        if not isinstance(tensor, TensorProtoTensor) or not tensor.raw.raw_data:
            return tensor
        if dtype.bitwidth < 8 or dtype == ir.DataType.STRING:
            return tensor
        return ir.Tensor(
            tensor.numpy(),
            dtype,
            shape=self.shared(shape),
            name=tensor.name,
            doc_string=tensor.doc_string or None,
            metadata_props=dict(tensor.metadata_props) or None,
        )
