"""The deploy model: AscendQuant -> int8 layer -> AscendDequant, the input of ATC."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx import arithmetic
from amct_onnx.emit.rewrite import Writer
from amct_onnx.plan.factors import Quantizer, Site


class DeployWriter(Writer):
    """Writes AscendQuant, AscendDequant and AscendAntiQuant."""

    def quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """AscendQuant; scale is the reciprocal, offset the zero point."""
        attributes = [
            ir.AttrFloat32("scale", float(arithmetic.reciprocal(quantizer.scale_d))),
            ir.AttrFloat32("offset", float(quantizer.offset_d)),
            ir.AttrString("dst_type", "INT8"),
        ]
        value = self.node("AscendQuant", [source], name, attributes, ir.DataType.INT8, before=at)
        value.shape = source.shape
        return value

    def antiquantize(self, quantized: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """AscendAntiQuant; ATC's plugin flips the sign of the offset."""
        attributes = [
            ir.AttrFloat32("scale", float(quantizer.scale_d)),
            ir.AttrFloat32("offset", float(quantizer.offset_d)),
            ir.AttrInt64("dtype", _ge_dtype(quantizer)),
        ]
        return self.node("AscendAntiQuant", [quantized], name, attributes, quantizer.float_type, before=at)

    def dequantize(self, accumulator: ir.Value, site: Site, rank: int, at: ir.Node) -> ir.Value:
        """AscendDequant with the packed scales; a per-channel Gemm or MatMul gets one scale and a Mul behind."""
        name = f"{site.node}.dequant"
        scale = site.deq_scale
        if site.split_scale:
            scale = np.asarray([arithmetic.COMMON_DEQUANT_SCALE], np.float32)
        parameter = self.constant(f"{name}.param", arithmetic.pack_deq_scale(scale))
        attributes = [ir.AttrInt64("dtype", _ge_dtype(site.quantizer))]
        kind = site.quantizer.float_type
        value = self.node("AscendDequant", [accumulator, parameter], name, attributes, kind, after=at)
        if site.split_scale:
            value.shape = accumulator.shape
            ratio = site.deq_scale / np.float32(arithmetic.COMMON_DEQUANT_SCALE)
            if kind == ir.DataType.FLOAT16:
                ratio = ratio.astype(np.float16)
            factor = self.constant(f"{site.node}.rescale.ratio", ratio)
            value = self.node("Mul", [value, factor], f"{site.node}.rescale", (), kind, after=value.producer())
        return value

    def weight(self, site: Site, at: ir.Node) -> ir.Value:
        """int8 initializer."""
        return self.quantized_weight(site)

    def bias(self, site: Site, at: ir.Node) -> ir.Value:
        """int32 initializer."""
        assert site.bias is not None
        return self.constant(site.bias_name, site.bias)

    def output(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """AscendQuant whose int8 result is the graph output."""
        return self.quantize(self._clipped(source, quantizer, at), quantizer, f"{name}.quant", at)


def _ge_dtype(quantizer: Quantizer) -> int:
    """GE's DataType number of the float result: 0 float, 1 float16."""
    return 1 if quantizer.float_type == ir.DataType.FLOAT16 else 0
