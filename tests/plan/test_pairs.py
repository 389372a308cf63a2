"""Pairs go, merge and move without changing a bit on any chip; what is left is the least that is needed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

from amct_onnx import compare, convert_qat_model
from amct_onnx.errors import UnsupportedModelError
from support.deploy_evaluator import Evaluator
from support.kept_pairs import same_on_every_chip
from support.random_graphs import Case, cases
from support.written_models import Array, convert_and_compare, operators, write_model

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Array] = {
    # powers of two: multiplying by the reciprocal is dividing, so that no tie falls otherwise in the source
    "s": np.float32(2.0**-4),
    "t": np.float32(2.0**-4 * 1.002),
    "sixth": np.float32(2.0**-4) / np.float32(6),
    "z": np.int8(4),
    "zu": np.uint8(132),
    "w": RNG.integers(-127, 128, (8, 8, 1, 1)).astype(np.int8),
    "w16": RNG.integers(-127, 128, (8, 16, 1, 1)).astype(np.int8),
    "sw": np.float32(2.0**-7),
    "six": np.float32(6),
    "half": np.array([4, 4], np.int64),
    "eights": np.array([8, 8], np.int64),
    "zero": np.array(0, np.int64),
    "axes": np.array([0], np.int64),
    "rest": np.array([8, 36], np.int64),
    "back": np.array([-1, 8, 6, 6], np.int64),
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "factor": np.array([1, 1, 2, 2], np.float32),
}


def pair(source: str, result: str, scale: str = "s") -> str:
    return f"q_{result} = QuantizeLinear({source}, {scale}, z) {result} = DequantizeLinear(q_{result}, {scale}, z) "


def layer(source: str, result: str, weight: str = "w") -> str:
    return f"w_{result} = DequantizeLinear({weight}, sw) {result} = Conv({source}, w_{result}) "


def start() -> str:
    """A layer in front, whose result is not quantized yet."""
    return pair("x", "d0") + layer("d0", "c")


MOVED = "r = Transpose<perm=[0,1,3,2]>(d) "

COUNTED = {
    "factor between": (pair("c", "d") + "m = Div(d, six) " + pair("m", "e", "sixth") + layer("e", "y"), 2, 0),
    "factor, moved": (
        pair("c", "d")
        + "t1 = Transpose<perm=[0,1,3,2]>(d) m = Div(t1, six) "
        + pair("m", "e", "sixth")
        + layer("e", "y"),
        2,
        0,
    ),
    "scale beside": (
        pair("c", "d") + "m = Transpose<perm=[0,1,3,2]>(d) " + pair("m", "e", "t") + layer("e", "y"),
        2,
        0,
    ),
    "read by float operators": (
        pair("c", "d")
        + "m = Div(d, six) "
        + pair("m", "e", "sixth")
        + "f = Sigmoid(e) "
        + pair("f", "g")
        + layer("g", "y"),
        3,
        1,
    ),
    "factor that is read": (
        pair("c", "d") + "m = Div(d, six) " + pair("m", "e", "sixth") + layer("e", "l") + "y = Add(l, m)",
        2,
        1,
    ),
    "layers behind two movements": (
        pair("c", "d")
        + MOVED
        + layer("r", "l")
        + "u = Transpose<perm=[0,1,3,2]>(d) "
        + layer("u", "m")
        + "y = Add(l, m)",
        3,
        0,
    ),
    "several readers behind one movement": (
        pair("c", "d") + MOVED + layer("r", "l") + layer("r", "m") + "o = Add(l, m) y = Add(o, r)",
        2,
        1,
    ),
    "a layer in front of a movement and one behind it": (
        pair("c", "d") + layer("d", "l") + MOVED + layer("r", "m") + "y = Add(l, m)",
        3,
        0,
    ),
    "a float operator in front of a movement, a layer behind it": (
        pair("c", "d") + MOVED + layer("r", "l") + "y = Add(l, d)",
        3,
        1,
    ),
    "one quantizer for layer and Add": (pair("c", "d") + layer("d", "l") + "y = Add(d, l)", 2, 1),
    "several DequantizeLinear and pairs of one tensor": (
        pair("c", "d")
        + "e = DequantizeLinear(q_d, s, z) "
        + pair("c", "f")
        + "u = Sigmoid(d) v = Tanh(e) o = Add(u, v) "
        + layer("f", "l")
        + "h = Neg(f) k = Add(h, o) y = Add(k, l)",
        2,
        1,
    ),
    "chain of Casts": (
        "a = Cast<to=1>(c) b = Cast<to=1>(a) "
        + pair("a", "d")
        + layer("d", "u")
        + pair("b", "e")
        + layer("e", "v")
        + "y = Add(u, v)",
        2,
        0,
    ),
    "shape is read": (
        pair("c", "d")
        + "n = Shape(d) g = Gather(n, zero) b = Unsqueeze(g, axes) r = Concat<axis=0>(b, rest) f = Reshape(d, r) "
        + "h = Reshape(f, back) "
        + layer("h", "y"),
        2,
        0,
    ),
    "nothing reads the other half": (
        pair("c", "d") + "a, b = Split<axis=1>(d, half) u = Sigmoid(b) " + layer("d", "y"),
        2,
        0,
    ),
    "Concat of two grids, the second quantizer has one of them": (
        pair("c", "d")
        + pair("x", "o", "sixth")
        + "m = Concat<axis=1>(d, o) v = Transpose<perm=[0,1,3,2]>(m) "
        + pair("v", "e")
        + layer("e", "y", "w16"),
        3,
        1,
    ),
    "Concat of two grids that others read": (
        pair("c", "d") + "m = Concat<axis=1>(d, x) " + pair("m", "e") + layer("e", "l", "w16") + "a, b = "
        "Split<axis=1>(m, eights) y = Add(l, a)",
        3,
        1,
    ),
    "uint8 and int8 of one grid": (
        pair("c", "d")
        + "q = QuantizeLinear(c, s, zu) e = DequantizeLinear(q, s, zu) "
        + layer("e", "l")
        + "u = Sigmoid(d) v = Tanh(e) y = Sum(l, u, v)",
        2,
        1,
    ),
    "Concat of two grids, one of them behind a factor": (
        pair("c", "d")
        + "f = Div(d, six) "
        + pair("f", "o", "sixth")
        + "m = Concat<axis=1>(x, o) "
        + pair("m", "e", "sixth")
        + layer("e", "y", "w16"),
        3,
        1,
    ),
}


@pytest.mark.parametrize(("body", "quants", "antiquants"), COUNTED.values(), ids=COUNTED.keys())
def test_pairs_left(body: str, quants: int, antiquants: int, tmp_path: Path) -> None:
    text = f"g (float[n, 8, 6, 6] x) => (float[n, 8, 6, 6] y) {{ {start()} {body} }}"
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    feeds = {"x": RNG.normal(size=(2, 8, 6, 6)).astype(np.float32) * 3}
    _, deploy = convert_and_compare(path, feeds, units=0)
    found = operators(deploy)
    assert (found.count("AscendQuant"), found.count("AscendAntiQuant")) == (quants, antiquants)
    same_on_every_chip(path, feeds, tmp_path)


def test_chain_of_factors_may_be_long(tmp_path: Path) -> None:
    body = "".join(f"m{i + 1} = Mul({f'm{i}' if i else 'd'}, s) " for i in range(1200))
    text = f"g (float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y) {{ {start()} {pair('c', 'd')} {body} y = Neg(m1200) }}"
    report = convert_qat_model(write_model(tmp_path / "m.onnx", text, CONSTANTS), tmp_path / "m")
    assert [r.action for r in report.residuals] == ["anti-quant"]


MOVED = {
    "in front of Concat": (pair("x", "d") + "m = Concat<axis=1>(d, d) " + pair("m", "e") + "y = Sigmoid(e)", 8 * 36),
    "behind MaxPool": (pair("x", "d") + "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d) y = Sigmoid(m)", 8 * 9),
    "behind Slice": (pair("x", "d") + "m = Slice(d, one, two, one) y = Sigmoid(m)", 36),
    "in front of Resize": (pair("x", "d") + "m = Resize(d, , factor) " + pair("m", "e") + "y = Sigmoid(e)", 8 * 36),
    "stays where others read": (
        pair("x", "d") + "m = Slice(d, one, two, one) u = Sigmoid(m) v = Tanh(d) y = Concat<axis=1>(u, v)",
        8 * 36,
    ),
}


MOVED_FREE = {name: MOVED[name] for name in ("in front of Concat", "behind MaxPool", "in front of Resize")} | {
    "behind Slice": (pair("x", "d") + "m = Slice(d, one, two, two) y = Sigmoid(m)", 48),
    "behind two MaxPools": (
        pair("x", "d") + "a = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(d) "
        "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) r = Transpose<perm=[0,1,3,2]>(m) y = Sigmoid(r)",
        8,
    ),
    # of one row, each half is as large as the whole
    "in front of two MaxPools": (
        pair("x", "d") + 'a = MaxPool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER">(d) '
        "b = MaxPool<kernel_shape=[1,1], strides=[2,2]>(d) u = Sigmoid(a) v = Tanh(b) y = Concat<axis=1>(u, v)",
        8 * 36,
    ),
    "in front of a MaxPool of wide padding": (
        pair("x", "d") + "m = MaxPool<kernel_shape=[2,2], strides=[1,1], pads=[1,1,1,1]>(d) y = Sigmoid(m)",
        8 * 36,
    ),
    "behind Transpose, where a layer reads": (
        pair("x", "d") + "m = Transpose<perm=[0,1,3,2]>(d) " + layer("m", "l") + "y = Add(l, m)",
        8 * 36,
    ),
}
"""Of what stands where the sizes of all but the channels are free."""
PLACES = {name: (*case, "1, 8, 6, 6") for name, case in MOVED.items()}
PLACES |= {f"{name}, free sizes": (*case, "n, 8, h, w") for name, case in MOVED_FREE.items()}


@pytest.mark.parametrize(("body", "elements", "shape"), PLACES.values(), ids=PLACES)
def test_pair_stands_where_fewer_elements_pass(body: str, elements: int, shape: str, tmp_path: Path) -> None:
    text = f"g (float[{shape}] x) => (float[a, b, c, d] y) {{ {body} }}"
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    feeds = {"x": RNG.normal(size=(1, 8, 6, 6)).astype(np.float32) * 3}
    _, deploy = convert_and_compare(path, feeds, units=0)
    assert operators(deploy).count("AscendQuant") == 1
    evaluator = Evaluator(str(tmp_path / "out" / "m_deploy_model.onnx"))
    evaluator.run(feeds)
    name = next(n.output[0] for n in deploy.graph.node if n.op_type == "AscendAntiQuant")
    assert evaluator.values[name].size == elements
    same_on_every_chip(path, feeds, tmp_path)


def test_ledger_names_a_tensor_of_the_source_where_a_pair_has_moved(tmp_path: Path) -> None:
    # a layer of other factors and a Sigmoid read what the pair makes behind the MaxPool, where the source has none
    body = pair("x", "d") + "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d) " + pair("m", "e", "sixth")
    body += layer("e", "l") + "u = Sigmoid(m) y = Add(l, u)"
    path = write_model(tmp_path / "m.onnx", f"g (float[1, 8, 6, 6] x) => (float[1, 8, 3, 3] y) {{ {body} }}", CONSTANTS)
    report = convert_qat_model(path, tmp_path / "m")
    assert [layer.source_input for layer in report.layers] == ["m"]
    found = compare(path, tmp_path / "m", {"x": RNG.normal(size=(1, 8, 6, 6)).astype(np.float32)})
    assert found.verdict.level in ("equal", "noise")


# -- exactness ----------------------------------------------------------------------------------------------------


def check(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(case.model, str(path))
        try:
            same_on_every_chip(path, case.feeds, Path(folder))
        except UnsupportedModelError:
            assume(False)


QUICK = settings(
    max_examples=8, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SLOW = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@QUICK
@given(cases())
def test_random_graphs_compute_the_same_on_every_chip(case: Case) -> None:
    check(case)


@pytest.mark.slow
@SLOW
@given(cases())
def test_many_random_graphs_compute_the_same_on_every_chip(case: Case) -> None:
    check(case)


@pytest.mark.slow
@SLOW
@given(cases(half=True))
def test_many_float16_graphs_compute_the_same_on_every_chip(case: Case) -> None:
    check(case)
