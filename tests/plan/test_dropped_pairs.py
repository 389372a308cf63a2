"""Pairs that feed no int8 layer go on request; what stood for a Relu or a Clip stays, and compare knows."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx as amct
from amct_onnx.cli import main
from support.deploy_evaluator import Evaluator, run
from support.example_counts import examples
from support.written_models import Array, operators, write_model

RNG = np.random.default_rng(3)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(2.0**-4),
    "s2": np.float32(2.0**-5),
    "near": np.float32(2.0**-4 * (1 + 2.0**-9)),
    "half": np.float32(0.5),
    "z": np.int8(0),
    "u": np.uint8(0),
    "m": np.uint8(128),
    "low": np.uint8(100),
    "high": np.uint8(200),
    "pads": np.array([0, 0, 0, 1, 0, 0, 0, 1], np.int64),
    "below": np.float32(-1),
    "ones": np.array([0], np.int64),
    "sevens": np.array([6], np.int64),
    "axes": np.array([3], np.int64),
    "w": RNG.integers(-127, 128, (8, 8, 1, 1)).astype(np.int8),
    "sw": np.float32(2.0**-7),
}
LAYER = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, sw) c = Conv(d, e) "
FORMS = {
    "calibrated range": ("p = QuantizeLinear(c, s, m) r = DequantizeLinear(p, s, m)", [], (-8.0, 7.9375)),
    "a Relu is gone": ("p = QuantizeLinear(c, s, u) r = DequantizeLinear(p, s, u)", ["Clip"], (0.0, 15.9375)),
    "the Relu is there": (
        "o = Relu(c) p = QuantizeLinear(o, s, u) r = DequantizeLinear(p, s, u)",
        ["Relu"],
        (0.0, 15.9375),
    ),
    "a Relu is gone in front of a Pad below 0": (
        "o = Relu(c) k = Pad(o, pads, below) n = Slice(k, ones, sevens, axes) p = QuantizeLinear(n, s, u) "
        "r = DequantizeLinear(p, s, u)",
        ["Relu", "Pad", "Slice", "Clip"],
        (0.0, 15.9375),
    ),
    "a Clip of integers": (
        "p = QuantizeLinear(c, s, m) o = Clip(p, low, high) r = DequantizeLinear(o, s, m)",
        ["Clip"],
        (-1.75, 4.5),
    ),
}


def converted(body: str, folder: Path) -> tuple[Path, amct.ConversionReport]:
    text = f"g (float[n, 8, 6, 6] x) => (float[n, 8, 6, 6] y) {{ {LAYER} {body} y = Sigmoid(r) }}"
    path = write_model(folder / "m.onnx", text, CONSTANTS)
    return path, amct.convert_qat_model(path, folder / "out" / "m", residual_quantizers="drop")


@pytest.mark.parametrize(("body", "left", "bounds"), FORMS.values(), ids=FORMS.keys())
def test_saturation_that_stands_for_an_operator_stays(
    body: str, left: list[str], bounds: tuple[float, float], tmp_path: Path
) -> None:
    path, report = converted(body, tmp_path)
    (entry,) = report.residuals
    assert (entry.action, entry.scale, (entry.low, entry.high)) == ("dropped", 2.0**-4, bounds)
    found = operators(onnx.load(report.deploy_model))
    assert found == ["AscendQuant", "Conv", "AscendDequant", *left, "Sigmoid"]
    feeds = {"x": RNG.normal(size=(2, 8, 6, 6)).astype(np.float32) * 3}
    fake = run(report.fake_quant_model, feeds)["y"]
    assert np.array_equal(Evaluator(report.deploy_model).run(feeds)["y"], fake)
    if left:  # a value changes by half a step at most, and Sigmoid by a quarter of that
        expected = run(path, feeds, qdq_source=True)["y"]
        assert 0 < np.abs(fake - expected).max() <= 2.0**-4 / 2 / 4 + 2.0**-20


def test_pair_that_a_layer_shares_stays(tmp_path: Path) -> None:
    body = "p = QuantizeLinear(c, s, z) h = DequantizeLinear(p, s, z) f = DequantizeLinear(w, sw) l = Conv(h, f) "
    body += "r = Add(h, l)"
    _, report = converted(body, tmp_path)
    (entry,) = report.residuals
    assert (entry.action, entry.detail) == (
        "anti-quant",
        "shared with an int8 layer: Add reads what it rounds, behind an int8 Conv. To remove it, let Add get the "
        "numbers in front of the quantizer, which the int8 layer needs",
    )


def test_pair_that_another_rounded_for_goes_with_it_and_its_saturation_stays(tmp_path: Path) -> None:
    body = "o = QuantizeLinear(c, s, u) h = DequantizeLinear(o, s, u) f = DequantizeLinear(w, sw) l = Conv(h, f) "
    body += (
        "k = Transpose<perm=[0, 1, 3, 2]>(h) p = QuantizeLinear(k, s, u) v = DequantizeLinear(p, s, u) r = Add(v, l)"
    )
    path, report = converted(body, tmp_path)
    assert [(e.tensor, e.action, e.detail) for e in report.residuals] == [
        ("c", "dropped", "int8 layers round for themselves: its other readers get unrounded numbers, in its range"),
        ("k", "dropped", "it feeds no int8 layer: its readers get unrounded numbers"),
    ]
    feeds = {"x": RNG.normal(size=(2, 8, 6, 6)).astype(np.float32) * 3}
    fake, expected = run(report.fake_quant_model, feeds)["y"], run(path, feeds, qdq_source=True)["y"]
    assert np.abs(fake - expected).max() <= 2.0**-4 / 2 / 4 + 2.0**-20  # half a step, of which Sigmoid lets a quarter


def test_pair_that_another_rounded_for_behind_two_inputs_leaves_its_saturation(tmp_path: Path) -> None:
    body = "o = QuantizeLinear(c, s, u) h = DequantizeLinear(o, s, u) k = Min(h, c) "
    body += "p = QuantizeLinear(k, s, u) r = DequantizeLinear(p, s, u)"
    path, report = converted(body, tmp_path)
    assert [(e.tensor, e.action) for e in report.residuals] == [("c", "dropped"), ("k", "dropped")]
    found = operators(onnx.load(report.deploy_model))
    assert found == ["AscendQuant", "Conv", "AscendDequant", "Clip", "Min", "Clip", "Sigmoid"]
    kept = amct.convert_qat_model(path, tmp_path / "kept" / "m").residuals
    assert [(e.tensor, e.action) for e in kept] == [("c", "elided"), ("k", "anti-quant")]


def test_layer_in_a_body_shares_with_no_pair_outside(tmp_path: Path) -> None:
    body = "f = DequantizeLinear(w, sw) yes = Constant<value = bool {1}>() "
    body += "l = If(yes) <then_branch = t () => (float[n, 8, 6, 6] a) { a = Conv(d, f) }, "
    body += "else_branch = e () => (float[n, 8, 6, 6] b) { b = Neg(c) }> k = Neg(d) r = Add(k, l)"
    path, report = converted(body, tmp_path)
    assert [e.action for e in report.residuals] == ["anti-quant"]  # the Conv in front shares it
    alone = path.with_name("alone.onnx")
    onnx.save(onnx.load(path), alone)
    model = onnx.load(alone)
    next(n for n in model.graph.node if n.op_type == "Conv").input[0] = "x"
    onnx.save(model, alone)
    for choice, action, text in (("keep", "anti-quant", "Neg reads"), ("drop", "dropped", "it feeds no")):
        (entry,) = amct.convert_qat_model(alone, tmp_path / "alone" / "m", residual_quantizers=choice).residuals
        assert (entry.action, entry.detail[: len(text)]) == (action, text)


@pytest.mark.parametrize("body", [f[0] for f in FORMS.values()], ids=FORMS.keys())
def test_compare_calls_the_choice_no_fault(body: str, tmp_path: Path) -> None:
    path, _ = converted(body, tmp_path)
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(4, 8, 6, 6)).astype(np.float32))
    report = amct.compare(path, tmp_path / "out" / "m", tmp_path / "x.npz")
    assert not [d for d in report.divergences if d.is_fault]


def test_compare_knows_what_a_layer_reads_behind_a_factor(tmp_path: Path) -> None:
    body = "a = Sigmoid(c) p = QuantizeLinear(a, s, z) h = DequantizeLinear(p, s, z) k = Mul(h, half) "
    body += "o = QuantizeLinear(k, s2, z) n = DequantizeLinear(o, s2, z) t = Transpose<perm = [0, 1, 3, 2]>(n) "
    body += "p1 = QuantizeLinear(t, s2, z) v = DequantizeLinear(p1, s2, z) f = DequantizeLinear(w, sw) l = Conv(v, f) "
    body += "p2 = QuantizeLinear(l, s, z) r = DequantizeLinear(p2, s, z)"
    path, report = converted(body, tmp_path)
    assert report.layers[1].read_scale == 2.0**-5
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(4, 8, 6, 6)).astype(np.float32))
    compared = amct.compare(path, tmp_path / "out" / "m", tmp_path / "x.npz")
    assert not [d for d in compared.divergences if d.is_fault]


def test_compare_knows_with_which_scale_a_layer_quantizes_behind_a_pair_of_another(tmp_path: Path) -> None:
    body = "p = QuantizeLinear(c, s, z) h = DequantizeLinear(p, s, z) k = Transpose<perm = [0, 1, 3, 2]>(h) "
    body += (
        "o = QuantizeLinear(k, near, z) n = DequantizeLinear(o, near, z) f = DequantizeLinear(w, sw) l = Conv(n, f) "
    )
    body += "p2 = QuantizeLinear(l, s, z) r = DequantizeLinear(p2, s, z)"
    path, report = converted(body, tmp_path)
    layer = report.layers[1]
    assert (layer.scale_d, layer.read_scale) == (2.0**-4, CONSTANTS["near"])
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(4, 8, 6, 6)).astype(np.float32) * 3)
    compared = amct.compare(path, tmp_path / "out" / "m", tmp_path / "x.npz")
    assert not [d for d in compared.divergences if d.is_fault]


def test_option_of_the_command(tmp_path: Path) -> None:
    path, _ = converted(FORMS["calibrated range"][0], tmp_path)
    arguments = ["convert", "--model", str(path), "--save_path", str(tmp_path / "c" / "m")]
    for choice, pairs in (("keep", 1), ("drop", 0)):
        assert main([*arguments, "--residual_quantizers", choice]) == 0
        deploy = onnx.load(str(tmp_path / "c" / "m_deploy_model.onnx"))
        assert operators(deploy).count("AscendAntiQuant") == pairs


EXACT: dict[str, Array] = {
    # powers of two, and ranges that hold every number but its sign: all arithmetic is exact
    "fine": np.float32(0.25),
    "s2": np.float32(2),
    "s4": np.float32(4),
    "lowest": np.int8(-128),
    "middle": np.int8(0),
    "highest": np.int8(127),
    "w": RNG.integers(-1, 2, (8, 8, 1, 1)).astype(np.int8),
    "one": np.float32(1),
    "two": np.float32(2),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "zero": np.float32(0),
    "below": np.float32(-2),
    "from": np.array([4], np.int64),
    "to": np.array([12], np.int64),
    "channels": np.array([1], np.int64),
}
LARGEST = 254
"""What 127 steps of 2 hold."""
LEFT = {"lowest": "Relu", "middle": "Identity", "highest": "Least"}
"""What a dropped pair leaves, by its zero point."""
Grid = tuple[str, str]


@dataclass
class Drawn:
    """A random graph, and the same with what is left of dropped pairs."""

    random: random.Random
    lines: list[str] = field(default_factory=list)
    bounds: dict[str, float] = field(default_factory=lambda: {"c": 64.0})
    grids: dict[str, Grid] = field(default_factory=dict)
    pairs: dict[str, tuple[str, Grid]] = field(default_factory=dict)
    layers: dict[str, tuple[str, Grid]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def draw(self) -> None:
        for _ in range(self.random.randint(3, 9)):
            source, new = self.random.choice(list(self.bounds)), f"t{len(self.lines)}"
            self.random.choice([self.pair, self.pair, self.move, self.move, self.compute, self.join, self.layer])(
                source, new
            )

    def add(self, new: str, text: str, bound: float, grid: Grid | None, *sources: str) -> None:
        self.lines.append(f"{new} = {text}")
        self.bounds[new] = bound
        self.read.update(sources)
        if grid is not None:
            self.grids[new] = grid

    def pair(self, source: str, new: str) -> None:
        drawn = self.random.choice(["s2", "s4"]), self.random.choice(list(LEFT))
        grid = self.grids.get(source, drawn) if self.random.random() < 0.6 else drawn
        self.pairs[new] = source, grid
        self.add(new, "", self.bounds[source], grid, source)

    def move(self, source: str, new: str) -> None:
        grid, kind = self.grids.get(source), self.random.choice(["turn", "pool", "pad", "relu"])
        if kind == "pad":
            fill = self.random.choice(["zero", "below"])
            if fill == "below" and grid is not None and (grid[0] == "s4" or grid[1] == "lowest"):
                grid = None
            self.lines.append(f"{new}p = Pad({source}, pads, {fill})")
            text = f"MaxPool<kernel_shape=[3, 3]>({new}p)"
        else:
            text = {
                "turn": f"Transpose<perm=[0, 1, 3, 2]>({source})",
                "pool": f"MaxPool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>({source})",
                "relu": f"Relu({source})",
            }[kind]
        self.add(new, text, self.bounds[source], grid, source)

    def compute(self, source: str, new: str) -> None:
        bound, texts = self.bounds[source], {"Neg({})": 1.0, "Abs({})": 1.0, "Div({}, two)": 0.5, "Mul(two, {})": 2.0}
        text, gain = self.random.choice(list(texts.items()))
        if bound * gain <= LARGEST:
            self.add(new, text.format(source), bound * gain, None, source)

    def join(self, source: str, new: str) -> None:
        other = self.random.choice(list(self.bounds))
        total = self.bounds[source] + self.bounds[other]
        if total <= LARGEST and self.random.random() < 0.5:
            self.add(new, f"Add({source}, {other})", total, None, source, other)
            return
        grid = self.grids.get(source) if self.grids.get(source) == self.grids.get(other) else None
        self.lines.append(f"{new}c = Concat<axis=1>({source}, {other})")
        bound = max(self.bounds[source], self.bounds[other])
        self.add(new, f"Slice({new}c, from, to, channels)", bound, grid, source, other)

    def layer(self, source: str, new: str) -> None:
        if source in self.grids:
            self.layers[new] = source, self.grids[source]
            self.lines.append(f"{new} = ")
            self.read.add(source)

    def written(self, path: Path, dropped: set[tuple[str, Grid]] | None = None) -> Path:
        """The source, or what the conversion shall compute where it dropped pairs."""
        text = quantized("x", "d", ("fine", "middle")) + "e = DequantizeLinear(w, one) c = Conv(d, e) "
        for line in self.lines:
            name = line.split(" ")[0]
            if name in self.pairs:
                source, grid = self.pairs[name]
                left = f"{name} = {LEFT[grid[1]]}({source}) ".replace(f"Least({source})", f"Min({source}, zero)")
                text += left if (source, grid) in (dropped or ()) else quantized(source, name, grid)
            elif name in self.layers:
                source, grid = self.layers[name]
                if dropped is not None:  # the layer rounds for itself
                    text += quantized(source, f"{name}r", grid)
                    source = f"{name}r"
                text += f"{name}e = DequantizeLinear(w, one) {name} = Conv({source}, {name}e) "
            else:
                text += f"{line} "
        results = [n for n in (*self.bounds, *self.layers) if n not in self.read]
        shape = "float[1, 8, 6, 6]"
        return write_model(path, f"g ({shape} x) => ({', '.join(f'{shape} {r}' for r in results)}) {{ {text} }}", EXACT)


def quantized(source: str, new: str, grid: Grid) -> str:
    scale, zero = grid
    return f"{new}q = QuantizeLinear({source}, {scale}, {zero}) {new} = DequantizeLinear({new}q, {scale}, {zero}) "


def same_as_saturations(seed: int, folder: Path) -> int:
    """Convert a random graph; what is left computes exactly what its saturations, and the pairs that stay, say.

    Returns:
        The number of dropped pairs.
    """
    drawn = Drawn(random.Random(seed))
    drawn.draw()
    source = drawn.written(folder / "m.onnx")
    report = amct.convert_qat_model(source, folder / "m", residual_quantizers="drop")
    assert {e.verdict for e in report.layers} == {"converted"}
    zeros = {-128: "lowest", 0: "middle", 127: "highest"}
    rows = {
        (e.tensor, (f"s{e.scale:g}", zeros[round(-128 - e.low / e.scale)]))
        for e in report.residuals
        if e.action == "dropped" and e.scale is not None and e.low is not None
    }
    feeds = {"x": RNG.integers(-32, 33, (1, 8, 6, 6)).astype(np.float32) / 4}
    fake = run(report.fake_quant_model, feeds)
    expected = run(drawn.written(folder / "r.onnx", rows), feeds, qdq_source=True)
    deploy = Evaluator(report.deploy_model).run(feeds)
    for name, values in expected.items():
        np.testing.assert_array_equal(fake[name], values, err_msg=f"{name} of seed {seed}")
        np.testing.assert_array_equal(deploy[name], values, err_msg=f"{name} of seed {seed}")
    return len(rows)


def test_random_graphs_keep_their_saturations(tmp_path: Path) -> None:
    assert sum(same_as_saturations(seed, tmp_path) for seed in range(examples(6))) > 6


@pytest.mark.slow
def test_many_random_graphs_keep_their_saturations(tmp_path: Path) -> None:
    assert sum(same_as_saturations(seed, tmp_path) for seed in range(100, 700)) > 600
