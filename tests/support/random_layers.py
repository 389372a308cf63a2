"""Random layers, and the tails of bias Adds, arithmetic and BatchNormalization behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.random_quantizers import BIAS_STEP, Live, Quantizers

EXACT_FACTORS = (1.0, 0.5, 2.0, -1.0, -0.25, 0.0, 4.0, 2.0**-10)
FACTORS = (1.0, 0.7, 1.9, -1.1, -0.003, 0.0, 5.0, 1e-9)


class Layers(Quantizers):
    """Adds Conv, ConvTranspose, Gemm and MatMul, also of two activations."""

    def add_layer(
        self, op_type: str, source: Live, weight: tuple[tuple[int, ...], int, int], shape: tuple[int, ...], **extra: Any
    ) -> None:
        """A layer on a tensor; ``weight`` is shape, axis and number of its output channels."""
        inputs = [self.quantize(source), self.weight(*weight)]
        channels = weight[2]
        # below opset 11 a Gemm must have one
        biased = self.yes() or (op_type == "Gemm" and self.b.opset < 11)
        if biased and op_type != "MatMul":
            inputs.append(self.bias(channels, *inputs))
        name = self.b.fresh(f"/{op_type.lower()}")
        self.layers.append(name)
        result = Live(self.b.node(op_type, inputs, name, **extra), shape)
        self.live.append(result)
        if biased and op_type == "MatMul":
            self._follow(Live(self._sum(result.name, self.bias(channels, *inputs)), shape))
        elif shape[1:] and self.pick(True, False, False):
            self._tail(channels)

    def _follow(self, result: Live) -> None:
        """A node behind the last tensor replaces it, or another reader keeps it."""
        if not self.seldom():
            self.live.pop()
        self.live.append(result)

    def _sum(self, first: str, second: str) -> str:
        return self.b.node("Add", [first, second] if self.yes() else [second, first])

    # -- what stands behind ------------------------------------------------------------------------------------

    def _tail(self, channels: int) -> None:
        """A constant added, or (arithmetic and) a BatchNormalization; only the channels of axis 1."""
        value = self.live[-1]
        layout = (channels, *[1] * (len(value.shape) - 2))
        if value.shape[1] != channels:
            return
        name = value.name
        for _ in range(self.pick(0, 1, 1, 2)):
            kind = self.pick("Div", "Mul", "Add", "Sub")
            if kind in ("Div", "Mul"):
                options = (0.5, 1.0, 2.0) if self.exact else (0.37, 1.0, 2.9)
                operand = self.floats(self.rng.choice(options, layout))
            else:
                operand = self.floats(self.bias_values(channels).reshape(layout))
            name = self._sum(name, operand) if kind == "Add" else self.b.node(kind, [name, operand])
        if self.pick(True, True, False):
            name = self._batch_normalization(name, channels)
        if name != value.name:
            self._follow(Live(name, value.shape))

    def _batch_normalization(self, value: str, channels: int) -> str:
        gamma = self.rng.choice(EXACT_FACTORS if self.exact else FACTORS, channels)
        if self.yes():
            gamma = np.abs(gamma)
        beta, mean = self.bias_values(channels), self.bias_values(channels)
        variance = self.rng.choice((1.0, 4.0, 0.25), channels) if self.exact else self.rng.uniform(0.2, 3, channels)
        if self.exact:
            beta = np.rint(beta / BIAS_STEP / 8) * BIAS_STEP * 8
        parameters = [self.floats(a) for a in (gamma, beta, mean, variance)]
        # the variance alone makes an exact square root
        epsilon = 0.0 if self.exact else 1e-5
        return self.b.node("BatchNormalization", [value, *parameters], epsilon=epsilon)

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
        auto = self.pick("", "", "VALID", "SAME_UPPER", "SAME_LOWER") if "dilations" not in extra else ""
        if auto.startswith("SAME"):
            extra["auto_pad"] = auto
            out = [-(-s // t) for s, t in zip(space, strides, strict=True)]
        elif auto == "VALID":
            extra["auto_pad"] = auto
            out = [(space[i] - reach[i]) // strides[i] + 1 for i in range(n)]
        else:
            extra["pads"] = pads
            out = [(space[i] + pads[i] + pads[i + n] - reach[i]) // strides[i] + 1 for i in range(n)]
        shape = (source.shape[0], cout, *out)
        self.add_layer("Conv", source, ((cout, cin // group, *kernel), 0, cout), shape, **extra)

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
        extra: dict[str, Any] = {"strides": strides, "output_padding": padding}
        if self.yes():
            extra["output_shape"] = out
        else:
            extra["pads"] = pads
        if group > 1:
            extra["group"] = group
        channels = group * per_group
        shape = (source.shape[0], channels, *out)
        self.add_layer("ConvTranspose", source, ((cin, per_group, *kernel), 1, channels), shape, **extra)

    def gemm(self, source: Live) -> None:
        turn, trans_b = self.yes(), self.yes()
        rows, depth = source.shape[::-1] if turn else source.shape
        columns = self.pick(1, 3, 4)
        extra: dict[str, Any] = {}
        if turn:
            extra["transA"] = 1
        if trans_b:
            extra["transB"] = 1
        for name in ("alpha", "beta"):
            value = self.pick(1.0, 1.0, 0.5, 2.0, -1.0)
            if value != 1:
                extra[name] = value
        weight = ((columns, depth), 0, columns) if trans_b else ((depth, columns), 1, columns)
        self.add_layer("Gemm", source, weight, (rows, columns), **extra)

    def matmul(self, source: Live) -> None:
        columns = self.pick(1, 3, 4)
        self.add_layer("MatMul", source, ((source.shape[-1], columns), 1, columns), (*source.shape[:-1], columns))

    def product(self, source: Live) -> None:
        """A MatMul of two activations: a tensor times another one, or itself, transposed before or behind its pair."""
        rank = len(source.shape)
        other = self.pick(*(v for v in self.live if v.shape == source.shape))
        # symmetric, so that it becomes int8; or anything
        factors = [(self.scale(), 0) if self.pick(True, True, False) else None for _ in range(2)]
        turn = {"perm": [*range(rank - 2), rank - 1, rank - 2]}
        if self.yes():
            second = self.b.node("Transpose", [self.quantize(other, factors[1])], **turn)
        else:
            shape = (*other.shape[:-2], other.shape[-1], other.shape[-2])
            turned = Live(self.b.node("Transpose", [other.name], **turn), shape)
            second = self.quantize(turned, factors[1])
        name = self.b.fresh("/product")
        self.layers.append(name)
        result = self.b.node("MatMul", [self.quantize(source, factors[0]), second], name)
        self.live.append(Live(result, (*source.shape[:-1], source.shape[-2])))
