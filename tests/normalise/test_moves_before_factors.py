"""Movement behind a factor, or behind a quantizer that only rescales, does not hide that integers are restored."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amct_onnx import convert_qat_model
from support.example_counts import examples
from support.kept_pairs import same_on_every_chip
from support.rescaled_chains import ChainCase, rescaled_chains
from support.written_models import Array, operators, write_model

SIXTH = np.float32(0.6) / np.float32(6)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.6),
    "sixth": SIXTH,
    "beside": np.float32(0.6 * 1.002),
    "z": np.int8(3),
    "o": np.int8(4),
    "six": np.float32(6),
    "alike": np.full((8, 1, 1), 6, np.float32),
    "unlike": np.array([6, 6, 6, 6, 6, 6, 6, 3], np.float32).reshape(8, 1, 1),
    "below": np.float32(-6),
    "w": np.random.default_rng(0).integers(-127, 128, (8, 8, 1, 1)).astype(np.int8),
    "sw": np.float32(2.0**-7),
    "flat": np.array([1, 48, 6], np.int64),
    "back": np.array([1, 8, 6, 6], np.int64),
    "one": np.array([1], np.int64),
    "five": np.array([5], np.int64),
    "two": np.array([2], np.int64),
    "halves": np.array([4, 4], np.int64),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "nought": np.float32(0),
    "half": np.float32(0.5),
    "sizes": np.array([1, 1, 2, 2], np.float32),
    "unit": np.float32(1),
}


def pair(source: str, result: str, scale: str = "sixth", zero: str = "z") -> str:
    factors = f"{scale}, {zero}"
    return f"q{result} = QuantizeLinear({source}, {factors}) {result} = DequantizeLinear(q{result}, {factors}) "


def layer(source: str, result: str) -> str:
    return f"w{result} = DequantizeLinear(w, sw) {result} = Conv({source}, w{result}) "


MOVES = {
    "Transpose": "m@ = Transpose<perm=[0,1,3,2]>(f@) ",
    "Reshape": "r@ = Reshape(f@, flat) m@ = Reshape(r@, back) ",
    "MaxPool": "m@ = MaxPool<kernel_shape=[2,2], strides=[2,2]>(f@) ",
    "Slice": "m@ = Slice(f@, one, five, two) ",
    "Split": "h@, k@ = Split<axis=1>(f@, halves) m@ = Concat<axis=1>(k@, h@) ",
    "Concat": "k@ = Concat<axis=2>(f@, f@) m@ = MaxPool<kernel_shape=[2,1]>(k@) ",
    "Pad": "m@ = Pad(f@, pads) ",
    "Pad with 0": "m@ = Pad(f@, pads, nought) ",
    "Resize": "m@ = Resize(f@, , sizes) ",
    "Relu": "m@ = Relu(f@) ",
}
SAME = {name: "f@ = Div(d, six) " + move + pair("m@", "e@") for name, move in MOVES.items()}
SAME |= {
    "no move": "f@ = Div(d, six) " + pair("f@", "e@"),
    "equal numbers": "f@ = Div(d, alike) t@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("t@", "e@"),
    "factors and moves by turns": "f@ = Div(d, six) t@ = Transpose<perm=[0,1,3,2]>(f@) g@ = Mul(t@, six) "
    "m@ = MaxPool<kernel_shape=[2,2]>(g@) " + pair("m@", "e@", "s"),
    "scale beside, Pad": "f@ = Identity(d) m@ = Pad(f@, pads) " + pair("m@", "e@", "beside"),
    "moves behind the second": "f@ = Div(d, six) "
    + pair("f@", "g@")
    + "m@ = Transpose<perm=[0,1,3,2]>(g@) "
    + pair("m@", "e@"),
    "two restore": "f@ = Div(d, six) "
    + pair("f@", "g@")
    + "m@ = Pad(g@, pads) n@ = Mul(m@, six) "
    + pair("n@", "e@", "s"),
    "factors alike": "f@ = Div(d, six) g@ = Div(d, six) m@ = Concat<axis=2>(f@, g@) " + pair("m@", "e@"),
    "neutral operators": "a@ = Sub(d, nought) b@ = Pow(a@, unit) c1@ = AveragePool<kernel_shape=[1,1]>(b@) "
    "f@ = Div(c1@, six) m@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("m@", "e@"),
}
OTHER = {
    "below 0": "f@ = Div(d, below) m@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("m@", "e@"),
    "unlike numbers": "f@ = Div(d, unlike) m@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("m@", "e@"),
    "constant above": "f@ = Div(six, d) m@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("m@", "e@"),
    "another zero point": "f@ = Div(d, six) m@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("m@", "e@", "sixth", "o"),
    "another scale": "f@ = Div(d, six) m@ = Transpose<perm=[0,1,3,2]>(f@) " + pair("m@", "e@", "s"),
    "fills with another number": "f@ = Div(d, six) m@ = Pad(f@, pads, half) " + pair("m@", "e@"),
    "factors unlike": "f@ = Div(d, six) m@ = Concat<axis=2>(f@, d) " + pair("m@", "e@"),
}
INTEGERS = (((np.arange(288) % 276 - 138) * np.float32(0.6)).astype(np.float32)).reshape(1, 8, 6, 6)
"""What Q(0.6, 3) makes 256 integers of, and some numbers beyond."""


def written(bodies: Iterable[str], folder: Path, end: str = layer("e@", "y@")) -> Path:
    """A model with one branch for each body, between a pair and an output of its own."""
    branches = [f"{body} {end}".replace("@", str(i)) for i, body in enumerate(bodies)]
    results = ", ".join(f"float[a{i}, b{i}, c{i}, d{i}] y{i}" for i, _ in enumerate(branches))
    nodes = " ".join([pair("x", "d", "s"), *branches])
    text = f"g (float[1, 8, 6, 6] x) => ({results}) <float[1, 8, 6, 6] d> {{ {nodes} }}"
    used = {n: v for n, v in CONSTANTS.items() if any(f"{n}{end}" in text for end in ",)")}
    return write_model(folder / "m.onnx", text, used)


def behind_first(bodies: Iterable[str], folder: Path) -> list[set[str]]:
    """Operators in front of each layer; the numbers of all are those of the model without any rewriting."""
    same_on_every_chip(written(bodies, folder), {"x": INTEGERS}, folder)
    deploy = onnx.load(folder / "after_deploy_model.onnx")
    makers = {name: n for n in deploy.graph.node for name in n.output}
    found = []
    for output in deploy.graph.output:
        waiting, seen = [output.name], set[str]()
        while waiting:
            name = waiting.pop()
            if name in makers and name not in seen:
                seen.add(name)
                waiting += makers[name].input
        found.append({makers[name].op_type for name in seen})
    return found


def test_second_quantizer_goes(tmp_path: Path) -> None:
    found = behind_first(SAME.values(), tmp_path)
    left = {name for name, types in zip(SAME, found, strict=True) if types & {"AscendAntiQuant", "Div", "Mul"}}
    assert not left
    assert all("AscendQuant" in types for types in found)


def test_second_quantizer_stays(tmp_path: Path) -> None:
    found = behind_first(OTHER.values(), tmp_path)
    assert not {name for name, types in zip(OTHER, found, strict=True) if "AscendAntiQuant" not in types}


READ = {
    "the factor": ("Neg(f@)", 2, 1),
    "what moved": ("Neg(m@)", 2, 1),
    "the first pair": ("Neg(d)", 2, 1),
    "the second pair": ("Neg(e@)", 1, 1),
    "what moves on": ("MaxPool<kernel_shape=[2,2], strides=[2,2]>(e@)", 1, 1),
}


@pytest.mark.parametrize(("reader", "quants", "antiquants"), READ.values(), ids=READ)
def test_other_readers_get_their_numbers(reader: str, quants: int, antiquants: int, tmp_path: Path) -> None:
    end = f"{layer('e@', 'l@')} u@ = {reader} v@ = GlobalAveragePool(u@) y@ = Add(l@, v@)"
    path = written([SAME["Transpose"]], tmp_path, end)
    same_on_every_chip(path, {"x": INTEGERS}, tmp_path)
    found = operators(onnx.load(tmp_path / "after_deploy_model.onnx"))
    assert (found.count("AscendQuant"), found.count("AscendAntiQuant")) == (quants, antiquants)


@pytest.mark.parametrize(("scale", "quants"), [("sixth", 1), ("s", 2)], ids=["restored", "other integers"])
def test_graph_output_takes_integers_of_the_first(scale: str, quants: int, tmp_path: Path) -> None:
    body = f"f0 = Div(d, six) m0 = Transpose<perm=[0,1,3,2]>(f0) y = QuantizeLinear(m0, {scale}, z)"
    text = f"g (float[1, 8, 6, 6] x) => (int8[a, b, c, d] y) {{ {pair('x', 'd', 's')} {body} }}"
    path = write_model(tmp_path / "m.onnx", text, {n: CONSTANTS[n] for n in ("s", "sixth", "z", "six")})
    same_on_every_chip(path, {"x": INTEGERS}, tmp_path)
    found = operators(onnx.load(tmp_path / "after_deploy_model.onnx"))
    assert (found.count("AscendQuant"), found.count("AscendAntiQuant")) == (quants, quants - 1)


def test_move_in_a_body_stands_behind_what_is_outside(tmp_path: Path) -> None:
    body = (
        f"f = Div(d, six) {pair('f', 'g')} y = If (yes) "
        f"<then_branch = g1 () => (float[i, j, k, l] y1) {{ m = Transpose<perm=[0,1,3,2]>(g) {layer('m', 'y1')} }}, "
        f"else_branch = g2 () => (float[i, j, k, l] y2) {{ n = MaxPool<kernel_shape=[2,2]>(g) {layer('n', 'y2')} }}>"
    )
    text = f"g (float[1, 8, 6, 6] x, bool yes) => (float[a, b, c, d] y) {{ {pair('x', 'd', 's')} {body} }}"
    path = write_model(tmp_path / "m.onnx", text, {n: CONSTANTS[n] for n in ("s", "sixth", "z", "six", "w", "sw")})
    for yes in (True, False):
        same_on_every_chip(path, {"x": INTEGERS, "yes": np.asarray(yes)}, tmp_path)
    (node,) = onnx.load(tmp_path / "after_deploy_model.onnx").graph.node  # nothing stands outside
    for branch, move in zip(node.attribute, ("Transpose", "MaxPool"), strict=True):
        assert [n.op_type for n in branch.g.node] == [move, "AscendQuant", "Conv", "AscendDequant"]


def test_pair_of_a_float_layer_is_not_doubled(tmp_path: Path) -> None:
    """A MatMul of two activations with offsets reads floats: one pair serves it and what moves in front of it."""
    body = f"{pair('d', 'e', 'beside')} m = Transpose<perm=[0,1,3,2]>(e) y = MatMul(e, m)"
    text = f"g (float[1, 8, 6, 6] x) => (float[a, b, c, d] y) {{ {pair('x', 'd', 's')} {body} }}"
    path = write_model(tmp_path / "m.onnx", text, {n: CONSTANTS[n] for n in ("s", "beside", "z")})
    same_on_every_chip(path, {"x": INTEGERS}, tmp_path)
    found = operators(onnx.load(tmp_path / "after_deploy_model.onnx"))
    assert (found.count("AscendQuant"), found.count("AscendAntiQuant")) == (1, 1)


def test_names_of_the_source_keep_their_numbers(tmp_path: Path) -> None:
    """What moved in front of the factor has a name of its own: compare finds tensors by name."""
    report = convert_qat_model(written(SAME.values(), tmp_path), tmp_path / "out")
    made = {name for n in onnx.load(report.deploy_model).graph.node for name in n.output}
    read = {e.source_input for e in report.layers}
    moved = {f"m{i}" for i, name in enumerate(SAME) if name != "scale beside, Pad"}
    assert not moved & made and not moved & read


def check(case: ChainCase) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder) / "m.onnx", case.text, case.constants, opset=19, ir_version=9)
        same_on_every_chip(path, case.feeds, Path(folder))


@settings(
    max_examples=examples(4), derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(rescaled_chains())
def test_random_chains_compute_the_same_on_every_chip(case: ChainCase) -> None:
    check(case)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.one_of(rescaled_chains(), rescaled_chains(half=True)))
def test_many_random_chains_compute_the_same_on_every_chip(case: ChainCase) -> None:
    check(case)
