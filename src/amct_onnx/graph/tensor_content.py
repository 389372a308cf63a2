"""Size and bytes of tensors, without the detours of onnx-ir where one holds an array of whole bytes."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array

BYTE = 8
"""Bits from which an element has bytes of its own."""


def tensor_bytes(tensor: ir.TensorProtocol) -> int:
    """As its ``nbytes``, which multiplies the shape anew each time."""
    array = _array(tensor)
    return tensor.nbytes if array is None else array.nbytes


def tensor_content(tensor: ir.TensorProtocol) -> bytes:
    """As its ``tobytes()``: little-endian. onnx-ir looks first what kind of array the tensor holds."""
    array = _array(tensor) if sys.byteorder == "little" else None
    return tensor.tobytes() if array is None else array.tobytes()


def _array(tensor: ir.TensorProtocol) -> Array | None:
    """What a tensor holds, where its elements lie there as they are written."""
    if type(tensor) is ir.Tensor and isinstance(tensor.raw, np.ndarray) and tensor.dtype.bitwidth >= BYTE:
        return tensor.raw
    return None
