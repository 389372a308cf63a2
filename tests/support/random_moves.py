"""Random operators between the layers: element-wise ones, and those that only move elements."""

from __future__ import annotations

import numpy as np
from onnx import helper

from support.random_quantizers import Live, Quantizers


class Moves(Quantizers):
    """Adds everything that is not a layer."""

    def between(self, source: Live) -> None:
        rank = len(source.shape)
        options = ["relu", "add", "pair", "identity", "clip", "squeeze", "slice", "pad", "tanh", "scaled"]
        if 3 <= rank <= 5 and all(s >= 2 for s in source.shape[2:]):
            options.append("max_pool")
        if rank >= 2:
            options += ["concat", "flatten", "transpose"]
            options += ["split"] if source.shape[1] > 1 else []
        if rank == 4 and not self.half and source.shape[-1] <= 8:
            options.append("resize")
        option = self.pick(*options)
        value = source.name if option == "pair" or self.yes() else self.quantize(source)
        getattr(self, f"_{option}")(source, value)

    def _emit(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **extra: object) -> None:
        self.live.append(Live(self.b.node(op_type, inputs, **extra), shape))

    def _relu(self, source: Live, value: str) -> None:
        self._emit("Relu", [value], source.shape)

    def _identity(self, source: Live, value: str) -> None:
        self._emit("Identity", [value], source.shape)

    def _scaled(self, source: Live, value: str) -> None:
        """A pair, a factor, and a pair whose scale takes the factor along: it restores the integers of the first."""
        scale, zero = self.scale(), self.pick(0, -128, 7)
        factor = self.pick(2.0, 4.0) if self.exact else self.pick(6.0, 8.0, 0.998)
        first = self.quantize(source, (scale, zero))
        if self.yes():
            inner = self.b.node("Div", [first, self.floats(factor)])
        else:
            inner = self.b.node("Mul", [self.floats(1 / factor), first])
        second = self.quantize(Live(inner, source.shape), (scale / factor, zero))
        self.live += [Live(first, source.shape), Live(second, source.shape)]

    def _tanh(self, source: Live, value: str) -> None:
        self._emit("Neg" if self.exact else "Tanh", [value], source.shape)

    def _pair(self, source: Live, value: str) -> None:
        self.live.append(Live(self.quantize(source), source.shape))

    def _clip(self, source: Live, value: str) -> None:
        """Bounds on the grid and off it."""
        low, high = self.pick(0.0, -1.0, -0.3125), self.pick(6.0, 1.0, 2.71875)
        if self.b.opset < 11:
            self._emit("Clip", [value], source.shape, min=low, max=high)
            return
        bounds = [self.floats(low), self.floats(high)]
        if self.seldom():
            bounds[self.pick(0, 1)] = ""
        self._emit("Clip", [value, *bounds], source.shape)

    def _max_pool(self, source: Live, value: str) -> None:
        rank, shape = len(source.shape), source.shape
        pads = self.pick([0] * 2 * (rank - 2), [1] * 2 * (rank - 2))
        out = (*shape[:2], *(s - 1 + 2 * pads[0] for s in shape[2:]))
        self._emit("MaxPool", [value], out, kernel_shape=[2] * (rank - 2), pads=pads)

    def _transpose(self, source: Live, value: str) -> None:
        rank = len(source.shape)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        self._emit("Transpose", [value], tuple(source.shape[p] for p in perm), perm=perm)

    def _flatten(self, source: Live, value: str) -> None:
        shape = (source.shape[0], int(np.prod(source.shape[1:])))
        if self.yes():
            self._emit("Flatten", [value], shape)
        else:
            self._emit("Reshape", [value, self.b.constant(np.asarray([shape[0], -1]))], shape)

    def _squeeze(self, source: Live, value: str) -> None:
        """Unsqueeze and Squeeze of the same axis, between which a quantizer may stand."""
        inner = Live(self._axis_1("Unsqueeze", value), (*source.shape[:1], 1, *source.shape[1:]))
        value = self.quantize(inner) if self.yes() else inner.name
        self.live.append(Live(self._axis_1("Squeeze", value), source.shape))

    def _axis_1(self, op_type: str, value: str) -> str:
        if self.b.opset < 13:
            return self.b.node(op_type, [value], axes=[1])
        return self.b.node(op_type, [value, self.b.constant(np.asarray([1], np.int64))])

    def _slice(self, source: Live, value: str) -> None:
        axis = len(source.shape) - 1
        size = source.shape[axis]
        start = self.pick(0, 1) if size > 2 else 0
        parts = [self.b.constant(np.asarray([n], np.int64)) for n in (start, size, axis)]
        self._emit("Slice", [value, *parts], (*source.shape[:-1], size - start))

    def _split(self, source: Live, value: str) -> None:
        size = source.shape[1]
        sizes = [1, size - 1]
        names = [self.b.fresh("part"), self.b.fresh("part")]
        if self.b.opset < 13:
            node = helper.make_node("Split", [value], names, names[0], axis=1, split=sizes)
        else:
            node = helper.make_node(
                "Split", [value, self.b.constant(np.asarray(sizes, np.int64))], names, names[0], axis=1
            )
        self.b.nodes.append(node)
        for name, part in zip(names, sizes, strict=True):
            self.live.append(Live(name, (source.shape[0], part, *source.shape[2:])))

    def _pad(self, source: Live, value: str) -> None:
        """Constant padding with 0 or a number that may be off the grid; edge."""
        rank = len(source.shape)
        pads = [0] * 2 * rank
        pads[rank - 1] = pads[-1] = 1
        shape = (*source.shape[:-1], source.shape[-1] + 2)
        mode = self.pick("constant", "constant", "edge")
        fill = self.pick(0.0, 0.0, 0.5, 0.3125)
        if self.b.opset < 11:
            self._emit("Pad", [value], shape, pads=pads, mode=mode, value=fill)
            return
        inputs = [value, self.b.constant(np.asarray(pads, np.int64))]
        if mode == "constant" and self.yes():
            inputs.append(self.floats(fill))
        self._emit("Pad", inputs, shape, mode=mode)

    def _resize(self, source: Live, value: str) -> None:
        scales = self.b.constant(np.asarray([1, 1, 2, 2], np.float32))
        shape = (*source.shape[:2], *(2 * s for s in source.shape[2:]))
        if self.b.opset < 11:
            self._emit("Resize", [value, scales], shape, mode="nearest")
            return
        roi = "" if self.b.opset >= 13 else self.b.constant(np.zeros(0, np.float32))
        self._emit(
            "Resize",
            [value, roi, scales],
            shape,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _add(self, source: Live, value: str) -> None:
        self._emit("Add", self._terms(source, value), source.shape)

    def _concat(self, source: Live, value: str) -> None:
        shape = source.shape
        self._emit("Concat", self._terms(source, value), (shape[0], 2 * shape[1], *shape[2:]), axis=1)

    def _terms(self, source: Live, value: str) -> list[str]:
        """The tensor and another one of its shape, either way round."""
        other = self.pick(*[o for o in self.live if o.shape == source.shape])
        second = self.quantize(other) if self.yes() else other.name
        return [value, second] if self.yes() else [second, value]
