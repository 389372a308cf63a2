"""A layer's integers as a tensor of an output model, computed while they are written."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.common.arrays import Int8
from amct_onnx.plan.factors import Weight


class QuantizedTensor(ir.LazyTensor):
    """int8 integers, or the same numbers as float32.

    Attributes:
        key: equal for all tensors of one weight, which are then written in one pass over the source.
    """

    def __init__(self, weight: Weight, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.INT8) -> None:
        """Describe the tensor; nothing is read. The shape may hold axes of length 1 more than the weight's."""
        super().__init__(
            lambda: ir.tensor(weight.integers().reshape(shape).astype(dtype.numpy(), copy=False), name=weight.name),
            dtype=dtype,
            shape=ir.Shape(shape),
            name=weight.name,
        )
        self._weight = weight
        self.key = weight.key

    def blocks(self) -> Iterator[Int8]:
        """The integers as int8 in consecutive parts, for any type of the tensor."""
        if self._weight.blocks is None:
            yield self._weight.integers()
        else:
            yield from self._weight.blocks()
