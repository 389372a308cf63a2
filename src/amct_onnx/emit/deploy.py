"""The deploy model: AscendQuant -> int8 layer -> AscendDequant, the input of ATC."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.emit.rewrite import PlanEmitter
from amct_onnx.plan.factors import Quantizer, Site


class DeployEmitter(PlanEmitter):
    """Emits AscendQuant, AscendDequant and AscendAntiQuant."""

    def quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """AscendQuant; scale is the reciprocal, offset the zero point."""
        attributes = [
            ir.AttrFloat32("scale", float(arithmetic.reciprocal(quantizer.scale_d))),
            ir.AttrFloat32("offset", float(quantizer.offset_d)),
            ir.AttrString("dst_type", "INT8"),
        ]
        value = self.graph.node("AscendQuant", [source], name, attributes, ir.DataType.INT8, before=at)
        value.shape = source.shape
        return value

    def antiquantize(self, quantized: ir.Value, quantizer: Quantizer, scale: float, name: str, at: ir.Node) -> ir.Value:
        """AscendAntiQuant; ATC's plugin flips the sign of the offset."""
        attributes = [
            ir.AttrFloat32("scale", scale),
            ir.AttrFloat32("offset", float(quantizer.offset_d)),
            ir.AttrInt64("dtype", _ge_dtype(quantizer.float_type)),
        ]
        return self.graph.node("AscendAntiQuant", [quantized], name, attributes, quantizer.float_type, before=at)

    def dequantize(self, accumulator: ir.Value, site: Site, rank: int, at: ir.Node) -> ir.Value:
        """AscendDequant with the packed scales; a per-channel Gemm or MatMul gets one scale and a Mul behind."""
        name, kind, scale = f"{site.node}.dequant", site.float_type, site.deq_scale
        if site.split_scale:
            # apply the ratio in float32, so that float16 rounds once, as with one scale
            kind, scale = ir.DataType.FLOAT, np.asarray([arithmetic.COMMON_DEQUANT_SCALE], np.float32)
        parameter = self.graph.constant(f"{name}.param", arithmetic.pack_deq_scale(scale))
        attributes = [ir.AttrInt64("dtype", _ge_dtype(kind))]
        value = self.graph.node("AscendDequant", [accumulator, parameter], name, attributes, kind, after=at)
        if not site.split_scale:
            return value
        value.shape = accumulator.shape
        factor = self.graph.constant(f"{site.node}.rescale.ratio", arithmetic.common_scale_ratio(site.deq_scale))
        value = self.graph.node("Mul", [value, factor], f"{site.node}.rescale", (), kind, after=value.producer())
        if site.float_type == ir.DataType.FLOAT16:
            value.shape = accumulator.shape
            to = [ir.AttrInt64("to", int(ir.DataType.FLOAT16))]
            name = f"{site.node}.rescale.cast"
            value = self.graph.node("Cast", [value], name, to, ir.DataType.FLOAT16, after=value.producer())
        return value

    def weight(self, site: Site, at: ir.Node) -> ir.Value:
        """int8 initializer."""
        assert site.weight is not None  # asked of sites with a weight alone
        shape = site.weight.shape
        return self.quantized_weight(site, (*shape[:2], 1, *shape[2:]) if site.as_2d else shape)

    def bias(self, site: Site, at: ir.Node) -> ir.Value:
        """int32 initializer."""
        assert site.bias is not None
        return self.graph.constant(site.bias_name, site.bias)

    def lift(self, source: ir.Value, site: Site, at: ir.Node) -> ir.Value:
        """[N, C, L] -> [N, C, 1, L] for a convolution held as 2-D.

        ATC would do so itself, but between AscendQuant and the convolution, where it breaks the offset's compensation.
        """
        if not site.as_2d:
            return source
        return self._shared(
            source,
            site.quantizer,
            "unsqueeze",
            at,
            lambda: self._axis_2("Unsqueeze", source, f"{site.node}.unsqueeze", source.dtype, before=at),
        )

    def lifted(self, shape: ir.Shape | None, site: Site) -> ir.Shape | None:
        """The shape with the axis that ``lift`` inserts."""
        if shape is None or not site.as_2d:
            return shape
        return ir.Shape([*shape[:2], 1, *shape[2:]])

    def lower(self, result: ir.Value, site: Site) -> ir.Value:
        """[N, C, 1, L] -> [N, C, L]."""
        if not site.as_2d:
            return result
        return self._axis_2("Squeeze", result, f"{site.node}.squeeze", result.dtype, after=result.producer())

    def _axis_2(
        self,
        op_type: str,
        value: ir.Value,
        name: str,
        dtype: ir.DataType | None,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Squeeze or Unsqueeze of axis 2, an attribute below opset 13 and an input from there on."""
        kind = dtype or ir.DataType.FLOAT
        if self.graph.model.opset_imports[""] < 13:
            attributes = [ir.AttrInt64s("axes", [2])]
            return self.graph.node(op_type, [value], name, attributes, kind, before=before, after=after)
        axes = self.graph.constant(f"{name}.axes", np.asarray([2], np.int64))
        return self.graph.node(op_type, [value, axes], name, (), kind, before=before, after=after)

    def attributes(self, site: Site) -> list[ir.Attr]:
        """A convolution held as 2-D has height 1: kernel 1, stride 1, dilation 1, no padding."""
        if not site.as_2d:
            return super().attributes(site)
        return [self._lifted_attribute(a) for a in super().attributes(site)]

    def _lifted_attribute(self, attribute: ir.Attr) -> ir.Attr:
        name = attribute.name
        if name == "pads":
            begin, end = attribute.as_ints()
            return ir.AttrInt64s(name, [0, begin, 0, end])
        height = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0}
        return ir.AttrInt64s(name, [height[name], *attribute.as_ints()]) if name in height else attribute

    def output(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """AscendQuant whose int8 result is the graph output."""
        return self.quantize(self._clipped(source, quantizer, at), quantizer, f"{name}.quant", at)


def _ge_dtype(kind: ir.DataType) -> int:
    """GE's DataType number of the float result: 0 float, 1 float16."""
    return 1 if kind == ir.DataType.FLOAT16 else 0
