"""Sizes and bytes of tensors are those that onnx-ir gives, of every element type and layout in memory."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from amct_onnx.graph.tensor_content import tensor_bytes, tensor_content

TYPES = [t for t in ir.DataType if t not in (ir.DataType.UNDEFINED, ir.DataType.STRING)]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.name)
def test_every_element_type(dtype: ir.DataType) -> None:
    for shape in ((), (0,), (3, 5)):
        array = (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype.numpy())
        for laid in (array, array.T, array[..., ::2] if shape else array):
            tensor = ir.Tensor(laid, dtype)
            assert tensor_bytes(tensor) == tensor.nbytes
            assert tensor_content(tensor) == tensor.tobytes()


def test_strings() -> None:
    tensor = ir.StringTensor([b"a", b"bc"], shape=ir.Shape([2]))
    assert tensor_bytes(tensor) == tensor.nbytes


def test_lazy_tensors_are_asked() -> None:
    array = np.arange(6, dtype=np.int16)
    lazy = ir.LazyTensor(lambda: ir.Tensor(array), ir.DataType.INT16, ir.Shape([6]))
    assert (tensor_bytes(lazy), tensor_content(lazy)) == (12, array.tobytes())
