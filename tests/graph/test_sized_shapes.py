"""Shapes with given lengths of the free axes are those of the tensors that ONNX Runtime makes; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from amct_onnx.files.read import read_model
from amct_onnx.graph.sized_shapes import Axis, free_axes, sized_shapes

NETWORKS = Path(__file__).parents[1] / "data" / "networks"
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
CHAINS = {
    "halves": """(float[n, 6, h] x) => (float[a, b, c] y) {
        s = Shape (x) one = Constant <value_int = 1> () zero = Constant <value_ints = [0]> ()
        c = Gather (s, one) two = Constant <value_int = 2> () m = Add (c, one) f = Div (m, two)
        axis = Constant <value_ints = [1]> () e = Unsqueeze (f, zero) y = Slice (x, zero, e, axis) }""",
    "windows, computed in float": """(float[n, 4, 9] x) => (float[a, b, c] y) {
        s = Shape <start = 0, end = 1> (x) g = Cast <to = 1> (s) k = Constant <value_floats = [0.5]> ()
        m = Mul (g, k) u = Ceil (m) i = Cast <to = 7> (u) r = Constant <value_ints = [-1, 9]> ()
        t = Concat <axis = 0> (i, r) b = Tile (x, p) y = Reshape (b, t) p = Constant <value_ints = [2, 1, 1]> () }""",
    "Expand to a shape of which -1 stands for the input's": """(float[1, 3] x, float[n] z) => (float[a, b] y) {
        s = Shape (z) three = Constant <value_ints = [-1]> () t = Concat <axis = 0> (s, three)
        minus = Constant <value_ints = [-1]> () q = Equal (t, minus) l = Shape (t)
        o = ConstantOfShape <value = int64[1] {0}> (l)
        k = Constant <value_int = 1> () p = Add (o, k) w = Where (q, p, t) y = Expand (x, w) }""",
    "sizes of a Resize": """(float[n, 2, h, w] x, float[n, 3, h2, w2] z) => (float[a, b, c, d] y) {
        s = Shape <start = 0, end = 2> (x) t = Shape <start = -2> (z) e = Concat <axis = 0> (s, t)
        y = Resize <mode = "nearest"> (x, , , e) }""",
    "a mask of many elements, which are not computed": """(float[n, 1] x) => (float[a, b] y) {
        s = Shape (x) o = ConstantOfShape <value = int64[1] {1}> (s) k = Constant <value_ints = [40, 1, 900]> ()
        e = Expand (o, k) t = Trilu (e) f = Cast <to = 1> (t) m = ReduceMax <axes = [0], keepdims = 0> (f)
        r = Shape (m) q = ConstantOfShape (r) y = Relu (q) }""",
    "number of elements": """(float[n, 4] x) => (float[a] y) {
        k = Size (x) r = Constant <value_ints = [-1]> () f = Unsqueeze (k, o) o = Constant <value_ints = [0]> ()
        y = Reshape (x, f) }""",
}


def in_order(text: str) -> onnx.ModelProto:
    model = ir.from_proto(onnx.parser.parse_model(f"{HEADER} g {text}"))
    model.graph.sort()
    proto: onnx.ModelProto = ir.to_proto(model)
    return proto


def really(model: onnx.ModelProto, lengths: dict[Axis, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a run."""
    names = [o for n in model.graph.node for o in n.output if o]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(shown.SerializeToString(), options)
    feeds = {
        v.name: np.ones([d if isinstance(d, int) else lengths[d] for d in v.shape], np.float32)
        for v in session.get_inputs()
    }
    return {n: v.shape for n, v in zip(names, session.run(None, feeds), strict=True)}


@pytest.mark.parametrize("lengths", [(1, 1, 1, 1, 1), (2, 8, 6, 5, 7), (4, 3, 9, 2, 2)])
@pytest.mark.parametrize("name", CHAINS)
def test_sizes_that_a_graph_computes(name: str, lengths: tuple[int, ...]) -> None:
    proto = in_order(CHAINS[name])
    model = ir.from_proto(proto)
    taken = dict(zip(free_axes(model), lengths, strict=False))
    assert {k: v for k, v in sized_shapes(model, taken).items() if k not in ("x", "z")} == really(proto, taken)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("name", ["dense", "ocr", "windows"])
def test_networks_of_exporters(name: str, images: int) -> None:
    path = NETWORKS / f"{name}.onnx"
    model = read_model(path)
    assert free_axes(model) == ["n"]
    found = sized_shapes(model, {"n": images})
    assert found.pop("x") == (images, 3, 32, 32) and found == really(onnx.load(path), {"n": images})


def test_what_does_not_follow_is_left_out() -> None:
    """Also what has no elements: with other lengths it may have some, and a count of 0 would hide it."""
    text = """(float[n, 4] x, bool c) => (float[a, b] y) {
        s = Shape (x) r = NonZero (x) z = Relu (x) f = com.example.Foreign (x) v = Relu (f)
        b = If (c) <then_branch = t () => (float[d, e] p) { p = Relu (x) },
                    else_branch = e () => (float[d, e] p2) { p2 = Neg (x) }>
        k = Constant <value_ints = [4]> () o = Constant <value_ints = [9]> () u = Constant <value_ints = [1]> ()
        w = Slice (x, k, o, u) y = Relu (z) }"""
    header = '<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>'
    model = ir.from_proto(onnx.parser.parse_model(f"{header} g {text}"))
    found = sized_shapes(model, {"n": 5})
    assert {k: v for k, v in found.items() if k not in "kou"} == {
        "x": (5, 4),
        "c": (),
        "s": (2,),
        "z": (5, 4),
        "y": (5, 4),
    }


def test_an_axis_without_a_name_is_one_by_itself() -> None:
    model = ir.from_proto(in_order("(float[n, ?, ?] x, float[?, n] z) => (float[a] y) { y = Relu (x) }"))
    assert free_axes(model) == ["n", ("x", 1), ("x", 2), ("z", 0)]
    assert sized_shapes(model, {"n": 1, ("x", 1): 2, ("x", 2): 3, ("z", 0): 4})["y"] == (1, 2, 3)
