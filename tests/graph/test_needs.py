"""Numbers are needed of what an output is computed from, shapes of what Shape and its kin read."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from amct_onnx.graph.needs import MEASURES, SHAPED_BY_SHAPES, Need, needs_of
from amct_onnx.graph.random_nodes import numbers_of_chance, random_nodes

MODEL = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[n, 2] x, int64 two, bool true) => (float[m, k] y) { r = RandomNormalLike(x) BODY }
    <domain: "own", opset_import: ["" : 17]> noisy (a) => (b) { drawn = RandomNormalLike(a) b = Add(a, drawn) }
    <domain: "own", opset_import: ["" : 17]> like (a, k) => (b) { s = Shape(k) b = Reshape(a, s) }
    <domain: "own", opset_import: ["" : 17]> rolled <axis> (a) => (b) { b = Flatten<axis: int = @axis>(a) }
"""
RESHAPED = "s = Shape({}) y = Reshape(x, s)"
LOOP = """y, other = Loop (two, true, x, r) <body = lb (int64 i, bool c, float[n, 2] a, float[n, 2] b)
    => (bool co, float[n, 2] ao, float[n, 2] bo) { co = Identity(c) bo = Identity(b) BODY }>"""
SCAN = """a = Transpose(x) other, z = Scan <num_scan_inputs = 1, body = sb (float[n, 2] b, float[n] c)
    => (float[n, 2] bo, float[n] co) { bo = Identity(b) BODY }> (r, a) y = Transpose(z)"""
IF = """y = If (true) <then_branch = t () => (float[n, 2] a) { BODY }, else_branch = e () => (float[n, 2] b)
    { b = Identity(x) }>"""


def read(body: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(MODEL.replace("BODY", body)))


@pytest.mark.parametrize(
    "body",
    [
        RESHAPED.format("r"),
        "i = Identity(r) c = Cast<to = 10>(i) e = Exp(c) " + RESHAPED.format("e"),
        "t = Transpose(r) a = Concat<axis = 0>(t, t) l = MatMul(a, r) " + RESHAPED.format("l"),
        "k = Size(r) f = Cast<to = 1>(k) y = Mul(x, f)",
        "o = RandomUniformLike(r) " + RESHAPED.format("o"),
        "o = own.noisy(x) " + RESHAPED.format("o"),
        "y = own.like(x, r)",
        "f = own.rolled<axis = 1>(x) y = own.like(f, r)",
        IF.replace("BODY", "s = Shape(r) a = Reshape(x, s)"),
        LOOP.replace("BODY", "s = Shape(b) ao = Reshape(a, s)"),
        LOOP.replace("BODY", "d = RandomNormalLike(a) s = Shape(d) ao = Reshape(a, s)"),
        SCAN.replace("BODY", "co = Identity(c)"),
        "o = Add(x, r) y = Identity(x)",
    ],
)
def test_nothing_is_random_whose_shape_alone_is_read(body: str) -> None:
    model = read(body)
    assert random_nodes(model) == []
    assert {"r", "y"} & {v.name for v in numbers_of_chance(model, model.graph.outputs)} == {"r"}


@pytest.mark.parametrize(
    ("body", "drawn"),
    [
        ("y = Add(x, r)", "r"),
        ("z = NonZero(r) " + RESHAPED.format("z"), "r"),  # its size depends on the numbers
        ("a = Abs(r) s = Cast<to = 7>(a) y = Expand(x, s)", "r"),
        ("a = Abs(r) k = Cast<to = 7>(a) e = Expand(x, k) " + RESHAPED.format("e"), "r"),
        ("o = own.rolled<axis = 1>(r) y = Add(x, o)", "r"),
        ("o = own.noisy(x) y = own.like(o, x)", "drawn"),
        (IF.replace("BODY", "a = Add(x, r)"), "r"),
        (IF.replace("true", "c").replace("y = If", "c = Greater(r, x) y = If").replace("BODY", "a = Neg(x)"), "r"),
        (LOOP.replace("BODY", "ao = Add(a, b)"), "r"),
        (LOOP.replace("BODY", "d = RandomNormalLike(a) ao = Add(a, d)"), "d"),
        (LOOP.replace("y, other", "other, y").replace("BODY", "ao = Identity(a)"), "r"),
        (SCAN.replace("BODY", "t = Transpose(b) u = ReduceMax<keepdims = 0, axes = [0]>(t) co = Add(c, u)"), "r"),
        (SCAN.replace("BODY", "co = Identity(c)").replace("y = T", "q = T") + " y = Add(q, other)", "r"),
    ],
)
def test_what_an_output_is_computed_from_is_random(body: str, drawn: str) -> None:
    model = read(body)
    assert [n.outputs[0].name for n in random_nodes(model)] == [drawn]


def test_need_of_a_tensor_is_the_greater_of_its_readers() -> None:
    model = read("s = Shape(r) a = Reshape(r, s) y = Add(a, x)")
    needs = {v.name: need for v, need in needs_of(model).items()}
    assert needs == dict.fromkeys(("x", "y", "a", "s", "r"), Need.NUMBERS)
    only = {v.name: need for v, need in needs_of(model, [model.graph[1].outputs[0]]).items()}
    assert only == {"s": Need.NUMBERS, "r": Need.SHAPE, "x": Need.SHAPE}


def test_operators_of_the_lists_exist() -> None:
    """A misspelled one would never be met."""
    known = {s.name for s in onnx.defs.get_all_schemas()}
    newer = {"Swish", "RMSNormalization", "Gelu", "Mish"}  # onnx may be too old to know them
    assert (MEASURES | SHAPED_BY_SHAPES) - newer <= known
