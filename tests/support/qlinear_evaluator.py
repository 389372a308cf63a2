"""An exact evaluator of QOperator models: QLinearConv, QLinearMatMul and QGemm by their definition.

onnxruntime cannot judge these: its kernels for uint8 activations and int8 weights add two products in 16 bits on
x86 without VNNI, which saturates. Sums are exact here (float64 below 2**53), and one rounding in float64 follows. Every
other node is evaluated by onnxruntime as a model of one node. Nothing is imported from the package under test.
"""

from __future__ import annotations

import numpy as np
import onnx

from support.deploy_evaluator import KERNELS, Array, Evaluator, attributes

LAYERS = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul", "QGemm": "Gemm"}


def saturate(ratio: Array, zero: Array) -> Array:
    """clip(round_half_even(ratio) + zero) in the zero point's type (ONNX, QuantizeLinear)."""
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(ratio) + zero.astype(np.float64), limits.min, limits.max).astype(zero.dtype)


def _along_channels(factor: Array, rank: int) -> Array:
    """A factor in float64; one per output channel stands along axis 1 of a convolution's result."""
    factor = factor.astype(np.float64)
    return factor.reshape(-1, *[1] * (rank - 2)) if factor.ndim == 1 else factor


class QLinearEvaluator(Evaluator):
    """Evaluates one QOperator model."""

    def step(self, node: onnx.NodeProto) -> None:
        """Evaluate one node."""
        if node.op_type in LAYERS:
            self.values[node.output[0]] = self.qlinear(node)
        else:
            super().step(node)

    def qlinear(self, node: onnx.NodeProto) -> Array:
        """The result of one integer layer."""
        attrs = attributes(node)
        values = [self.values[n] if n else None for n in node.input] + [None] * (9 - len(node.input))
        x, x_scale, x_zero, w, w_scale, w_zero = values[:6]
        bias, y_scale, y_zero = (values[6], *values[7:9]) if node.op_type == "QGemm" else (values[8], *values[6:8])
        factor, w_zero = w_scale.astype(np.float64), w_zero.astype(np.float64)
        if node.op_type == "QLinearConv":
            factor, bias = (f if f is None else _along_channels(f, w.ndim) for f in (factor, bias))
            # zero points of a weight stand along its first axis
            w_zero = w_zero.reshape(-1, *[1] * (w.ndim - 1)) if w_zero.ndim else w_zero
        elif attrs.get("transB", 0) and w_zero.ndim:
            w_zero = w_zero[:, None]
        plain = onnx.NodeProto(op_type=LAYERS[node.op_type], name=node.name)
        plain.attribute.extend(a for a in node.attribute if a.name not in ("alpha", "channels_last"))
        last = bool(attrs.get("channels_last", 0))
        x = np.moveaxis(x, -1, 1) if last else x
        total = KERNELS[plain.op_type](plain, x.astype(np.float64) - x_zero.astype(np.float64), w - w_zero)
        total = total if bias is None else total + bias
        real = total * (attrs.get("alpha", 1.0) * x_scale.astype(np.float64) * factor)
        result = real.astype(np.float32) if y_scale is None else saturate(real / y_scale.astype(np.float64), y_zero)
        return np.moveaxis(result, 1, -1) if last else result
