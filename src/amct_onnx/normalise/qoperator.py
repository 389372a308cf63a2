"""QOperator models: QLinearConv and similar operators become DequantizeLinear -> float operator -> QuantizeLinear.

A QLinear operator is defined as exactly that (ONNX operator specification, com.microsoft contrib operators), so scales
and zero points are taken over unchanged. The bias of a convolution is int32 at scale x_scale * w_scale (float32)
without zero point. Integer data movement between two of them stays where it is: see integer_moves.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, known_as, nodes_of
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.shapes import infer_shapes, stored_shape

DOMAINS = ("", "com.microsoft")


def expand_qoperators(model: ir.Model) -> None:
    """Rewrite every QLinear operator, QGemm and NhwcMaxPool in place; others stay, with a line in the ledger.

    Raises:
        UnsupportedModelError: The layout of an integer operator cannot be derived.
    """
    nodes = [n for n in nodes_of(model) if n.domain in DOMAINS]
    if not any(n.op_type in RULES for n in nodes):
        return
    rewriter = _Rewriter(model)
    for node in nodes:
        if node.op_type in RULES:
            RULES[node.op_type](rewriter, node)


class _Rewriter:
    def __init__(self, model: ir.Model) -> None:
        self.opset = opset_of(model)
        self.edit = GraphEditor(model)
        self.constants = ConstantEvaluator(self.opset)
        self._floats: dict[tuple[ir.Graph | ir.Function | None, object], ir.Value] = {}

    # -- inputs and outputs ---------------------------------------------------------------------------------------

    def dequantize(self, node: ir.Node, first: int, label: str, axis: int | None = None) -> ir.Value:
        """The float form of the (value, scale, zero point) that begin at input ``first``; one node per graph."""
        value, scale, zero = (_input(node, first + i) for i in range(3))
        if value is None or scale is None:
            raise UnsupportedModelError(
                f"Node '{known_as(node)}' ({node.op_type}) lacks its input {first} or {first + 1}. Export the model "
                "again."
            )
        axis = None if self._size(scale) == 1 else axis
        key = (node.graph, (value, scale, zero, axis))
        if key not in self._floats:
            attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
            inputs = [value, scale] if zero is None else [value, scale, zero]
            result = self.edit.node("DequantizeLinear", inputs, node, f"{label}/dequantize", attributes)
            result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
            self._floats[key] = result
        return self._floats[key]

    def finish(self, node: ir.Node, value: ir.Value, scale: int, integers: ir.Value | None) -> None:
        """Quantize ``value`` with the scale and zero point that begin at input ``scale``, in place of the node.

        Without a zero point the type is that of ``integers``, the node's first quantized input.
        """
        factor, zero = _input(node, scale), _input(node, scale + 1)
        if zero is None:
            zero = self.edit.constant(f"{node.name}/zero_point", np.zeros((), self._integer_type(integers).numpy()))
        value.shape = node.outputs[0].shape
        result = self.edit.node("QuantizeLinear", [value, factor, zero], node, "quantize")
        result.type = ir.TensorType(self._integer_type(zero))
        self.edit.replace(node, [result])

    def _size(self, value: ir.Value) -> int:
        tensor = self.constants.tensor(value)
        if tensor is not None:
            return int(np.prod(tensor.shape.numpy()))
        return int(self.constants.array(value).size) if self.constants.is_constant(value) else 1

    def _integer_type(self, value: ir.Value | None) -> ir.DataType:
        """The type of an integer tensor, found through data movement when the model does not state it."""
        while value is not None:
            if value.dtype is not None:
                return value.dtype
            node = value.producer()
            if node is not None and node.op_type == "QuantizeLinear":
                value = _input(node, 2)
                if value is None:
                    return ir.DataType.UINT8
            elif value.is_initializer() or (node is not None and node.op_type == "Constant"):
                return ir.DataType.from_numpy(self.constants.array(value).dtype)
            else:
                value = node.inputs[0] if node is not None and node.inputs else None
        return ir.DataType.UINT8

    def _rank(self, value: ir.Value | None, node: ir.Node) -> int:
        if value is not None and value.shape is not None:
            return len(value.shape)
        if value is not None and self.constants.is_constant(value):
            return int(self.constants.array(value).ndim)
        if value is not None:
            # nothing declares it; now that what is in front of the node is written out, inference knows it
            infer_shapes(self.edit.model, strict=False)
            if value.shape is not None:
                return len(value.shape)
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}): the rank of its input '{value.name if value else ''}' is "
            "unknown. Run ONNX shape inference on the model first."
        )

    def _turned(self, node: ir.Node, value: ir.Value, rank: int, to_channels_last: bool) -> ir.Value:
        if not checked_attribute(node, "channels_last", 0):
            return value
        perm = [0, *range(2, rank), 1] if to_channels_last else [0, rank - 1, *range(1, rank - 1)]
        label = "channels_last" if to_channels_last else "channels_first"
        return self.edit.node("Transpose", [value], node, label, [ir.AttrInt64s("perm", perm)])

    # -- layers ----------------------------------------------------------------------------------------------------

    def _bias(self, node: ir.Node, index: int, scales: tuple[int, int], factor: np.float32) -> ir.Value | None:
        """int32 -> DequantizeLinear at scale (first scale) * (second scale) * factor."""
        bias = _input(node, index)
        if bias is None:
            return None
        first, second = (self._array(node, i) for i in scales)
        if first.size == 0 or second.size == 0 or (first.size > 1 and second.size not in (1, first.size)):
            raise FactorError(
                f"Node '{known_as(node)}' ({node.op_type}): {first.size} and {second.size} scales cannot belong to its "
                "input and weight. Export the model again."
            )
        scale = (second.astype(np.float32) * factor) * first.astype(np.float32)
        if scale.size > 1:
            shape = self.constants.array(bias).shape if self.constants.is_constant(bias) else (scale.size,)
            if not shape or shape[-1] == 1:
                wide = np.broadcast_to(self.constants.array(bias), (*shape[:-1], scale.size))
                bias = self.edit.constant(f"{bias.name}/wide", np.ascontiguousarray(wide))
            attributes = [ir.AttrInt64("axis", max(len(shape) - 1, 0))]
            scale = scale.reshape(-1)
        else:
            attributes, scale = [], scale.reshape(())
        scale_value = self.edit.constant(f"{node.name}/bias_scale", scale)
        result = self.edit.node("DequantizeLinear", [bias, scale_value], node, "bias/dequantize", attributes)
        result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), bias.shape
        return result

    def _array(self, node: ir.Node, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        value = _input(node, index)
        if value is None or not self.constants.is_constant(value):
            raise UnsupportedModelError(
                f"Node '{known_as(node)}' ({node.op_type}): its scale '{value.name if value else ''}' is not constant. "
                "Export the model with static quantization."
            )
        return np.asarray(self.constants.array(value), np.float32)

    def conv(self, node: ir.Node) -> None:
        """QLinearConv, QLinearConvTranspose: x, w, y triples, then the int32 bias."""
        op_type = node.op_type.removeprefix("QLinear")
        rank = self._rank(_input(node, 3), node)
        _check_channels(node)
        x = self._turned(node, self.dequantize(node, 0, "x"), rank, False)
        w = self.dequantize(node, 3, "w", axis=0 if op_type == "Conv" else 1)
        bias = self._bias(node, 8, (1, 4), np.float32(1))
        inputs = [x, w] if bias is None else [x, w, bias]
        y = self.edit.node(op_type, inputs, node, attributes=_attributes(node))
        self.finish(node, self._turned(node, y, rank, True), 6, node.inputs[0])

    def matmul(self, node: ir.Node) -> None:
        """QLinearMatMul: a, b, y triples; the scales of a belong to its rows, those of b to its columns."""
        a, b = self.dequantize(node, 0, "a", axis=-2), self.dequantize(node, 3, "b", axis=-1)
        self.finish(node, self.edit.node("MatMul", [a, b], node), 6, node.inputs[0])

    def gemm(self, node: ir.Node) -> None:
        """QGemm: a, b triples, c (int32 at alpha * a_scale * b_scale), y pair; without the pair the result is float."""
        a = self.dequantize(node, 0, "a")
        gemm = Layout(LAYER_KINDS["Gemm"], transposed=bool(checked_attribute(node, "transB", 0)))
        b = self.dequantize(node, 3, "b", axis=gemm.channel_axis(2))
        alpha = checked_attribute(node, "alpha", 1.0)
        bias = self._bias(node, 6, (1, 4), np.float32(alpha))
        inputs = [a, b] if bias is None else [a, b, bias]
        y = self.edit.node("Gemm", inputs, node, attributes=_attributes(node))
        if _input(node, 7) is None:
            self.edit.replace(node, [y])
        else:
            self.finish(node, y, 7, node.inputs[0])

    # -- the others ------------------------------------------------------------------------------------------------

    def binary(self, node: ir.Node) -> None:
        """QLinearAdd, QLinearMul: a, b, y triples."""
        inputs = [self.dequantize(node, 0, "a"), self.dequantize(node, 3, "b")]
        self.finish(node, self.edit.node(node.op_type.removeprefix("QLinear"), inputs, node), 6, node.inputs[0])

    def unary(self, node: ir.Node) -> None:
        """QLinearSigmoid, QLinearLeakyRelu: x triple, y pair."""
        x = self.dequantize(node, 0, "x")
        y = self.edit.node(node.op_type.removeprefix("QLinear"), [x], node, attributes=_attributes(node))
        self.finish(node, y, 3, node.inputs[0])

    def pool(self, node: ir.Node) -> None:
        """QLinearAveragePool, QLinearGlobalAveragePool: x triple, y pair, channels_last."""
        x, rank = self.dequantize(node, 0, "x"), 0
        if checked_attribute(node, "channels_last", 0):
            kernel = node.attributes.get("kernel_shape")
            rank = len(kernel.as_ints()) + 2 if kernel is not None else self._rank(node.inputs[0], node)
        x = self._turned(node, x, rank, False)
        y = self.edit.node(node.op_type.removeprefix("QLinear"), [x], node, attributes=_attributes(node))
        self.finish(node, self._turned(node, y, rank, True), 3, node.inputs[0])

    def reduce_mean(self, node: ir.Node) -> None:
        """QLinearReduceMean: data triple, y pair; axes are an input from opset 18 on."""
        inputs, attributes = [self.dequantize(node, 0, "data")], _attributes(node)
        if self.opset >= 18 and "axes" in node.attributes:
            axes = np.asarray(node.attributes["axes"].as_ints(), np.int64)
            attributes = [a for a in attributes if a.name != "axes"]
            inputs.append(self.edit.constant(f"{node.name}/axes", axes))
        y = self.edit.node("ReduceMean", inputs, node, attributes=attributes)
        self.finish(node, y, 3, node.inputs[0])

    def softmax(self, node: ir.Node) -> None:
        """QLinearSoftmax: x triple, y pair; attribute ``opset`` says which Softmax is meant."""
        x = self.dequantize(node, 0, "x")
        flat = checked_attribute(node, "opset", self.opset) < 13
        axis = checked_attribute(node, "axis", 1 if flat else -1)
        if flat != (self.opset < 13) and axis != -1 and axis != self._rank(node.inputs[0], node) - 1:
            # before opset 13 all axes from ``axis`` on are normalised together
            if not flat:
                raise UnsupportedModelError(
                    f"Node '{known_as(node)}': QLinearSoftmax of opset 13 along axis {axis} has no Softmax of opset "
                    f"{self.opset}. Export the model with opset 13 or newer."
                )
            shape = self.edit.node("Shape", [x], node, "shape")
            rows = self.edit.node("Flatten", [x], node, "rows", [ir.AttrInt64("axis", axis)])
            rows = self.edit.node("Softmax", [rows], node, attributes=[ir.AttrInt64("axis", -1)])
            y = self.edit.node("Reshape", [rows, shape], node, "unflatten")
        else:
            y = self.edit.node("Softmax", [x], node, attributes=[ir.AttrInt64("axis", axis)])
        self.finish(node, y, 3, node.inputs[0])

    def concat(self, node: ir.Node) -> None:
        """QLinearConcat: y pair first, then a triple for each input."""
        count = len(node.inputs[2:]) // 3
        inputs = [self.dequantize(node, 2 + 3 * i, f"x{i}") for i in range(count)]
        y = self.edit.node("Concat", inputs, node, attributes=_attributes(node))
        self.finish(node, y, 0, node.inputs[2])

    def where(self, node: ir.Node) -> None:
        """QLinearWhere: condition, x triple, y triple, z pair."""
        inputs = [node.inputs[0], self.dequantize(node, 1, "x"), self.dequantize(node, 4, "y")]
        self.finish(node, self.edit.node("Where", inputs, node), 7, node.inputs[1])

    def nhwc_max_pool(self, node: ir.Node) -> None:
        """NhwcMaxPool: a MaxPool of integers with the channels last; data movement, so it stays integer."""
        rank = len(node.attributes["kernel_shape"].as_ints()) + 2
        x, dtype = node.inputs[0], node.inputs[0].dtype if node.inputs[0] is not None else None
        for op_type, label, attributes in (
            ("Transpose", "channels_first", [ir.AttrInt64s("perm", [0, rank - 1, *range(1, rank - 1)])]),
            ("MaxPool", "", _attributes(node)),
            ("Transpose", "channels_last", [ir.AttrInt64s("perm", [0, *range(2, rank), 1])]),
        ):
            x = self.edit.node(op_type, [x], node, label, attributes)
            x.type = None if dtype is None else ir.TensorType(dtype)
        assert x is not None
        self.edit.replace(node, [x])


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _check_channels(node: ir.Node) -> None:
    """With the channels last, the weight still is [M, C / group, k..]; a weight turned with the input would not run."""
    x, w, group = node.inputs[0], _input(node, 3), checked_attribute(node, "group", 1)
    producer = None if x is None else x.producer()
    if x is not None and x.shape is None and producer is not None and producer.op_type == "QuantizeLinear":
        x = producer.inputs[0]
    shape = stored_shape(w)
    if not checked_attribute(node, "channels_last", 0) or x is None or x.shape is None or shape is None:
        return
    channels = x.shape[-1]
    if node.op_type == "QLinearConv" and isinstance(channels, int) and channels != shape[1] * group:
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}): its weight of shape {list(shape)} does not fit {channels} "
            f"input channels in {group} groups; with channels_last it is [M, C / group, k, k] all the same. Export the "
            "model again."
        )


def _attributes(node: ir.Node) -> Sequence[ir.Attr]:
    return [a for a in node.attributes.values() if a.name != "channels_last"]


RULES: dict[str, Callable[[_Rewriter, ir.Node], None]] = {
    "QLinearConv": _Rewriter.conv,
    "QLinearConvTranspose": _Rewriter.conv,
    "QLinearMatMul": _Rewriter.matmul,
    "QGemm": _Rewriter.gemm,
    "QLinearAdd": _Rewriter.binary,
    "QLinearMul": _Rewriter.binary,
    "QLinearSigmoid": _Rewriter.unary,
    "QLinearLeakyRelu": _Rewriter.unary,
    "QLinearAveragePool": _Rewriter.pool,
    "QLinearGlobalAveragePool": _Rewriter.pool,
    "QLinearReduceMean": _Rewriter.reduce_mean,
    "QLinearSoftmax": _Rewriter.softmax,
    "QLinearConcat": _Rewriter.concat,
    "QLinearWhere": _Rewriter.where,
    "NhwcMaxPool": _Rewriter.nhwc_max_pool,
}
