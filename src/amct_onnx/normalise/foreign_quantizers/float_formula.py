"""The formula of a quantizer in float operators: the numbers are right, but no layer becomes int8 by them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor
from amct_onnx.graph.refused import note_refusal
from amct_onnx.normalise.foreign_quantizers.factors import tensor_of
from amct_onnx.normalise.foreign_quantizers.grid import ROUNDING, Grid


class FloatFormula:
    """Replaces a node by float operators.

    Attributes:
        left_float: name and reason of each quantizer of an activation that became float operators.
    """

    def __init__(self, edit: GraphEditor, constants: ConstantEvaluator) -> None:
        self._edit = edit
        self._constants = constants
        self.left_float: list[tuple[str, str]] = []

    def write(self, node: ir.Node, grid: Grid, why: str) -> None:
        """Round to a grid; ``why`` tells why no QuantizeLinear does."""
        value = self.operator(node, "Div", tensor_of(node), grid.scale)
        value = self.operator(node, "Add", value, grid.zero)
        value = self.clip(node, value, grid.low, grid.high)
        value = self.round(node, value, grid.rounding)
        self.finish(node, value, grid.out_scale, grid.out_zero, why)

    def finish(self, node: ir.Node, value: ir.Value, scale: Array, zero: Array, why: str) -> None:
        """(value - zero) * scale takes the node's place; what reads it is noted as refused."""
        x = tensor_of(node)
        value = self.operator(node, "Sub", value, zero)
        value = self._edit.node("Mul", [value, self.constant(node, "scale", scale)], node, like=x)
        if not self._constants.is_constant(x):
            self.left_float.append((node.name or "", why))
            for use in node.outputs[0].uses():
                note_refusal(
                    use.node,
                    "quantizer-not-integer",
                    f"the quantizer '{node.name}' ({node.op_type}) at its input {why}",
                    "Train with quantizers of 8 bits that round half to even and have an integer zero point.",
                )
        self._edit.replace(node, [value])

    def round(self, node: ir.Node, value: ir.Value, mode: str) -> ir.Value:
        """Round with a mode of ROUNDING."""
        magnitude, first, op_type = ROUNDING[mode]
        sign = self._edit.node("Sign", [value], node, "sign") if magnitude else None
        value = self._edit.node("Abs", [value], node, "abs") if magnitude else value
        value = self.operator(node, "Add", value, np.asarray(first))
        value = self._edit.node(op_type, [value], node, op_type.lower())
        return value if sign is None else self._edit.node("Mul", [value, sign], node, "signed")

    def clip(self, node: ir.Node, value: ir.Value, low: int, high: int) -> ir.Value:
        """Max and Min: a Clip of some opset would take its bounds elsewhere."""
        value = self.operator(node, "Max", value, np.asarray(low))
        return self.operator(node, "Min", value, np.asarray(high))

    def operator(self, node: ir.Node, op_type: str, value: ir.Value, factor: Array) -> ir.Value:
        """A binary operator with a constant; adding or subtracting nothing is left out."""
        if op_type in ("Add", "Sub") and not np.any(factor):
            return value
        label = op_type.lower()
        return self._edit.node(op_type, [value, self.constant(node, f"{label}_by", factor)], node, label)

    def constant(self, node: ir.Node, label: str, array: Array) -> ir.Value:
        """A constant of the type of the node's tensor."""
        dtype = np.float16 if tensor_of(node).dtype == ir.DataType.FLOAT16 else np.float32
        return self._edit.constant(f"{node.name}/{label}", array.astype(dtype))
