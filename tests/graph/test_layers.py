"""The table of layers against ONNX Runtime: each operator sums just the products that the table says."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from amct_onnx.graph.layers import LAYER_KINDS, Layout, along, part_of

OPERATORS = [("Conv", False), ("ConvTranspose", False), ("Gemm", False), ("Gemm", True), ("MatMul", False)]


def test_every_entry_is_held_to_onnx_runtime() -> None:
    assert {op_type for op_type, _ in OPERATORS} == set(LAYER_KINDS)


def results(op_type: str, x: np.ndarray, weight: np.ndarray, **attributes: int) -> np.ndarray:
    """The operator in ONNX Runtime; integers in float32 are exact here."""
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in (("x", x), ("w", weight))]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "w": weight})[0]


@pytest.mark.parametrize(("op_type", "transposed"), OPERATORS)
@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    group=st.integers(1, 3),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    spatial=st.integers(1, 3),
)
def test_ones_give_each_channel_the_sum_of_its_weights(
    op_type: str, transposed: bool, seed: int, group: int, inputs: int, outputs: int, spatial: int
) -> None:
    kind = LAYER_KINDS[op_type]
    group = group if kind.convolution else 1
    layout = Layout(kind, group, transposed)
    random = np.random.default_rng(seed)
    kernel = tuple(random.integers(1, 4, spatial)) if kind.convolution else ()
    shape = {"Conv": (group * outputs, inputs), "ConvTranspose": (group * inputs, outputs)}.get(
        op_type, (outputs, inputs) if transposed else (inputs, outputs)
    )
    weight = random.integers(-9, 10, (*shape, *kernel)).astype(np.float32)
    attributes = {"group": group} if kind.convolution else {"transB": 1} if transposed else {}
    # in a Conv the first output element sees the whole kernel, in a ConvTranspose the one at kernel - 1
    size = kernel if op_type == "Conv" else tuple(2 * k - 1 for k in kernel)
    seen = tuple(0 if op_type == "Conv" else k - 1 for k in kernel)
    y = results(op_type, np.ones((1, group * inputs, *size), np.float32), weight, **attributes)
    middle = y[(0, slice(None), *seen)]

    rows = layout.by_channel(weight)
    assert rows.shape == (layout.channels(weight.shape), layout.terms(weight.shape)) == (len(middle), rows.shape[1])
    assert rows.sum(axis=1).tolist() == middle.tolist()
    factor = random.integers(1, 5, len(middle)).astype(np.float32)
    scaled = layout.by_channel(weight * layout.along_channels(factor, weight.shape))
    assert np.array_equal(scaled, rows * factor[:, None])
    assert np.array_equal(
        y * layout.along_result(factor, y.ndim),
        np.moveaxis(np.moveaxis(y, kind.result_axis, -1) * factor, -1, kind.result_axis),
    )


@settings(max_examples=50, derandomize=True, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_a_factor_lies_along_its_axis(shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.sampled_from(range(len(shape))))
    factor = np.arange(1, shape[axis] + 1)
    array = np.ones(shape, np.int64)
    laid = along(factor, tuple(shape), axis)
    assert np.array_equal(
        np.moveaxis(array * laid, axis, -1), np.broadcast_to(factor, np.moveaxis(array, axis, -1).shape)
    )
    begin = data.draw(st.integers(0, shape[0] - 1))
    index = (slice(begin, begin + 1),)
    assert np.array_equal(array[index] * part_of(laid, index), (array * laid)[index])


def test_one_factor_stands_for_all() -> None:
    assert along(np.array([3]), (2, 3), None).shape == (1, 1)
    assert Layout(LAYER_KINDS["Conv"]).along_channels(np.array([3]), (4, 2, 1)).shape == (1, 1, 1)


def test_every_operator_is_one_of_the_specification() -> None:
    for op_type, kind in LAYER_KINDS.items():
        schema = onnx.defs.get_schema(op_type)
        assert (kind.bias_input is not None) == (len(schema.inputs) > 2)
