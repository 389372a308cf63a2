"""Operators that read quantized integers and are no DequantizeLinear: they read the floats that the integers stand for.

DequantizeLinear is strictly increasing, so whatever selects, orders or compares integers of one quantizer does the same
with their floats: ArgMax, TopK, Max, Min, Relu, Where, Equal and the like give the same bits. Shape needs no numbers.
Cast, Sub and Mul with the quantizer's own factors are a DequantizeLinear. Any other operator gets the integers back
from the floats, as Cast(Round(x / scale) + zero): exact, since x / scale lies within 2^-14 of an integer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, stands_for
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.refused import note_refusal

ORDERED = frozenset("ArgMax ArgMin TopK ReduceMax ReduceMin".split())
"""Their first output may be an index; what they select are elements of the first input."""
SELECTED = frozenset("Max Min Where Relu".split())
COMPARED = frozenset("Equal Less LessOrEqual Greater GreaterOrEqual".split())
MEASURED = frozenset("Shape Size".split())
FLOATS = (int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16))


@dataclass(frozen=True)
class Factors:
    """Of the quantizer that made a tensor of integers.

    Attributes:
        scale, zero: inputs of its QuantizeLinear.
        numbers: the scale, the zero point, the tensor's integer type.
        uncast: the quantizer's own integers, where a Cast to a wider type stands behind them.
    """

    scale: ir.Value
    zero: ir.Value | None
    numbers: tuple[float, int, np.dtype[np.generic]]
    uncast: ir.Value | None = None

    def cast(self, integers: ir.Value, kind: ir.DataType) -> Factors:
        """Of a Cast of the integers to a type that holds them all."""
        return replace(self, numbers=(*self.numbers[:2], kind.numpy()), uncast=self.uncast or integers)


class IntegerReaders:
    """Rewrites the readers of integers of one model.

    Args:
        model: edited in place.
        editor: of the model.
        constants: of the model.
        factors: tensors of integers and their factors; those that are made here are added.
    """

    def __init__(
        self,
        model: ir.Model,
        editor: GraphEditor,
        constants: ConstantEvaluator,
        factors: dict[ir.Value, Factors],
    ) -> None:
        self._model, self._edit, self._constants, self._factors = model, editor, constants, factors

    def rewrite(self, node: ir.Node) -> None:
        """Let a node read floats."""
        if node.domain == "" and node.op_type == "Cast" and node.attributes["to"].as_int() in FLOATS:
            self._cast(node)
        elif node.domain == "" and node.op_type in MEASURED | ORDERED | COMPARED | SELECTED and self._is_exact(node):
            self._on_floats(node)
        else:
            self._integers_back(node)

    def _is_exact(self, node: ir.Node) -> bool:
        """Whether all that is selected from or compared is of one quantizer, or a constant integer beside it."""
        values = [node.inputs[i] for i in self._positions(node)]
        known = [self._factors[v] for v in values if v in self._factors]
        others = [v for v in values if v not in self._factors]
        if len({f.numbers for f in known}) != 1 or known[0].uncast is not None:
            return False
        return all(v is not None and self._constants.is_constant(v) for v in others)

    def _positions(self, node: ir.Node) -> tuple[int, ...]:
        if node.op_type in ORDERED | MEASURED or node.op_type == "Relu":
            return (0,)
        return (1, 2) if node.op_type == "Where" else tuple(range(len(node.inputs)))

    def _on_floats(self, node: ir.Node) -> None:
        positions = self._positions(node)
        factors = next(self._factors[v] for i in positions if (v := node.inputs[i]) in self._factors)
        inputs = list(node.inputs)
        for position in positions:
            inputs[position] = self._float(node, inputs[position], factors)
        if node.op_type == "Relu":  # max(q, 0) on integers: 0 is the float of the integer 0
            floor = self._edit.constant(f"{node.name}/zero", self._floats_of(np.zeros((), np.int64), factors))
            first = self._edit.node("Max", [inputs[0], floor], node, "float")
        else:
            attributes = node.attributes.values()
            first = self._edit.node(node.op_type, inputs, node, "float", attributes, outputs=len(node.outputs))
        producer = first.producer()
        assert producer is not None
        results = []
        for made, old in zip(producer.outputs, node.outputs, strict=True):
            made.shape = old.shape
            if not self._holds_elements(node, old):
                made.type = old.type
                results.append(made)
                continue
            made.type = ir.TensorType(factors.scale.dtype or ir.DataType.FLOAT)
            back = self._edit.node("QuantizeLinear", [made, factors.scale, factors.zero], node, "quantize", like=old)
            self._factors[back] = factors
            results.append(back)
        self._edit.replace(node, results)

    def _holds_elements(self, node: ir.Node, output: ir.Value) -> bool:
        """Whether an output consists of elements of the input, not of indices, truths or sizes."""
        if node.op_type in COMPARED | MEASURED or node.op_type in ("ArgMax", "ArgMin"):
            return False
        return node.op_type != "TopK" or output is node.outputs[0]

    def _float(self, node: ir.Node, value: ir.Value | None, factors: Factors) -> ir.Value:
        assert value is not None
        if value not in self._factors:
            array = self._floats_of(np.asarray(self._constants.array(value)), factors)
            return self._edit.constant(f"{value.name}/float", array)
        integers = self._factors[value].uncast or value
        made = self._edit.node("DequantizeLinear", [integers, factors.scale, factors.zero], node, "dequantize")
        made.type, made.shape = ir.TensorType(factors.scale.dtype or ir.DataType.FLOAT), value.shape
        return made

    def _floats_of(self, integers: np.ndarray, factors: Factors) -> np.ndarray:
        """As DequantizeLinear computes them."""
        scale, zero, _ = factors.numbers
        kind = np.asarray(self._constants.array(factors.scale)).dtype
        return np.asarray((integers.astype(np.int64) - zero).astype(kind) * kind.type(scale), kind)

    def _cast(self, node: ir.Node) -> None:
        """Cast -> Sub -> Mul with the quantizer's factors is its DequantizeLinear; any other Cast gives integers."""
        value = node.inputs[0]
        assert value is not None
        factors = self._factors[value]
        scale, zero, _ = factors.numbers
        step = self._only_reader(node)
        if step is not None and step.op_type == "Sub" and self._operand(step, 1) == zero:
            step = self._only_reader(step)
        elif zero != 0:
            step = None
        if step is not None and step.op_type == "Mul" and scale in (self._operand(step, 0), self._operand(step, 1)):
            self._edit.replace(step, [self._float(step, value, factors)])
            return
        self._integers_back(node)

    def _only_reader(self, node: ir.Node) -> ir.Node | None:
        uses = list(node.outputs[0].uses())
        return uses[0].node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None

    def _operand(self, node: ir.Node, index: int) -> float | None:
        """A constant operand of one element."""
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None or not self._constants.is_constant(value):
            return None
        array = np.asarray(self._constants.array(value))
        return float(array.reshape(-1)[0]) if array.size == 1 else None

    def _integers_back(self, node: ir.Node) -> None:
        """Give a node that needs the integers themselves what the floats say they are."""
        self.compute_integers(node)
        if node.domain not in ("", "ai.onnx"):
            note_refusal(node, "foreign-operator", "it reads a quantizer's integers", "Export the model in QDQ format.")
        name, op_type = stands_for(node)
        if op_type == "QuantizeLinear":  # a Clip that stands for its range of 4 bits, at a graph output
            warn(
                self._model,
                f"Node '{name}' ({op_type}) hands out integers that no AscendQuant gives there; the outputs compute "
                "them from floats. Hand out the DequantizeLinear's result to spare that.",
            )
            return
        warn(
            self._model,
            f"Node '{name or node.outputs[0].name}' ({op_type}) reads the integers of a quantizer; the outputs compute "
            "them from floats. Let it read the DequantizeLinear's result to spare that.",
        )

    def compute_integers(self, node: ir.Node) -> None:
        """Let a node read integers that float operators compute in the place of a quantizer's."""
        for index, value in enumerate(node.inputs):
            if value not in self._factors:
                continue
            assert value is not None
            factors = self._factors[value]
            scale, zero, kind = factors.numbers
            make = self._maker(node, value)
            steps = make("Round", [make("Div", [self._float(node, value, factors), factors.scale], "steps")], "round")
            if zero:
                offset = self._edit.constant(f"{node.name}/offset", self._number(zero, factors))
                steps = make("Add", [steps, offset], "offset")
            to = ir.DataType.from_numpy(kind)
            back = self._edit.node("Cast", [steps], node, "integers", [ir.AttrInt64("to", int(to))])
            back.type, back.shape = ir.TensorType(to), value.shape
            node.replace_input_with(index, back)

    def _number(self, number: int, factors: Factors) -> np.ndarray:
        return np.asarray(number, np.asarray(self._constants.array(factors.scale)).dtype)

    def _maker(self, node: ir.Node, like: ir.Value) -> Callable[[str, list[ir.Value], str], ir.Value]:
        kind = self._factors[like].scale.dtype or ir.DataType.FLOAT

        def make(op_type: str, inputs: list[ir.Value], label: str) -> ir.Value:
            value = self._edit.node(op_type, inputs, node, label)
            value.type, value.shape = ir.TensorType(kind), like.shape
            return value

        return make
