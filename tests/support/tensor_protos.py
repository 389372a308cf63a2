"""Initializers of any type that numpy or ml_dtypes has, also where the installed onnx takes no array of ml_dtypes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir


def tensor_proto(array: np.ndarray | np.generic, name: str) -> onnx.TensorProto:
    """The array as an initializer of this name."""
    proto = ir.to_proto(ir.tensor(np.asarray(array), name=name))
    assert isinstance(proto, onnx.TensorProto)
    return proto
