"""The fake-quant model: the same integers in standard operators, for stock ONNX Runtime."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.emit.float_quantizer import from_float32, to_float32
from amct_onnx.emit.rewrite import PlanEmitter
from amct_onnx.graph.float16_rounding import round_float16_nodes
from amct_onnx.plan.factors import Plan, Quantizer, Site

FakeQuantWeights = Literal["int8", "float32"]
INT8_WEIGHTS, FLOAT32_WEIGHTS = FAKE_QUANT_WEIGHTS = get_args(FakeQuantWeights)
"""How the fake-quant model stores weights: integers behind a Cast, or the vendor's integer-valued floats."""


class FakeQuantEmitter(PlanEmitter):
    """Emits Mul -> Round -> Add -> Clip -> Sub -> layer on integer-valued float32 -> Mul."""

    accumulator_dtype = ir.DataType.FLOAT

    def __init__(
        self,
        model: ir.Model,
        plan: Plan,
        left_out: Set[ir.Node | ir.Value] = frozenset(),
        weights: str = INT8_WEIGHTS,
    ) -> None:
        """Choose how weights and biases are stored: INT8_WEIGHTS or FLOAT32_WEIGHTS."""
        super().__init__(model, plan, left_out)
        self._float_weights = weights == FLOAT32_WEIGHTS
        self._rounded: dict[str, tuple[str, ...]] = {}

    def finish(self) -> ir.Model:
        """Finish as every output does, then let each float16 node round its own result.

        onnxruntime may compute such a node in float32.
        """
        model = super().finish()
        self._rounded = round_float16_nodes(model)
        return model

    def nodes_of(self, site_name: str) -> tuple[str, ...]:
        """A float16 layer that stays float also has the Casts that round it."""
        nodes = super().nodes_of(site_name)
        if site_name in self._sites:
            return nodes
        rounded = [r for n in nodes or (site_name,) for r in self._rounded.get(n, (n,))]
        return tuple(rounded) if len(rounded) > 1 else ()

    def _chain(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> tuple[ir.Value, ir.Value]:
        """The integers with their offset, and the offset."""
        prefix = f"{name}.fakequant"

        def scalar(label: str, number: float) -> ir.Value:
            return self.graph.constant(f"{prefix}.{label}", np.asarray(number, np.float32))

        value = to_float32(self.graph, source, quantizer, prefix, at)
        scale = scalar("scale", float(arithmetic.reciprocal(quantizer.scale_d)))
        value = self.graph.node("Mul", [value, scale], f"{prefix}.mul", before=at)
        value = self.graph.node("Round", [value], f"{prefix}.round", before=at)
        offset = scalar("offset", quantizer.offset_d)
        value = self.graph.node("Add", [value, offset], f"{prefix}.add", before=at)
        bounds = [scalar("min_val", arithmetic.INT8_MIN), scalar("max_val", arithmetic.INT8_MAX)]
        return self.graph.node("Clip", [value, *bounds], f"{prefix}.clip", before=at), offset

    def quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """The chain up to Sub: q - offset_d, so that zero padding means a true zero."""
        value, offset = self._chain(source, quantizer, name, at)
        value = self.graph.node("Sub", [value, offset], f"{name}.fakequant.sub", before=at)
        value.shape = source.shape
        return value

    def antiquantize(self, quantized: ir.Value, quantizer: Quantizer, scale: float, name: str, at: ir.Node) -> ir.Value:
        """Mul by the scale; the offset is already gone."""
        factor = self.graph.constant(f"{name}.scale", np.asarray(scale, np.float32))
        value = self.graph.node("Mul", [quantized, factor], f"{name}.fakedequant", before=at)
        return from_float32(self.graph, value, quantizer, name, at)

    def dequantize(self, accumulator: ir.Value, site: Site, rank: int, at: ir.Node) -> ir.Value:
        """Mul by deq_scale along the channel axis."""
        name = f"{site.node}.fakedequant"
        spatial = rank - 2  # a Gemm or MatMul has none: its channels are the last axis
        scale = site.deq_scale.reshape([1, -1] + [1] * spatial) if spatial else site.deq_scale
        factor = self.graph.constant(f"{name}.dqscale", scale)
        value = self.graph.node("Mul", [accumulator, factor], f"{name}.mul", after=at)
        if site.float_type == ir.DataType.FLOAT16:
            value.shape = accumulator.shape
            attributes = [ir.AttrInt64("to", int(ir.DataType.FLOAT16))]
            value = self.graph.node(
                "Cast", [value], f"{name}.cast", attributes, ir.DataType.FLOAT16, after=value.producer()
            )
        return value

    def weight(self, site: Site, at: ir.Node) -> ir.Value:
        """int8 initializer behind a Cast, a quarter of the size of the vendor's integer-valued float32; or that."""
        assert site.weight is not None  # asked of sites with a weight alone
        shape = site.weight.shape
        if self._float_weights:
            return self.quantized_weight(site, shape, ir.DataType.FLOAT)
        return self._cast(self.quantized_weight(site, shape), f"{site.node}.weight.cast", at)

    def bias(self, site: Site, at: ir.Node) -> ir.Value:
        """int32 initializer behind a Cast, or integer-valued float32; float32 is exact up to 2^24 either way."""
        assert site.bias is not None
        if self._float_weights:
            return self.graph.constant(site.bias_name, site.bias.astype(np.float32))
        return self._cast(self.graph.constant(site.bias_name, site.bias), f"{site.node}.bias.cast", at)

    def _cast(self, value: ir.Value, name: str, at: ir.Node) -> ir.Value:
        attributes = [ir.AttrInt64("to", int(ir.DataType.FLOAT))]
        result = self.graph.node("Cast", [value], name, attributes, before=at)
        result.shape = value.shape
        return result

    def output(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """The int8 tensor itself."""
        value, _ = self._chain(self._clipped(source, quantizer, at), quantizer, f"{name}.quant", at)
        attributes = [ir.AttrInt64("to", int(ir.DataType.INT8))]
        return self.graph.node("Cast", [value], f"{name}.quant.cast", attributes, ir.DataType.INT8, before=at)
