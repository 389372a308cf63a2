"""Which tensors may have another size for other numbers, of inputs of the same shapes."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from amct_onnx.graph.sized_by_numbers import sized_by_numbers

HEAD = '<ir_version: 8, opset_import: ["": 17, "com.example": 1]> g (float[n, 4] x, float[1, 8, 4] boxes) => (y) '
NMS = "s = Constant<value = float[1, 1, 8] {1, 2, 3, 4, 5, 6, 7, 8}>() k = Constant<value_int = 3>() "


@pytest.mark.parametrize(
    ("body", "sized"),
    [
        ("y = NonZero(x)", {"y"}),
        (f"{NMS} chosen = NonMaxSuppression(boxes, s, k) y = Identity(chosen)", {"chosen", "y"}),
        (f"{NMS} flat = Reshape(s, m) y = Identity(x)", set()),
        ("i = NonZero(x) j = Transpose(i) e = GatherND(x, j) y = ReduceMax(e)", {"i", "j", "e", "y"}),
        ("m = Shape(x) y = Reshape(x, m)", set()),
        ("i = NonZero(x) m = Shape(i) y = ConstantOfShape(m)", {"i", "y"}),
        ("b = ArgMax<axis = 1, keepdims = 0>(x) y = Tile(b, b)", {"y"}),
        ("m = Constant<value_ints = [2]>() o = Constant<value_ints = [0]>() y = Slice(x, o, m)", set()),
        ("p = Relu(x) q = MaxPool<kernel_shape = [1]>(p) y = TopK(q, q)", {"y"}),
        ("y = com.example.NonZero(x)", set()),
        (
            "c = ReduceMax<keepdims = 0>(x) d = Cast<to = 9>(c) "
            "y = If(d) <then_branch = t () => (u) { u = Identity(x) }, else_branch = e () => (v) { v = Relu(x) }>",
            {"y"},
        ),
    ],
)
def test_sizes_that_numbers_decide(body: str, sized: set[str]) -> None:
    model = ir.from_proto(onnx.parser.parse_model(f"{HEAD} {{ {body} }}"))
    assert sized_by_numbers(model) == sized
