"""A grid becomes QuantizeLinear (-> Clip) -> DequantizeLinear, integers where the tensor is constant, or floats.

What no QuantizeLinear expresses (other rounding modes, a fractional zero point, more than 16 bits, scales along several
axes) becomes the float operators of the formula.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor
from amct_onnx.graph.opset import opset_of
from amct_onnx.normalise.foreign_quantizers.factors import tensor_of
from amct_onnx.normalise.foreign_quantizers.float_formula import FloatFormula
from amct_onnx.normalise.foreign_quantizers.grid import ROUNDING, Grid, holds, integers, limits, toward_int8, type_for


class QuantizerWriter:
    """Replaces foreign nodes by what they compute; one writer for each model.

    Attributes:
        edit, constants: of the model.
        formula: writes what stays float.
    """

    def __init__(self, model: ir.Model) -> None:
        self.edit = GraphEditor(model)
        self.constants = ConstantEvaluator(opset_of(model))
        self.formula = FloatFormula(self.edit, self.constants)

    def write(self, node: ir.Node, grid: Grid) -> None:
        """Round to a grid."""
        x = tensor_of(node)
        why = self.obstacle(x, *grid.factors)
        if not why and self.constants.is_constant(x):
            self._write_constant(node, x, grid)
            return
        if not why and ROUNDING[grid.rounding] != ROUNDING["ROUND"]:
            why = f"rounds with mode {grid.rounding}"
        if not why and not grid.same_out:
            why = "has different input and output ranges"
        grid = grid if why else toward_int8(grid)
        kind = None if why else type_for(grid)
        if kind is None:
            why = why or f"needs more than 16 bits for its integers {grid.low}..{grid.high}"
            self.formula.write(node, grid, why)
        else:
            self._write_pair(node, x, grid, kind)

    def write_signs(self, node: ir.Node, scale: Array) -> None:
        """Scale where x >= 0, else -scale."""
        x, zero = tensor_of(node), np.zeros(1)
        if self.constants.is_constant(x) and not self.obstacle(x, scale, zero):
            signs = np.where(self.constants.array(x) >= 0, 1, -1).astype(np.int8)
            inputs, attributes = self._factors(node, x, scale, zero, ir.DataType.INT8)
            self._dequantize(node, self.edit.constant(f"{x.name}/signs", signs), inputs, attributes)
            return
        negative = self.formula.operator(node, "Less", x, np.zeros(()))
        ones = [self.formula.constant(node, "sign", np.asarray(sign)) for sign in (-1.0, 1.0)]
        value = self.edit.node("Where", [negative, *ones], node, "sign")
        self.formula.finish(node, value, scale, zero, "has two levels and none for zero")

    def _write_pair(self, node: ir.Node, x: ir.Value, grid: Grid, kind: ir.DataType) -> None:
        inputs, attributes = self._factors(node, x, grid.scale, grid.zero, kind)
        value = self.edit.node("QuantizeLinear", [x, *inputs], node, "quantize", attributes)
        value.type, value.shape = ir.TensorType(kind), x.shape
        if (grid.low, grid.high) != limits(kind):
            bounds = [
                self.edit.constant(f"{node.name}/{label}", np.asarray(limit, kind.numpy()))
                for label, limit in (("low", grid.low), ("high", grid.high))
            ]
            value = self.edit.node("Clip", [value, *bounds], node, "clip", like=value)
        self._dequantize(node, value, inputs, attributes)

    def _write_constant(self, node: ir.Node, x: ir.Value, grid: Grid) -> None:
        """A constant becomes integers behind a DequantizeLinear.

        They are stored without zero point as int8 wherever they fit, because Ascend takes symmetric weights only.
        """
        shape = self._shape(x)
        if not all(_spreads(factor.shape, shape) for factor in grid.factors):
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): its factors of shape {list(grid.scale.shape)} do not fit tensor "
                f"'{x.name}' of shape {list(shape)}. Export the model again."
            )

        def centred() -> Array:
            return np.asarray(integers(self.constants.array(x), grid) - grid.out_zero)

        kind, stored = ir.DataType.INT8, np.zeros(1)
        tensor: ir.TensorProtocol
        if grid.low - grid.out_zero.max() >= -128 and grid.high - grid.out_zero.min() <= 127:
            # read only when needed: the range alone may show that int8 holds it
            tensor = ir.LazyTensor(lambda: ir.tensor(centred().astype(np.int8)), dtype=kind, shape=ir.Shape(shape))
        else:
            content = centred()
            if not (content.size and content.min() >= -128 and content.max() <= 127):
                bytes_wide = [t for t in (ir.DataType.INT8, ir.DataType.UINT8) if holds(t, grid, grid.out_zero)]
                kind = next(iter(bytes_wide), ir.DataType.INT32)
                stored = grid.out_zero if bytes_wide else stored
            tensor = ir.tensor((content + stored).astype(kind.numpy()))
        inputs, attributes = self._factors(node, x, grid.out_scale, stored, kind)
        self._dequantize(node, self.edit.constant(f"{x.name}/integers", tensor), inputs, attributes)

    def _dequantize(self, node: ir.Node, value: ir.Value, inputs: list[ir.Value], attributes: list[ir.Attr]) -> None:
        like = tensor_of(node)
        result = self.edit.node("DequantizeLinear", [value, *inputs], node, attributes=attributes, like=like)
        self.edit.replace(node, [result])

    def _factors(
        self, node: ir.Node, x: ir.Value, scale: Array, zero: Array, kind: ir.DataType
    ) -> tuple[list[ir.Value], list[ir.Attr]]:
        """Scale and zero point of a Q and DQ, scalars or flat, and the axis."""
        try:
            spread = np.broadcast_shapes(scale.shape, zero.shape)
        except ValueError:
            spread = ()
        size = max(scale.size, zero.size)
        if not {scale.size, zero.size} <= {1, size} or max(spread, default=1) != size:
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): a scale of shape {list(scale.shape)} and a zero point of shape "
                f"{list(zero.shape)} are not factors of one axis. Export the model again."
            )
        flat = [np.broadcast_to(a.reshape(-1), (size,)).reshape((size,) if size > 1 else ()) for a in (scale, zero)]
        inputs = [self.formula.constant(node, "scale", flat[0])]
        if kind != ir.DataType.INT32:
            inputs.append(self.edit.constant(f"{node.name}/zero_point", flat[1].astype(kind.numpy())))
        if size == 1:
            return inputs, []
        axis = next(i for i, n in enumerate(spread) if n > 1) + self.rank(x, len(spread)) - len(spread)
        return inputs, [ir.AttrInt64("axis", axis)]

    def obstacle(self, x: ir.Value, *factors: Array) -> str:
        """Why no Q/DQ has these scales and zero points (in turn), or nothing."""
        try:
            spread = np.broadcast_shapes(*(f.shape for f in factors))
        except ValueError:
            return f"has a scale of shape {list(factors[0].shape)} and a zero point of shape {list(factors[1].shape)}"
        if sum(n > 1 for n in spread) > 1 or len(spread) > self.rank(x, len(spread)):
            return f"has scales of shape {list(spread)}, which is more than one axis"
        for zero in factors[1::2]:
            fractional = zero[zero != np.rint(zero)].reshape(-1)
            if fractional.size:
                return f"has the zero point {float(fractional[0]):.6g}, no integer"
        return ""

    def rank(self, x: ir.Value, default: int) -> int:
        """Number of axes of a tensor, or the default where nothing tells it."""
        if x.shape is not None:
            return len(x.shape)
        return len(self._shape(x)) if self.constants.is_constant(x) else default

    def _shape(self, x: ir.Value) -> tuple[int, ...]:
        tensor = self.constants.tensor(x)
        return tuple(tensor.shape.numpy()) if tensor is not None else self.constants.array(x).shape


def _spreads(factor: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether broadcasting leaves the tensor its shape."""
    return len(factor) <= len(shape) and all(f in (1, n) for f, n in zip(factor[::-1], shape[::-1], strict=False))


Rule = Callable[[QuantizerWriter, ir.Node], None]
"""Function that reads a node of one operator and lets the writer replace it."""
