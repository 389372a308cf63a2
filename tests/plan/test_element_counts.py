"""Of free sizes, a count is a bound in proportion that every size keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.plan.element_counts import FREE_LENGTH, Count, ElementCounts
from amct_onnx.plan.open_sizes import OpenSizes
from support.example_counts import examples

SIZES = st.integers(1, 9)
Shape = tuple[int | str, ...]


def graph(op_type: str, shape: Shape, result: Shape | None, sources: int, **attributes: Any) -> ir.Model:
    """One node of one output, on as many float inputs of one shape."""
    names = [f"x{i}" for i in range(sources)]
    inputs = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in names]
    constants = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in attributes.pop("constants", {}).items()]
    node = onnx.helper.make_node(op_type, [*names, *(c.name for c in constants)], ["y"], **attributes)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, result)
    made = onnx.helper.make_graph([node], "g", inputs, [output], constants)
    return ir.from_proto(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)]))


def count(model: ir.Model, sources: int) -> tuple[Count, Count | None]:
    """Of the first input, and of the output."""
    counts, node = ElementCounts(ConstantEvaluator(17), OpenSizes(model)), next(iter(model.graph))
    values = [v for v in node.inputs[:sources] if v is not None]
    for value in values:
        counts.start(value)
    counts.move(node.outputs[0], values)
    first = counts[values[0]]
    assert first is not None
    return first, counts[node.outputs[0]]


@st.composite
def pools(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Attributes of a MaxPool over two axes, and a size that it takes."""
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if draw(st.booleans()):
        attributes["strides"] = [draw(st.integers(1, 3)) for _ in range(2)]
    if draw(st.booleans()):
        attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(2)]
    attributes["ceil_mode"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    elif "dilations" not in attributes and draw(st.booleans()):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    return attributes, (draw(st.integers(1, 2)), 3, draw(SIZES), draw(SIZES))


@settings(
    max_examples=examples(80), derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(pools())
def test_no_pool_gives_more_than_is_counted(case: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    attributes, size = case
    before, after = count(graph("MaxPool", ("n", 3, "h", "w"), None, 1, **attributes), 1)
    node = onnx.helper.make_node("MaxPool", ["x"], ["y"], **attributes)
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", size), ("y", None))]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:]))
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim
    found = [d.dim_value for d in inferred]
    assume(min(found) > 0)  # a window longer than the axis
    if after is None:
        assert sum(attributes["pads"]) > 0
    else:
        assert math.prod(found) * before.most <= math.prod(size) * after.most
        assert after.usual <= after.most


FREE: Shape = ("n", 8, "h", "w")
RATIOS = {
    "Transpose": (("Transpose", None, 1, {}), 1, 1),
    "named axes, half of the channels": (("Slice", ("n", 4, "h", "w"), 1, {}), 1 / 2, 1 / 2),
    "MaxPool": (("MaxPool", None, 1, {"kernel_shape": [2, 2], "strides": [2, 2]}), 1, 1 / 4),
    "Slice with steps": (
        ("Slice", None, 1, {"constants": {"a": [0], "b": [9], "c": [2], "d": [3]}}),
        1,
        1 / 3,
    ),
    "ReduceMax": (("ReduceMax", None, 1, {"axes": [2]}), 1, 1 / 2),
    "Concat": (("Concat", None, 3, {"axis": 2}), 3, 3),
    "Concat with a constant": (
        ("Concat", None, 2, {"axis": 0, "constants": {"a": np.zeros((1, 8, 1, 1), np.float32)}}),
        2 + 1 / FREE_LENGTH**3,
        2 + 1 / FREE_LENGTH**3,
    ),
}


@pytest.mark.parametrize(("node", "most", "usual"), RATIOS.values(), ids=RATIOS)
def test_ratio(node: tuple[str, Shape | None, int, dict[str, Any]], most: float, usual: float) -> None:
    op_type, result, sources, attributes = node
    before, after = count(graph(op_type, FREE, result, sources, **attributes), sources)
    assert after is not None
    assert after.most == round(before.most * most)
    assert after.usual == round(before.usual * usual)


@pytest.mark.parametrize(
    ("op_type", "result"), [("Expand", None), ("Tile", None), ("Gather", ("k", 8, "h", "w")), ("Resize", None)]
)
def test_what_may_enlarge_is_not_counted(op_type: str, result: Shape | None) -> None:
    assert count(graph(op_type, FREE, result, 1), 1)[1] is None


def test_known_sizes_count_themselves() -> None:
    before, after = count(graph("Tile", (2, 3), (4, 9), 1), 1)
    assert (before, after) == (Count(6, 6), Count(36, 36))
