"""A detached tensor holds what its message holds; what is not whole bytes in raw_data is left to onnx-ir."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from amct_onnx.files.detached_tensor import DetachedTensors

WHOLE = [t for t in ir.DataType if t not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and t.bitwidth >= 8]


@pytest.mark.parametrize("dtype", WHOLE, ids=lambda t: t.name)
def test_every_type_of_whole_bytes(dtype: ir.DataType) -> None:
    content = bytes(range(6 * dtype.bitwidth // 8))
    proto = onnx.TensorProto(name="t", data_type=int(dtype), dims=[2, 3], raw_data=content, doc_string="d")
    proto.metadata_props.add(key="k", value="v")
    known = ir.serde.deserialize_tensor(proto)
    found = DetachedTensors().detach(proto)
    assert found is not None
    assert (found.name, found.dtype, found.shape, found.doc_string) == ("t", dtype, ir.Shape([2, 3]), "d")
    assert found.metadata_props == {"k": "v"}
    assert found.tobytes() == known.tobytes() == content
    assert found.numpy().dtype == known.numpy().dtype


def test_equal_shapes_are_one_object() -> None:
    detached = DetachedTensors()
    one, other = (
        detached.detach(onnx.numpy_helper.from_array(np.zeros((2, 3), kind), "t")) for kind in (np.int8, np.float32)
    )
    assert one is not None
    assert other is not None
    assert one.shape is other.shape


@pytest.mark.parametrize(
    "proto",
    (
        helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0]),
        onnx.TensorProto(data_type=TensorProto.INT4, dims=[2], raw_data=b"\x21"),
        onnx.TensorProto(data_type=TensorProto.FLOAT, dims=[2], raw_data=bytes(4)),
        onnx.TensorProto(data_type=TensorProto.FLOAT, dims=[-1, -1], raw_data=bytes(4)),
        onnx.TensorProto(data_type=TensorProto.FLOAT, dims=[1] * 33, raw_data=bytes(4)),
        onnx.TensorProto(data_type=TensorProto.FLOAT, dims=[0], raw_data=b""),
        onnx.TensorProto(data_type=TensorProto.STRING, dims=[2], raw_data=bytes(2)),
        onnx.TensorProto(data_type=TensorProto.UNDEFINED, dims=[2], raw_data=bytes(2)),
        onnx.TensorProto(data_type=999, dims=[2], raw_data=bytes(2)),
        onnx.TensorProto(data_type=TensorProto.INT8, dims=[2], raw_data=bytes(2), data_location=1),
    ),
    ids=(
        "typed",
        "half bytes",
        "too short",
        "negative",
        "many axes",
        "empty",
        "strings",
        "no type",
        "unknown type",
        "external",
    ),
)
def test_others_are_left(proto: onnx.TensorProto) -> None:
    assert DetachedTensors().detach(proto) is None
