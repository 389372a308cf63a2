"""Models whose AscendQuant, AscendDequant or AscendAntiQuant is wrong."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from support.broken_deploy_models.registry import Break, breaks
from support.deploy_models import deq_scale, insert_behind, node, set_attribute, set_initializer


@breaks("quant-scale-lost")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", scale=None)


@breaks("quant-scale-lost")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "skip.anti_quant", scale=1)


@breaks("quant-offset-lost")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", offset=3)


@breaks("quant-offset-absent")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv.quant", offset=None)


def _with_scale(value: float) -> Break:
    return lambda model: set_attribute(model, "conv.quant", scale=value)


for bad in (0.0, -1.0, float("inf"), float("nan")):
    breaks("quant-scale-value")(_with_scale(bad))
for bad in (1e-5, 70000.0):
    breaks("quant-scale-range")(_with_scale(bad))


def _with_offset(value: float) -> Break:
    return lambda model: set_attribute(model, "conv.quant", offset=value)


for bad in (0.5, 128.0, -129.0, float("nan")):
    breaks("quant-offset-value")(_with_offset(bad))


def _with_dst_type(value: object) -> Break:
    return lambda model: set_attribute(model, "conv.quant", dst_type=value)


for kind in ("UINT8", "int4", 3):
    breaks("quant-dst-type")(_with_dst_type(kind))
breaks("quant-int16")(_with_dst_type("INT16"))
breaks("int4")(_with_dst_type("INT4"))


@breaks("int4-odd")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", dst_type="INT4")
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 7


@breaks("compiler-flag", "dequant-sqrt-vector")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", sqrt_mode=1)


@breaks("compiler-flag")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", relu_flag=1)


@breaks("quant-rounding")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", round_mode="Floor")


@breaks("option-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", sqrt_mode=1.0)


@breaks("option-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", round_mode=1)


@breaks("result-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", dtype=10)


@breaks("result-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", dtype="FLOAT")


@breaks("result-bfloat16")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", dtype=27)


@breaks("ascend-inputs")
def _(model: onnx.ModelProto) -> None:
    del node(model, "conv.dequant").input[1]


@breaks("ascend-inputs")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.dequant").input.append("conv.b")


@breaks("quant-input-type")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


@breaks("deq-scale-variable", "deq-scale-variable-unchecked")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "zero", np.zeros(1, np.uint64))
    insert_behind(model, "conv.dequant.param", "Add", ["zero"])


@breaks("deq-scale-rank", "deq-scale-rank-unchecked")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "deconv.dequant.param", deq_scale(1).reshape(()))


@breaks("deq-scale-rank", "deq-scale-rank-unchecked")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", deq_scale(32).reshape(1, 32, 1, 1))


@breaks("deq-scale-length")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", deq_scale(31))


@breaks("deq-scale-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", np.full(32, 0.01, np.float32))


@breaks("deq-scale-float16")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", np.full(32, 0.01, np.float16))


def _with_bits(bits: int) -> Break:
    def function(model: onnx.ModelProto) -> None:
        values = deq_scale(32)
        values[7] |= np.uint64(bits)
        set_initializer(model, "conv.dequant.param", values)

    return function


for shifted in (3 << 32, 5 << 40, 1 << 48):
    breaks("deq-scale-bits")(_with_bits(shifted))


def _with_deq_scale(value: float) -> Break:
    return lambda model: set_initializer(model, "conv.dequant.param", deq_scale(32, value))


for bad in (0.0, -1.0, float("inf"), float("nan")):
    breaks("deq-scale-value")(_with_deq_scale(bad))
for bad in (1e-9, 1e5):
    breaks("deq-scale-float16-range")(_with_deq_scale(bad))
breaks("deq-scale-square-root")(_with_deq_scale(1e-5))


@breaks("antiquant-factors")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "skip.anti_quant", offset=5.0)


@breaks("antiquant-rescales")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "skip.anti_quant", scale=8.0)


@breaks("float16-chain")
def _(model: onnx.ModelProto) -> None:
    """Nothing to break: see test_rule_finds_what_breaks_it."""
