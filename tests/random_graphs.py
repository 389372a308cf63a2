"""A hypothesis strategy for Q/DQ graphs that onnxruntime can run, with inputs for them.

Exact cases have power-of-two scales and biases that are multiples of every scale_d * scale_w: then float32 holds every
number of the source exactly, so source, fake-quant and deploy must agree bit for bit without exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto

from qdq_builder import QdqBuilder

OPSETS = (11, 12, 13, 15, 17, 18, 19, 21)
EXACT_SCALES = tuple(2.0**-k for k in range(3, 8))
SCALES = (0.0123, 0.1, 0.0371, 1 / 3, 0.0078125, 0.00390789)
BIAS_STEP = 2.0**-4
"""A multiple of every product of two EXACT_SCALES and a Gemm's alpha."""
BATCH = 2


@dataclass(frozen=True)
class Live:
    """A float tensor that later nodes may read."""

    name: str
    shape: tuple[int, ...]
    free: bool = True
    """Whether its first axis may be declared dynamic."""


@dataclass(frozen=True)
class Case:
    """A model, inputs for it, and what is known of it."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    exact: bool
    layers: tuple[str, ...]


@dataclass
class _Maker:
    draw: Any
    exact: bool
    b: QdqBuilder
    rng: np.random.Generator
    live: list[Live] = field(default_factory=list)
    quantized: list[tuple[str, Live]] = field(default_factory=list)
    biases: dict[int, list[str]] = field(default_factory=dict)
    weights: list[tuple[str, np.ndarray]] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def yes(self) -> bool:
        return bool(self.draw(st.booleans()))

    def scale(self) -> float:
        return float(self.pick(*(EXACT_SCALES if self.exact else SCALES)))

    # -- quantizers --------------------------------------------------------------------------------------------

    def quantize(self, source: Live) -> str:
        """A new Q/DQ pair on the tensor, or one that is there already."""
        shared = [name for name, of in self.quantized if of == source]
        if shared and self.yes():
            return str(self.pick(*shared))
        kind = self.pick("int8", "int8", "uint8", "absent")
        clip = None
        zero: np.ndarray | None = None
        if kind == "int8":
            zero = np.asarray(self.draw(st.integers(-128, 127)), np.int8)
        elif kind == "uint8":
            zero = np.asarray(self.draw(st.integers(0, 255)), np.uint8)
        if self.b.opset >= 12 and self.pick(True, False, False):
            middle = 0 if zero is None else int(zero)
            low, high = (-128, 127) if kind == "int8" else (0, 255)
            clip = (max(low, middle - self.pick(0, 7, 64)), min(high, middle + self.pick(1, 8, 63)))
        name = self.b.activation(source.name, self.scale(), zero, clip)
        self.quantized.append((name, source))
        return name

    def weight(self, shape: tuple[int, ...], axis: int, channels: int) -> str:
        """A dequantized weight; sometimes one that another layer reads too."""
        integers = self.rng.integers(-128, 128, shape).astype(np.int8)
        per_channel = self.b.opset >= 13 and channels == shape[axis] and self.yes()
        count = channels if per_channel else 1
        scale = np.asarray([self.scale() for _ in range(min(count, 3))] * count, np.float32)[:count]
        form = self.pick("int8", "int8 no zero", "uint8", "float", "shared")
        if not per_channel:
            scale = scale.reshape(()) if self.yes() else scale
        if not per_channel and form != "shared" and scale.shape and self.b.opset < 13:
            scale = scale.reshape(())
        zeros = np.zeros(scale.shape, np.int8)
        used = axis if per_channel else None
        same = [n for n, array in self.weights if array.shape == shape]
        if form == "shared" and same:
            return self.b.weight(str(self.pick(*same)), scale, used, zeros)
        if form == "uint8":
            return self.b.weight(
                (integers.astype(np.int16) + 128).astype(np.uint8), scale, used, (zeros.astype(np.uint8) + 128)
            )
        if form == "float":
            layout = [1] * len(shape)
            if per_channel:
                layout[axis] = count
            floats = (integers * scale.reshape(layout if per_channel else [1] * len(shape))).astype(np.float32)
            return self.b.weight(floats, scale, used, zeros, quantize=True)
        name = self.b.constant(integers, self.b.fresh("w"))
        self.weights.append((name, integers))
        return self.b.weight(name, scale, used, zeros if form == "int8" else None)

    def bias(self, channels: int) -> str:
        """A float bias, an initializer or a Constant node; sometimes shared."""
        known = self.biases.setdefault(channels, [])
        if known and self.yes():
            return str(self.pick(*known))
        if self.exact:
            array = (self.rng.integers(-64, 65, channels) * BIAS_STEP).astype(np.float32)
        else:
            array = self.rng.normal(size=channels).astype(np.float32)
        known.append(self.b.constant(array, self.b.fresh("bias"), as_node=self.yes()))
        return known[-1]

    def add_layer(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **extra: Any) -> None:
        name = self.b.fresh(f"/{op_type.lower()}")
        self.layers.append(name)
        self.live.append(Live(self.b.node(op_type, inputs, name, **extra), shape))

    # -- layers ------------------------------------------------------------------------------------------------

    def conv(self, source: Live) -> None:
        cin, space = source.shape[1], source.shape[2:]
        group = self.pick(*(g for g in (1, cin, 2) if cin % g == 0))
        cout = group * self.pick(1, 2)
        kernel = [self.pick(*(k for k in (1, 2, 3) if k <= s)) for s in space]
        dilations = [self.pick(1, 2) if (k - 1) * 2 < s else 1 for k, s in zip(kernel, space, strict=True)]
        strides = [self.pick(1, 2) for _ in space]
        pads = [self.pick(0, 1) for _ in range(2 * len(space))]
        extra: dict[str, Any] = {}
        if any(d > 1 for d in dilations):
            extra["dilations"] = dilations
        if any(s > 1 for s in strides):
            extra["strides"] = strides
        if group > 1:
            extra["group"] = group
        if self.yes():
            extra["kernel_shape"] = kernel
        n = len(space)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        auto = self.pick("", "", "VALID", "SAME_UPPER") if "dilations" not in extra else ""
        if auto == "SAME_UPPER":
            extra["auto_pad"] = auto
            out = [-(-s // t) for s, t in zip(space, strides, strict=True)]
        elif auto == "VALID":
            extra["auto_pad"] = auto
            out = [(space[i] - reach[i]) // strides[i] + 1 for i in range(n)]
        else:
            extra["pads"] = pads
            out = [(space[i] + pads[i] + pads[i + n] - reach[i]) // strides[i] + 1 for i in range(n)]
        inputs = [self.quantize(source), self.weight((cout, cin // group, *kernel), 0, cout)]
        if self.yes():
            inputs.append(self.bias(cout))
        self.add_layer("Conv", inputs, (source.shape[0], cout, *out), **extra)

    def conv_transpose(self, source: Live) -> None:
        cin, space = source.shape[1], source.shape[2:]
        group = self.pick(*(g for g in (1, 2) if cin % g == 0))
        per_group = self.pick(1, 2)
        kernel = [self.pick(1, 2, 3) for _ in space]
        strides = [self.pick(1, 2) for _ in space]
        padding = [self.pick(0, 1) if s > 1 else 0 for s in strides]
        pads = [self.pick(0, 1) if k > 2 else 0 for k in kernel] * 2
        out = [
            strides[i] * (space[i] - 1) + padding[i] + kernel[i] - pads[i] - pads[i + len(space)]
            for i in range(len(space))
        ]
        inputs = [self.quantize(source), self.weight((cin, per_group, *kernel), 1, group * per_group)]
        if self.yes():
            inputs.append(self.bias(group * per_group))
        extra: dict[str, Any] = {"strides": strides, "output_padding": padding, "pads": pads}
        if group > 1:
            extra["group"] = group
        self.add_layer("ConvTranspose", inputs, (source.shape[0], group * per_group, *out), **extra)

    def gemm(self, source: Live) -> None:
        turn, trans_b = self.yes(), self.yes()
        rows, depth = source.shape[::-1] if turn else source.shape
        columns = self.pick(1, 3, 4)
        shape = (columns, depth) if trans_b else (depth, columns)
        inputs = [self.quantize(source), self.weight(shape, 0 if trans_b else 1, columns)]
        if self.yes():
            inputs.append(self.bias(columns))
        extra: dict[str, Any] = {}
        if turn:
            extra["transA"] = 1
        if trans_b:
            extra["transB"] = 1
        for name in ("alpha", "beta"):
            value = self.pick(1.0, 1.0, 0.5, 2.0)
            if value != 1:
                extra[name] = value
        self.add_layer("Gemm", inputs, (rows, columns), **extra)

    def matmul(self, source: Live) -> None:
        columns = self.pick(1, 3, 4)
        inputs = [self.quantize(source), self.weight((source.shape[-1], columns), 1, columns)]
        self.add_layer("MatMul", inputs, (*source.shape[:-1], columns))
        product = self.live[-1]
        side = self.pick("none", "first", "second")
        if side != "none":
            if self.yes():
                self.live.pop()
            terms = [product.name, self.bias(columns)]
            terms = terms[::-1] if side == "first" else terms
            self.live.append(Live(self.b.node("Add", terms), product.shape))

    # -- what stands between -----------------------------------------------------------------------------------

    def between(self, source: Live) -> None:
        rank = len(source.shape)
        options = ["Relu", "Add", "QdqOnly", "Identity"]
        if rank >= 3 and all(s >= 2 for s in source.shape[2:]) and rank <= 5:
            options.append("MaxPool")
        if rank >= 2:
            options += ["Concat", "Flatten", "Transpose"]
        option = self.pick(*options)
        value = self.quantize(source) if option != "QdqOnly" and self.yes() else source.name
        shape = source.shape
        if option in ("Relu", "Identity"):
            name = self.b.node(option, [value])
        elif option == "QdqOnly":
            name = self.quantize(source)
        elif option == "MaxPool":
            name = self.b.node("MaxPool", [value], kernel_shape=[2] * (rank - 2))
            shape = (*shape[:2], *(s - 1 for s in shape[2:]))
        elif option == "Transpose":
            perm = [*range(rank - 2), rank - 1, rank - 2]
            name = self.b.node("Transpose", [value], perm=perm)
            shape = tuple(shape[p] for p in perm)
        elif option == "Flatten":
            if self.yes():
                name = self.b.node("Flatten", [value])
            else:
                name = self.b.node("Reshape", [value, self.b.constant(np.asarray([shape[0], -1]))])
            shape = (shape[0], int(np.prod(shape[1:])))
        else:
            others = [o for o in self.live if o.shape == shape]
            other = self.pick(*others)
            second = self.quantize(other) if self.yes() else other.name
            terms = [value, second] if self.yes() else [second, value]
            if option == "Concat":
                name = self.b.node("Concat", terms, axis=1)
                shape = (shape[0], 2 * shape[1], *shape[2:])
            else:
                name = self.b.node("Add", terms)
        self.live.append(Live(name, shape))

    def step(self) -> None:
        source = self.pick(*self.live[-3:])
        rank = len(source.shape)
        options = ["between", "matmul"]
        if rank >= 3 and source.shape[1] <= 16:
            options += ["conv", "conv", "conv_transpose"]
        elif rank == 2:
            options += ["gemm", "gemm"]
        getattr(self, self.pick(*options))(source)

    def finish(self) -> None:
        """Leaves become outputs; sometimes an inner tensor, a quantized one, or integers too."""
        read = {i for n in self.b.nodes for i in n.input}
        names = [t for t in self.live if t.name not in read]
        inner = [t for t in self.live if t.name in read and t.name not in {i.name for i in self.b.inputs}]
        if inner and self.yes():
            names.append(self.pick(*inner))
        produced = {o for n in self.b.nodes for o in n.output}
        for live in names:
            if live.name in produced:
                self.b.output(live.name, TensorProto.FLOAT, live.shape)
        if self.yes() or not self.b.outputs or not any(n.op_type == "DequantizeLinear" for n in self.b.nodes):
            live = self.live[-1]
            kind = self.pick(np.int8, np.uint8)
            factors = [self.b.constant(np.asarray(self.scale(), np.float32)), self.b.constant(np.asarray(5, kind))]
            name = self.b.node("QuantizeLinear", [live.name, *factors])
            self.b.output(name, TensorProto.INT8 if kind is np.int8 else TensorProto.UINT8, live.shape)


@st.composite
def cases(draw: Any, *, exact: bool) -> Case:
    """A graph of one to eight steps; every candidate layer's name is in ``layers``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    m = _Maker(draw, exact, QdqBuilder(draw(st.sampled_from(OPSETS))), rng)
    rank = draw(st.sampled_from([2, 3, 4, 4, 5]))
    shape = (BATCH, *((4, 5, 4, 3)[: rank - 1]))
    feeds = {}
    for index in range(draw(st.integers(1, 2))):
        m.live.append(Live(m.b.input(f"x{index}", shape), shape))
        step = 2.0**-6 if exact else 0.0173
        feeds[f"x{index}"] = (rng.integers(-800, 800, shape) * step).astype(np.float32)
    for _ in range(draw(st.integers(1, 8))):
        m.step()
    m.finish()
    model = m.b.model()
    if draw(st.booleans()):
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    # what the graph does not use, no one may ask for
    used = {i for n in model.graph.node for i in n.input}
    kept = [i for i in model.graph.input if i.name in used]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return Case(model, {i.name: feeds[i.name] for i in kept}, exact, tuple(m.layers))
