"""Rewrite a Q/DQ model so that every quantized layer is computed in exact integers, rounded to float once.

A layer whose operands are both behind a DequantizeLinear is a sum of integer products times scale_x * scale_w. The sum
is computed by the float32 operator on integers, which is exact while no partial sum exceeds 2^24; where that is not
proven, both operands are split into 16 * high + low and the four sums put together in float64. Scales and bias are
applied in float64, and the result is rounded to the layer's float type once. No int8 kernel takes part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Float32, Float64
from amct_onnx.device.facts import EXACT_IN_FLOAT32
from amct_onnx.errors import FactorError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import Layout, bias_of, layout_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, integer_type, is_op
from amct_onnx.graph.unused_nodes import remove_unused_nodes
from amct_onnx.plan.quantizers import RANGES, blocks_of, raw_factors

PART = 16
"""int8 and uint8 numbers are 16 * high + low with -16 <= high < 16 and 0 <= low < 16."""
INT16_MAX = 2**15 - 1
UINT8_MAX = 255


@dataclass(frozen=True)
class ExactModel:
    """A model whose quantized layers are exact.

    Attributes:
        model: the rewritten one.
        exact: names of the layers in exact integers.
        as_written: names of the other Conv, ConvTranspose, Gemm and MatMul, which stay in float32.
        can_saturate: names of the exact layers with int8 weights that are large enough to saturate a 16-bit sum of two
            products with a uint8 activation.
    """

    model: ir.Model
    exact: tuple[str, ...]
    as_written: tuple[str, ...]
    can_saturate: tuple[str, ...]


@dataclass(frozen=True)
class _Operand:
    """One input of a layer: (integer - zero) * scale; weight is the constant integers minus zero, or None."""

    integer: ir.Value
    zero: Float32
    scale: Float64
    bound: int
    weight: Array | None
    signed: bool


def make_exact(model: ir.Model) -> ExactModel:
    """Rewrite a normalised model in place.

    Args:
        model: what ``normalise`` gave.
    """
    editor = GraphEditor(model)
    constants = ConstantEvaluator(model.opset_imports.get("", 18))
    exact, as_written, can_saturate = [], [], []
    for node in nodes_of(model):
        layout = layout_of(node)
        if layout is None:
            continue
        operands = _operands(node, layout, constants)
        if operands is None:
            as_written.append(node.name or "")
            continue
        exact.append(node.name or "")
        if _can_saturate(layout, operands[1]):
            can_saturate.append(node.name or "")
        _rewrite(node, layout, *operands, editor)
    remove_unused_nodes(model)
    return ExactModel(model, tuple(exact), tuple(as_written), tuple(can_saturate))


def _operands(node: ir.Node, layout: Layout, constants: ConstantEvaluator) -> tuple[_Operand, _Operand] | None:
    """Both operands when the layer is a sum of integer products that can be computed exactly."""
    try:
        left, right = (_operand(node, layout, index, constants) for index in (0, 1))
    except FactorError:  # factors that are computed at run time
        return None
    if left is None or right is None or (left.scale.size > 1):
        return None
    products = _products(node, layout, right.weight)
    if products is None or PART * PART * products > EXACT_IN_FLOAT32:
        return None
    return left, right


def _operand(node: ir.Node, layout: Layout, index: int, constants: ConstantEvaluator) -> _Operand | None:
    value = node.inputs[index]
    dq = value.producer() if value is not None else None
    if dq is None or not is_op(dq, DEQUANTIZE) or dq.inputs[0] is None:
        return None
    kind = integer_type(dq, constants)
    if kind not in RANGES or RANGES[kind][3] != 8:
        return None
    scale, zero, axis = raw_factors(dq, constants)
    if blocks_of(dq, constants) is not None:
        return None
    weight = np.asarray(constants.array(dq.inputs[0])) if constants.is_constant(dq.inputs[0]) else None
    if axis is None:
        zero_shaped, scale_shaped = zero.reshape(()), scale.reshape(())
    else:
        shapes = _channel_shapes(layout, index, weight, axis)
        if shapes is None:
            return None
        zero_shaped, scale_shaped = zero.reshape(shapes[0]), _over_outputs(layout, scale).reshape(shapes[1])
    low, high, shift, _ = RANGES[kind]
    zeros = zero.astype(np.int64)
    bound = int(max(np.abs(low + shift - zeros).max(), np.abs(high + shift - zeros).max()))
    if weight is not None:
        weight = weight.astype(np.int64) - zero_shaped.astype(np.int64)
    return _Operand(
        dq.inputs[0],
        zero_shaped.astype(np.float32),
        scale_shaped.astype(np.float64),
        bound,
        weight,
        kind in (ir.DataType.INT8, ir.DataType.INT4),
    )


def _channel_shapes(
    layout: Layout, index: int, weight: Array | None, axis: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shapes of zero points in the weight and scales in the output; None when they cannot be factored out."""
    if index != 1 or weight is None:
        return None
    rank = weight.ndim
    channel = layout.channel_axis(rank)
    if axis % rank != channel:
        return None
    zeros = tuple(-1 if i == channel else 1 for i in range(rank))
    return zeros, (1, -1, *[1] * (rank - 2)) if layout.kind.convolution else (-1,)


def _over_outputs(layout: Layout, scale: Array) -> Array:
    """A grouped ConvTranspose repeats the weight's channels in every group."""
    return np.tile(scale, layout.group) if layout.kind.groups_on_inputs else scale


def _products(node: ir.Node, layout: Layout, weight: Array | None) -> int | None:
    """How many products are added for one output, None when the model does not say."""
    if weight is not None:
        return layout.terms(weight.shape)
    value = node.inputs[0]
    if node.op_type != "MatMul" or value is None or value.shape is None or not len(value.shape):
        return None
    last = value.shape[-1]
    return last if isinstance(last, int) else None


def _largest_sum(node: ir.Node, layout: Layout, left: _Operand, right: _Operand) -> int:
    """Bound of every partial sum of products."""
    if right.weight is None:
        products = _products(node, layout, None)
        assert products is not None
        return left.bound * right.bound * products
    return int(left.bound * layout.by_channel(np.abs(right.weight)).sum(axis=1).max(initial=0))


def _can_saturate(layout: Layout, weight: _Operand) -> bool:
    """Whether 255 times two weights of one sign and output channel exceeds int16 (vpmaddubsw of AVX2 and AVX-512)."""
    if weight.weight is None or not weight.signed:
        return False
    rows = layout.by_channel(weight.weight)
    if rows.shape[1] < 2:
        return False
    pairs = [np.clip(np.partition(side, -2, axis=1)[:, -2:], 0, None).sum(axis=1).max() for side in (rows, -rows)]
    return bool(max(pairs) * UINT8_MAX > INT16_MAX)


def _cast(to: ir.DataType) -> list[ir.Attr]:
    return [ir.AttrInt64("to", int(to))]


def _rewrite(node: ir.Node, layout: Layout, left: _Operand, right: _Operand, editor: GraphEditor) -> None:
    """Put the exact sum, scales and bias in the place of a layer."""
    label = iter(f"exact{i}" for i in range(1000))

    def make(op_type: str, *inputs: ir.Value, attributes: list[ir.Attr] | None = None) -> ir.Value:
        return editor.node(op_type, inputs, node, next(label), attributes or [])

    def number(values: npt.ArrayLike, kind: type[np.generic]) -> ir.Value:
        return editor.constant(f"{node.name}/exact", np.asarray(values, kind))

    def centred(operand: _Operand) -> ir.Value:
        value = make("Cast", operand.integer, attributes=_cast(ir.DataType.FLOAT))
        return make("Sub", value, number(operand.zero, np.float32)) if operand.zero.any() else value

    def halves(value: ir.Value) -> tuple[ir.Value, ir.Value]:
        sixteen = number(PART, np.float32)
        high = make("Floor", make("Div", value, sixteen))  # a power of two: Div and Mul are exact
        return high, make("Sub", value, make("Mul", high, sixteen))

    def layer(x: ir.Value, w: ir.Value) -> ir.Value:
        kept = [a for name, a in node.attributes.items() if name not in ("alpha", "beta")]
        value = make(node.op_type, x, w, attributes=kept)
        return make("Cast", value, attributes=_cast(ir.DataType.DOUBLE))

    x, w = centred(left), centred(right)
    if _largest_sum(node, layout, left, right) <= EXACT_IN_FLOAT32:
        total = layer(x, w)
    else:
        total = _in_parts(halves(x), halves(w), layer, make, number)
    alpha = attribute(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
    value = make("Mul", total, number(left.scale * right.scale * alpha, np.float64))
    bias = bias_of(node)
    if bias is not None:
        wide = make("Cast", bias, attributes=_cast(ir.DataType.DOUBLE))
        if node.op_type == "Gemm":
            wide = make("Mul", wide, number(attribute(node, "beta", 1.0), np.float64))
        else:
            assert right.weight is not None  # a convolution without one is not rewritten, see _products
            wide = make("Reshape", wide, number([1, -1, *[1] * (right.weight.ndim - 2)], np.int64))
        value = make("Add", value, wide)
    kind = float_type_of(node.outputs[0])
    editor.replace(node, [editor.node("Cast", [value], node, next(label), _cast(kind))])


def _in_parts(
    x: tuple[ir.Value, ir.Value],
    w: tuple[ir.Value, ir.Value],
    layer: Callable[[ir.Value, ir.Value], ir.Value],
    make: Callable[..., ir.Value],
    number: Callable[[npt.ArrayLike, type[np.generic]], ir.Value],
) -> ir.Value:
    """256 * high * high + 16 * (high * low + low * high) + low * low, in float64."""
    middle = make("Add", layer(x[0], w[1]), layer(x[1], w[0]))
    top = make("Mul", layer(x[0], w[0]), number(PART * PART, np.float64))
    return make("Add", make("Add", top, make("Mul", middle, number(PART, np.float64))), layer(x[1], w[1]))
