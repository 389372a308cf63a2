"""auto_pad and output_shape in numbers give what onnxruntime computes for the source."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.normalise.conv_attributes import spell_out_convolutions
from support.deploy_evaluator import attributes, run

ALWAYS = {"kernel_shape", "strides", "dilations", "group", "pads"}


def model_of(op_type: str, x: np.ndarray, w: np.ndarray, given: dict[str, object], *, known: bool) -> onnx.ModelProto:
    shape = list(x.shape) if known else ["n", x.shape[1], *(f"d{i}" for i in range(x.ndim - 2))]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w"], ["y"], name="layer", **given)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def spelled(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, object]]:
    graph = ir.from_proto(model)
    spell_out_convolutions(graph)
    result = ir.to_proto(graph)
    return result, attributes(result.graph.node[0])


axes = st.integers(1, 2)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, np.ndarray, np.ndarray, dict[str, object]]:
    op_type = draw(st.sampled_from(["Conv", "ConvTranspose"]))
    rank = draw(st.integers(1, 2))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    kernel, size, strides, dilations = each(1, 4), each(7, 10), each(1, 3), each(1, 2)
    given: dict[str, object] = {"strides": strides, "dilations": dilations}
    given["auto_pad"] = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if op_type == "ConvTranspose":
        extra = [min(e, s - 1) for e, s in zip(each(0, 1), strides, strict=True)]
        if draw(st.booleans()):
            given["output_padding"] = extra
        if draw(st.booleans()):
            full = zip(size, strides, kernel, dilations, strict=True)
            given["output_shape"] = [s * (n - 1) + d * (k - 1) + 1 - draw(st.integers(0, s)) for n, s, k, d in full]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, *size)).astype(np.float32)
    w = rng.normal(size=(2, 3, *kernel) if op_type == "Conv" else (3, 2, *kernel)).astype(np.float32)
    return op_type, x, w, given


@given(convolutions())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_explicit_padding_equals_the_source(case: tuple[str, np.ndarray, np.ndarray, dict[str, object]]) -> None:
    op_type, x, w, given = case
    model = model_of(op_type, x, w, given, known=True)
    try:
        expected = run(model, {"x": x})["y"]
    except Exception:  # onnxruntime refuses an output_shape that no padding gives
        return
    result, found = spelled(model)
    assert found.keys() >= ALWAYS and not found.keys() & {"auto_pad", "output_shape"}
    assert np.array_equal(run(result, {"x": x})["y"], expected)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_stride_1_needs_no_input_size(mode: str) -> None:
    x, w = np.ones((1, 3, 9, 8), np.float32), np.ones((2, 3, 4, 3), np.float32)
    model = model_of("Conv", x, w, {"auto_pad": mode}, known=False)
    result, found = spelled(model)
    assert "auto_pad" not in found
    assert np.array_equal(run(result, {"x": x})["y"], run(model, {"x": x})["y"])


def test_unknown_size_leaves_the_attribute() -> None:
    x, w = np.ones((1, 3, 9, 8), np.float32), np.ones((2, 3, 4, 3), np.float32)
    _, found = spelled(model_of("Conv", x, w, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, known=False))
    assert found["auto_pad"] == b"SAME_UPPER"


@pytest.mark.parametrize(
    ("op_type", "rank", "attributes", "message"),
    [
        (
            "ConvTranspose",
            2,
            {"output_shape": [9, 9]},
            r"output_shape = \[9, 9\] .* SAME_LOWER. Export .* fix the sizes",
        ),
        ("Conv", 3, {"auto_pad": "SAME_UPPER", "strides": [2, 2, 2]}, "no auto_pad over 3 axes"),
        ("Conv", 2, {"pads": [1, 1, 1]}, r"pads = \[1, 1, 1\] does not fit 2 spatial axes"),
        ("Conv", 2, {"strides": [1]}, "strides"),
        ("Conv", 2, {"strides": [0, 1], "auto_pad": "SAME_UPPER"}, r"strides = \[0, 1\], and no number"),
        ("Conv", 2, {"kernel_shape": [2, 3]}, r"kernel_shape is \[2, 3\], that of its weight \[3, 3\]"),
        ("ConvTranspose", 2, {"output_padding": [0]}, "output_padding"),
        ("ConvTranspose", 2, {"output_shape": [9]}, "output_shape"),
    ],
)
def test_what_atc_stops_at_or_misreads_is_refused(
    op_type: str, rank: int, attributes: dict[str, object], message: str
) -> None:
    x, w = np.ones((1, 3, *[9] * rank), np.float32), np.ones((3, 3, *[3] * rank), np.float32)
    with pytest.raises(UnsupportedModelError, match=rf"'layer' \({op_type}\).*{message}"):
        spelled(model_of(op_type, x, w, attributes, known=False))


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_kernel_of_unknown_size_is_refused(op_type: str) -> None:
    model = model_of(op_type, np.ones((1, 3, 9, 8), np.float32), np.ones((3, 3, 3, 3), np.float32), {}, known=True)
    del model.graph.initializer[:]
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, None))
    with pytest.raises(UnsupportedModelError, match="Export the model with kernel_shape"):
        spelled(model)
