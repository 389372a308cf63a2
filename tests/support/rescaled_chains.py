"""A hypothesis strategy for chains of movement, scalar factors and quantizers that nearly restore the first integers.

The input holds all 256 integers of the first quantizer, and some numbers beyond them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.written_models import Array

SHAPE = (1, 8, 6, 6)
SCALES = (0.6, 0.0371, 2.0**-4, 0.2, 1 / 3)
FACTORS = (6.0, 0.125, 8.0, 3.0, 1 / 3, 0.7, 1.0)
BESIDE = (1.0, 1.0, 1.0, 1.001, 0.998, 1.01, 2.0)
"""Scale of a quantizer over that of the first, times the factors in between."""


@dataclass(frozen=True)
class ChainCase:
    """A graph in ONNX's text form, its initializers, and inputs."""

    text: str
    constants: dict[str, Array]
    feeds: dict[str, Array]


@dataclass
class _Chain:
    draw: Any
    half: bool
    lines: list[str] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)
    integers: set[str] = field(default_factory=set)
    count: int = 0

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def seldom(self) -> bool:
        return bool(self.pick(*[False] * 5, True))

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, values: Any, kind: Any = None) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values, kind or (np.float16 if self.half else np.float32))
        return name

    def node(self, text: str) -> str:
        result = self.name()
        self.lines.append(f"{result} = {text}")
        return result

    def pair(self, value: str, scale: str, zero: str) -> str:
        return self.node(f"DequantizeLinear({self.node(f'QuantizeLinear({value}, {scale}, {zero})')}, {scale}, {zero})")

    def factor(self, value: str, number: float) -> str:
        constant = self.constant(np.full(self.pick((), (), (1,), (1, 1, 1, 1)), number))
        form = self.pick("Div({}, {})", "Mul({}, {})", "Mul({1}, {0})")
        return self.node(form.format(value, constant))

    def move(self, value: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        n, c, h, w = shape
        kind = self.pick(*"transpose reshape pool slice split concat pad resize relu two".split())
        if kind == "pool" and min(h, w) > 1:
            return self.node(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({value})"), (n, c, h // 2, w // 2)
        if kind == "reshape":
            there = self.constant([n, c, -1], np.int64)
            back = self.constant([n, c, w, h], np.int64)
            return self.node(f"Reshape({self.node(f'Reshape({value}, {there})')}, {back})"), (n, c, w, h)
        if kind == "slice" and h > 1:
            ends = ", ".join(self.constant([k], np.int64) for k in (1, h, 2))
            return self.node(f"Slice({value}, {ends})"), (n, c, h - 1, w)
        if kind == "split" and w % 2 == 0:
            halves = self.constant([w // 2] * 2, np.int64)
            one, other = self.name(), self.name()
            self.lines.append(f"{one}, {other} = Split<axis=3>({value}, {halves})")
            if self.seldom():
                self.results.append(self.node(f"Sigmoid({other})"))
            return one, (n, c, h, w // 2)
        if kind == "concat" and h < 12:
            return self.node(f"Concat<axis=2>({value}, {value})"), (n, c, 2 * h, w)
        if kind == "pad":
            pads = self.constant([0, 0, 1, 0, 0, 0, 0, 1], np.int64)
            fill = self.pick("", f", {self.constant(0.0)}", f", {self.constant(0.6)}")
            return self.node(f"Pad({value}, {pads}{fill})"), (n, c, h + 1, w + 1)
        if kind == "resize" and max(h, w) < 12:
            sizes = self.constant([1, 1, 2, 1], np.float32)
            return self.node(f"Resize({value}, , {sizes})"), (n, c, 2 * h, w)
        if kind == "relu":
            return self.node(f"Relu({value})"), shape
        return self.node(f"Transpose<perm=[0,1,3,2]>({value})"), (n, c, w, h)

    def layer(self, value: str) -> str:
        weight = self.constant(np.random.default_rng(self.count).integers(-127, 128, (8, 8, 1, 1)), np.int8)
        return self.node(f"Conv({value}, {self.node(f'DequantizeLinear({weight}, {self.constant(2.0**-7)})')})")

    def negative(self, value: str) -> str:
        return self.node(f"Neg({value})")

    def integer_output(self, value: str, scale: float, zero: str) -> str:
        """What another quantizer makes behind a factor, handed out as integers."""
        last = self.constant(scale * float(self.pick(*BESIDE)) / 6)
        result = self.node(f"QuantizeLinear({self.node(f'Div({value}, {self.constant(6.0)})')}, {last}, {zero})")
        self.integers.add(result)
        return result

    def run(self) -> ChainCase:
        scale, offset = float(self.pick(*SCALES)), self.pick(0, 3, -128, -7)
        zero = self.constant(offset, np.int8)
        value, shape = self.pair("x", self.constant(scale), zero), SHAPE
        first = scale
        for _ in range(self.pick(1, 1, 2, 3)):
            for _ in range(self.pick(0, 1, 2, 3)):
                if self.pick(True, False):
                    number = float(self.pick(*FACTORS))
                    before = self.lines.copy()
                    value = self.factor(value, number)
                    divides = self.lines[len(before)].split(" = ")[1].startswith("Div")
                    scale = scale / number if divides else scale * number
                else:
                    value, shape = self.move(value, shape)
                if self.seldom():
                    self.results.append(self.node(f"Tanh({value})"))
            other = self.pick(*[zero] * 5, self.constant(offset + 1, np.int8))
            scale = float(np.float32(scale)) * float(self.pick(*BESIDE))
            value = self.pair(value, self.constant(scale), other)
        for _ in range(self.pick(1, 2)):
            if self.seldom():
                value, shape = self.move(value, shape)
            end = self.pick(self.layer, self.layer, self.negative, lambda v: self.integer_output(v, scale, zero))
            self.results.append(end(value))
        kind = "float16" if self.half else "float"
        types = {r: "int8" if r in self.integers else kind for r in self.results}
        outputs = ", ".join(f"{of}[n{r}, c{r}, h{r}, w{r}] {r}" for r, of in types.items())
        text = f"g ({kind}[1, 8, 6, 6] x) => ({outputs}) {{ {' '.join(self.lines)} }}"
        size = int(np.prod(SHAPE))
        integers = np.arange(-140, size - 140) % 280 - 140
        x = ((integers - offset) * first).reshape(SHAPE).astype(np.float16 if self.half else np.float32)
        return ChainCase(text, self.constants, {"x": x})


@st.composite
def rescaled_chains(draw: Any, *, half: bool = False) -> ChainCase:
    """One to three quantizers behind the first, each behind up to three factors and moves, in front of readers."""
    return _Chain(draw, half).run()
