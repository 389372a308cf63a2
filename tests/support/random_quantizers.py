"""Random quantizers, weights and biases in every form that exporters write; the core that makes random graphs.

Exact cases have power-of-two scales and biases that are multiples of every scale_d * scale_w: then float32 holds every
number of the source exactly, so source, fake-quant and deploy must agree bit for bit without exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from support.qdq_builder import QdqBuilder

EXACT_SCALES = tuple(2.0**-k for k in range(3, 8))
SCALES = (0.0123, 0.1, 0.0371, 1 / 3, 0.0078125, 0.00390789)
BIAS_STEP = 2.0**-4
"""A multiple of every product of two EXACT_SCALES and a factor of at most 4 (a Gemm's alpha, a tail)."""
NARROW = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}
DTYPES: dict[str, Any] = {"int8": np.int8, "uint8": np.uint8, "int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4}


@dataclass(frozen=True)
class Live:
    """A float tensor that later nodes may read."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Quantizers:
    """Draws quantizers, weights and biases.

    Attributes:
        draw: hypothesis' function.
        exact: whether every number must be exact in float32.
        half: whether the tensors are float16.
        b: the graph under construction.
        rng: contents of weights and biases, which need not shrink.
        live: float tensors, in order.
        quantized: dequantized tensors and what they were made of.
        factors: the scale of each dequantized activation or weight, as an array.
    """

    draw: Any
    exact: bool
    half: bool
    b: QdqBuilder
    rng: np.random.Generator
    live: list[Live] = field(default_factory=list)
    quantized: list[tuple[str, Live]] = field(default_factory=list)
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    biases: dict[int, list[str]] = field(default_factory=dict)
    weights: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def yes(self) -> bool:
        return bool(self.draw(st.booleans()))

    def seldom(self) -> bool:
        return bool(self.pick(*[False] * 4, True))

    def scale(self) -> float:
        return float(self.pick(*(EXACT_SCALES if self.exact else SCALES)))

    @property
    def float_type(self) -> Any:
        return np.float16 if self.half else np.float32

    def floats(self, values: Any, **extra: Any) -> str:
        """A constant of the graph's float type."""
        return self.b.constant(np.asarray(values, self.float_type), **extra)

    # -- activations -------------------------------------------------------------------------------------------

    def quantize(self, source: Live, factors: tuple[float, int] | None = None) -> str:
        """A new Q/DQ pair on the tensor, or one that is there already, or another DQ behind its Q.

        Args:
            source: tensor to quantize.
            factors: scale and zero point of a new pair of int8; drawn when None.
        """
        shared = [name for name, of in self.quantized if of == source]
        if shared and factors is None and self.yes():
            return str(self.pick(*shared))
        kind = "int8" if factors is not None else self.pick("int8", "int8", "uint8", "absent")
        type_name = "uint8" if kind == "absent" else kind
        zero = 0 if kind == "absent" else self.draw(st.integers(*NARROW[type_name]))
        scale = np.asarray(self.scale(), np.float32)
        if factors is not None:
            scale, zero = np.asarray(factors[0], np.float32), factors[1]
        half = self.half and self.b.opset >= 19 and self.yes()
        if half:
            scale = scale.astype(np.float16).astype(np.float32)
        value = source.name if not self.half or half else self._cast(source.name, TensorProto.FLOAT)
        integers = self.b.node("QuantizeLinear", [value, *self._factors(scale, zero, kind, half)])
        integers = self._between(integers, type_name, zero)
        names = [self._dequantized(integers, scale, zero, kind, half) for _ in range(2 if self.seldom() else 1)]
        for name in names:
            self.quantized.append((name, source))
            self.factors[name] = scale
        return names[0]

    def _dequantized(self, integers: str, scale: np.ndarray, zero: int, kind: str, half: bool) -> str:
        name = self.b.node("DequantizeLinear", [integers, *self._factors(scale, zero, kind, half)])
        return self._cast(name, TensorProto.FLOAT16) if self.half and not half else name

    def _factors(self, scale: np.ndarray, zero: int, kind: str, half: bool) -> list[str]:
        """Tensors of their own for each Q and DQ: equal by value only."""
        scale = scale.reshape(self.pick((), (), (1,)))
        factors = [self.b.constant(scale.astype(np.float16) if half else scale, as_node=self.yes())]
        if kind == "absent":
            return factors
        return [*factors, self.b.constant(np.full(scale.shape, zero, DTYPES[kind]))]

    def _between(self, integers: str, kind: str, zero: int) -> str:
        """Nodes that exporters put between Q and DQ."""
        low, high = NARROW[kind]
        options = ["nothing", "nothing", "nothing", "Identity", "Cast"]
        if self.b.opset >= 12:
            options.append("Clip")
        option = self.pick(*options)
        if option == "Identity":
            return self.b.node("Identity", [integers])
        if option == "Cast":
            return self._cast(integers, TensorProto.INT8 if kind == "int8" else TensorProto.UINT8)
        if option == "Clip":
            ends = (max(low, zero - self.pick(0, 7, 64)), min(high, zero + self.pick(1, 8, 63)))
            return self.b.node("Clip", [integers, *(self.b.constant(np.asarray(e, DTYPES[kind])) for e in ends)])
        return integers

    def _cast(self, value: str, to: int) -> str:
        return self.b.node("Cast", [value], to=to)

    # -- weights -----------------------------------------------------------------------------------------------

    def weight(self, shape: tuple[int, ...], axis: int, channels: int) -> str:
        """A dequantized weight; sometimes one that another layer reads too."""
        kinds = ["int8", "int8", "uint8", "float"] + (["int4", "uint4"] if self.b.opset >= 21 and not self.half else [])
        kind = self.pick(*kinds)
        form = self.pick("zero", "absent", "shared") if kind == "int8" else "zero"
        per_channel = self.b.opset >= 13 and channels == shape[axis] and self.yes()
        count = channels if per_channel else 1
        scale = np.asarray([self.scale() for _ in range(min(count, 3))] * count, np.float32)[:count]
        flat = scale if per_channel or (self.b.opset >= 13 and self.yes()) else scale.reshape(())
        used = {"axis": self.pick(axis, axis - len(shape))} if per_channel else {}
        same = [n for n, of in self.weights if of == shape]
        if form == "shared" and same:
            value, zeros = str(self.pick(*same)), np.zeros(flat.shape, np.int8)
            name = self._weight(value, flat, zeros, used, quantize=False)
        elif kind == "float":
            layout = [1] * len(shape)
            layout[axis] = count
            integers = self.rng.integers(-128, 128, shape)
            value = self.b.constant((integers * scale.reshape(layout)).astype(np.float32), self.b.fresh("w"))
            name = self._weight(value, flat, np.zeros(flat.shape, np.int8), used, quantize=True)
        else:
            low, high = NARROW[kind]
            edge = self.pick(0, 0, 1)  # without -128, a channel may change its sign
            integers = self.rng.integers(low + edge, high + 1, shape)
            value = self.b.constant(integers.astype(DTYPES[kind]), self.b.fresh("w"))
            if kind == "int8":
                self.weights.append((value, shape))
            middle = 0 if low < 0 else (high + 1) // 2
            zeros = None if form == "absent" else np.full(flat.shape, middle, DTYPES[kind])
            name = self._weight(value, flat, zeros, used, quantize=False)
        self.factors[name] = scale
        return name

    def _weight(
        self, value: str, scale: np.ndarray, zeros: np.ndarray | None, extra: dict[str, int], *, quantize: bool
    ) -> str:
        half = self.half and self.b.opset >= 19 and self.yes()
        kind = np.float16 if half else np.float32
        factors = [self.b.constant(scale.astype(kind))] + ([] if zeros is None else [self.b.constant(zeros)])
        if quantize:
            value = self._cast(value, TensorProto.FLOAT16) if half else value
            value = self.b.node("QuantizeLinear", [value, *factors], **extra)
        if self.b.opset >= 12 and self.seldom() and (zeros is None or zeros.dtype == np.int8):
            bounds = [self.b.constant(np.asarray(e, np.int8)) for e in (-127, 127)]
            value = self.b.node("Clip", [value, *bounds])
        name = self.b.node("DequantizeLinear", [value, *factors], **extra)
        return self._cast(name, TensorProto.FLOAT16) if self.half and not half else name

    # -- biases ------------------------------------------------------------------------------------------------

    def bias_values(self, channels: int) -> np.ndarray:
        if self.exact:
            return (self.rng.integers(-64, 65, channels) * BIAS_STEP).astype(np.float32)
        return self.rng.normal(size=channels).astype(np.float32)

    def bias(self, channels: int, activation: str, weight: str) -> str:
        """A bias: floats, sometimes shared; integers behind a DQ; floats behind Q and DQ."""
        form = self.pick("float", "float", "float", "same scale", "other scale", "lowest", "int8", "pair")
        if self.half or form == "float":
            known = self.biases.setdefault(channels, [])
            if known and self.yes():
                return str(self.pick(*known))
            known.append(self.floats(self.bias_values(channels), name=self.b.fresh("bias"), as_node=self.yes()))
            return known[-1]
        if form == "same scale":
            scale = self.factors[activation] * self.factors[weight]
            # what follows may scale the layer by two, and then half a step would be rounded
            step = 8 if self.exact else 1
            return self._integer_bias((self.rng.integers(-5000, 5000, channels) * step).astype(np.int32), scale)
        if form == "other scale":
            step = np.asarray(BIAS_STEP if self.exact else 0.0317, np.float32)
            return self._integer_bias(self.rng.integers(-64, 65, channels).astype(np.int32), step)
        if form == "lowest":
            integers = np.full(channels, -(2**31), np.int32)
            return self._integer_bias(integers, np.asarray(2.0**-35 if self.exact else 3e-10, np.float32))
        step = np.asarray(BIAS_STEP if self.exact else 0.0213, np.float32)
        if form == "int8":
            return self._integer_bias(self.rng.integers(-64, 65, channels).astype(np.int8), step)
        factors = [self.b.constant(step), self.b.constant(np.asarray(0, np.int8))]
        value = self.b.node("QuantizeLinear", [self.b.constant(self.bias_values(channels)), *factors])
        return self.b.node("DequantizeLinear", [value, *factors])

    def _integer_bias(self, integers: np.ndarray, scale: np.ndarray) -> str:
        extra = {}
        if scale.size > 1:
            extra["axis"] = 0
        elif self.b.opset < 13:
            scale = scale.reshape(())
        factors = [self.b.constant(scale)]
        if integers.dtype == np.int8 or self.yes():
            factors.append(self.b.constant(np.zeros(scale.shape, integers.dtype)))
        return self.b.node("DequantizeLinear", [self.b.constant(integers), *factors], **extra)
