"""A deploy model in the form that msmodelslim's two ONNX tools write, with invented weights.

Read in its public source: AscendQuant with scale, offset and quant_bit = 8 and no dst_type, AscendDequant without
attributes, nodes called <layer>_quant and <layer>_dequant (``post_training_quant``) or with running numbers
(``squant_ptq``), Gemm with a transposed weight and transB = 0, the bias of a MatMul as an int32 Add before the
dequantizer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FORMS = ("post_training_quant", "squant_ptq")


class Names:
    """Names of quantizers and dequantizers."""

    def __init__(self, form: str) -> None:
        self._numbered, self._quantizers, self._dequantizers = form == "squant_ptq", 0, 1

    def quantizer(self, layer: str) -> str:
        self._quantizers += 1
        return f"{layer}_quant{self._quantizers - 1}" if self._numbered else f"{layer}_quant"

    def dequantizer(self, layer: str) -> str:
        self._dequantizers += 1
        return f"{layer}_dequant{self._dequantizers - 1}" if self._numbered else f"{layer}_dequant"


def deploy_model(form: str, *, vendor: bool = False, offset: Any = float) -> onnx.ModelProto:
    """Conv per channel, Relu, Gemm, and MatMul with an Add.

    Args:
        form: one of ``FORMS``.
        vendor: with the attributes that the vendor's own tool writes as well: the same numbers.
        offset: type of the offset attribute.
    """
    rng, names = np.random.default_rng(7), Names(form)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, array: Any) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(name: str, *shape: int) -> str:
        return constant(name, rng.integers(-127, 128, shape).astype(np.int8))

    def bias(name: str, size: int) -> str:
        return constant(name, rng.integers(-900, 900, size).astype(np.int32))

    def layer(name: str, source: str, scale: float, zero: int, scale_w: Any, *made: onnx.NodeProto) -> str:
        """AscendQuant, the nodes, AscendDequant; the result's name."""
        quantizer, dequantizer = names.quantizer(name), names.dequantizer(name)
        more = {"dst_type": "INT8"} if vendor else {"quant_bit": 8}
        values = {"scale": 1 / scale, "offset": offset(zero), **more}
        nodes.append(helper.make_node("AscendQuant", [source], [f"{name}_int8"], name=quantizer, **values))
        nodes.extend(made)
        packed = np.atleast_1d(np.float32(np.asarray(scale_w) * scale)).view(np.uint32).astype(np.uint64)
        inputs = [made[-1].output[0], constant(f"{dequantizer}_scale", packed)]
        attributes = {"dtype": 0} if vendor else {}
        out = f"{dequantizer}_output"
        nodes.append(helper.make_node("AscendDequant", inputs, [out], name=dequantizer, **attributes))
        return out

    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1}
    inputs = ["conv_int8", weight("conv_w", 20, 24, 3, 3), bias("conv_b", 20)]
    conv = helper.make_node("Conv", inputs, ["conv_sum"], name="conv", **window)
    x = layer("conv", "x", 0.02, -3, rng.uniform(0.001, 0.01, 20), conv)
    nodes.append(helper.make_node("Relu", [x], ["relu"], name="relu"))
    nodes.append(helper.make_node("GlobalAveragePool", ["relu"], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"))
    inputs = ["fc_int8", weight("fc_w", 20, 18), bias("fc_b", 18)]
    gemm = helper.make_node("Gemm", inputs, ["fc_sum"], name="fc", alpha=1.0, beta=1.0, transB=0)
    x = layer("fc", "flat", 0.02, 5, 0.004, gemm)
    matmul = helper.make_node("MatMul", ["last_int8", weight("last_w", 18, 10)], ["last_product"], name="last")
    add = helper.make_node("Add", ["last_product", bias("last_b", 10)], ["last_sum"], name="last_bias")
    x = layer("last", x, 0.05, 0, 0.002, matmul, add)
    ends = [("x", [1, 24, 6, 6]), (x, [1, 10])]
    source, target = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends)
    graph = helper.make_graph(nodes, "msmodelslim", [source], [target], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
