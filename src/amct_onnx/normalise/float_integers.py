"""Integers that no AscendQuant gives where they are read: float operators compute them from the pair's floats.

That is so for a QuantizeLinear per channel or block whose integers leave the graph or are read by anything but a
DequantizeLinear of the same factors, for 16 bits and for the body of an If, Loop or Scan at an output, and for a
DequantizeLinear of other factors. With f = DequantizeLinear(q), q = Round(f / scale) + zero point: exact, since f /
scale lies within 2^-14 of an integer. Of float8 the nearest number of the type is taken, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.small_floats import SMALL_FLOATS
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import STANDS_FOR, GraphEditor, exchange_names, nodes_of, stands_for
from amct_onnx.graph.laid_factors import laid
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, integer_type, is_op

EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)
MEASURED = frozenset("Shape Size".split())
PAIR, UNEQUAL, OTHER = "pair", "unequal", "other"
"""Readers of integers: a DequantizeLinear alike, one of other factors, any other operator."""
LAYOUT = {"axis": 1, "block_size": 0}
"""Attributes that say where the factors belong, with their defaults."""


def compute_integers_in_float(model: ir.Model) -> None:
    """Rewrite the graph in place."""
    writer = _Writer(model)
    for node in nodes_of(model):
        if is_op(node, QUANTIZE) and not writer.constants.is_constant(node.outputs[0]):
            writer.quantizer(node)


def _only_dequantized(node: ir.Node) -> bool:
    """Whether only a DequantizeLinear with the very same factors reads the integers, as of most quantizers."""
    integers, factors, layout = node.outputs[0], node.inputs[1:], _layout(node)
    return not integers.is_graph_output() and all(
        is_op(use.node, DEQUANTIZE) and use.node.inputs[1:] == factors and _layout(use.node) == layout
        for use in integers.uses()
    )


def _layout(node: ir.Node) -> list[int]:
    return [attribute(node, name, default) for name, default in LAYOUT.items()]


class _Writer:
    """Writes what computes integers.

    Args:
        model: edited in place.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self.constants = ConstantEvaluator(opset_of(model))
        self._edit: GraphEditor | None = None
        self._last: ir.Node | None = None

    @property
    def edit(self) -> GraphEditor:
        """The editor of the model; it is made when something is to be written."""
        self._edit = self._edit or GraphEditor(self._model)
        return self._edit

    def quantizer(self, node: ir.Node) -> None:
        """Let everything that is no DequantizeLinear of its factors read computed integers."""
        if _only_dequantized(node):
            return
        if self._factors(node) is None:
            return  # the plan refuses it by name
        integers, kind = node.outputs[0], integer_type(node, self.constants)
        # other readers of 8-bit integers with one scale belong to another rule
        wanted = (UNEQUAL,) if self._array(node.inputs[1]).size == 1 and kind in EIGHT_BITS else (UNEQUAL, OTHER)
        readers = [use for use in integers.uses() if self._reading(node, use.node)[0] in wanted]
        for use in [u for u in readers if u.node.op_type in MEASURED]:
            use.node.replace_input_with(use.idx, node.inputs[0])
            readers.remove(use)
        if kind.name in SMALL_FLOATS:  # what does not dequantize cannot take floats
            readers = [use for use in readers if is_op(use.node, DEQUANTIZE)]
        leaves = integers.is_graph_output() and (OTHER in wanted or node.graph is not self._model.graph)
        if not readers and not leaves:
            return
        computed = self._computed(node)
        self._tell(node, [use.node for use in readers], leaves)
        for use in readers:
            if kind.name in SMALL_FLOATS:
                self._scaled(use.node, computed)
            else:
                use.node.replace_input_with(use.idx, computed)
        if leaves:
            self._hand_out(node, computed)

    def _reading(self, node: ir.Node, reader: ir.Node) -> tuple[str, ir.Node | None]:
        """What is made of the integers along Identity, Clip and Cast, and the DequantizeLinear of other factors."""
        waiting, found = [reader], PAIR
        while waiting:
            current = waiting.pop()
            if is_op(current, DEQUANTIZE):
                if not self._same_factors(node, current):
                    return UNEQUAL, current
            elif is_op(current, *BETWEEN):
                waiting += [use.node for use in current.outputs[0].uses()]
                found = OTHER if current.outputs[0].is_graph_output() else found
            else:
                found = OTHER
        return found, None

    def _same_factors(self, one: ir.Node, other: ir.Node) -> bool:
        laid_alike = _layout(one) == _layout(other)
        if laid_alike and one.inputs[1:] == other.inputs[1:]:
            return True
        mine, theirs = self._factors(one), self._factors(other)
        if mine is None or theirs is None:
            return True  # not constant, or of unequal length: the plan refuses it by name
        alike = all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        return alike and (laid_alike or mine[0].size == 1)

    def _factors(self, node: ir.Node) -> tuple[Array, Array] | None:
        if not all(v is None or self.constants.is_constant(v) for v in node.inputs[1:]):
            return None
        scale = self._array(node.inputs[1]).astype(np.float32).reshape(-1)
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        offset = np.zeros(1, np.int64) if zero is None else self._array(zero).astype(np.int64).reshape(-1)
        if offset.size not in (1, scale.size) or not scale.size:
            return None
        return scale, np.broadcast_to(offset, scale.shape) if offset.size == 1 else offset

    def _array(self, value: ir.Value | None) -> Array:
        assert value is not None
        return np.asarray(self.constants.array(value))

    def _computed(self, node: ir.Node) -> ir.Value:
        """The integers of a QuantizeLinear, or the numbers of float8 as floats."""
        integers, source = node.outputs[0], node.inputs[0]
        assert source is not None
        factors, self._last = self._factors(node), node
        assert factors is not None
        kind, layout = (
            integer_type(node, self.constants),
            [a for n in LAYOUT if (a := node.attributes.get(n)) is not None],
        )
        inputs = [integers, *node.inputs[1:]]
        floats = self._after(DEQUANTIZE, inputs, node, "floats", layout)
        floats.type = ir.TensorType((node.inputs[1].dtype if node.inputs[1] is not None else None) or ir.DataType.FLOAT)
        scale = self._laid(factors[0], node, source, floats, "scale")
        steps = self._after("Div", [floats, scale], node, "steps")
        if kind.name in SMALL_FLOATS:
            one = self.edit.constant(f"{node.name}/one", np.ones((), np.float32))
            attributes = [ir.AttrInt64("output_dtype", int(kind)), ir.AttrInt64("saturate", 0)]
            nearest = self._after(QUANTIZE, [steps, one], node, "nearest", attributes)
            nearest.type = ir.TensorType(kind)
            numbers = self._after(DEQUANTIZE, [nearest, one], node, "numbers")
            numbers.type = ir.TensorType(ir.DataType.FLOAT)
            return numbers
        steps = self._after("Round", [steps], node, "round")
        if np.any(factors[1]):
            offset = self._laid(factors[1].astype(np.float32), node, source, floats, "offset")
            steps = self._after("Add", [steps, offset], node, "moved")
        result = self._after("Cast", [steps], node, "integers", [ir.AttrInt64("to", int(kind))])
        result.type = ir.TensorType(kind)
        return result

    def _scaled(self, reader: ir.Node, numbers: ir.Value) -> None:
        """A DequantizeLinear of float8 numbers that are floats already."""
        factors = self._factors(reader)
        assert factors is not None
        scale = self._laid(factors[0], reader, numbers, numbers, "scale")
        kind = reader.outputs[0].dtype or ir.DataType.FLOAT
        if kind != ir.DataType.FLOAT:
            numbers = self.edit.node("Mul", [numbers, scale], reader, "scaled", like=numbers)
            attributes = [ir.AttrInt64("to", int(kind))]
            result = self.edit.node("Cast", [numbers], reader, "", attributes, like=reader.outputs[0])
        else:
            result = self.edit.node("Mul", [numbers, scale], reader, "", like=reader.outputs[0])
        self.edit.replace(reader, [result])

    def _after(
        self, op_type: str, inputs: list[ir.Value | None], node: ir.Node, label: str, attributes: Sequence[ir.Attr] = ()
    ) -> ir.Value:
        """An operator behind all that was written for the quantizer so far."""
        name = self.edit.node_names.take(f"{node.name}/{label}")
        made = self.edit.insert(op_type, inputs, name, attributes, after=self._last)
        made.meta[STANDS_FOR] = stands_for(node)
        first = inputs[0]
        source = node.inputs[0]
        made.outputs[0].type = None if first is None else first.type
        made.outputs[0].shape = node.outputs[0].shape or (None if source is None else source.shape)
        self._last = made
        return made.outputs[0]

    def _laid(self, factor: Array, node: ir.Node, tensor: ir.Value, floats: ir.Value, label: str) -> ir.Value:
        blocks = attribute(node, "block_size", 0)
        axis = None if factor.size == 1 else attribute(node, "axis", 1)
        shapes = (self._array(node.inputs[1]).shape, blocks) if blocks and factor.size > 1 else None
        name, op_type = stands_for(node)
        wide = laid(factor, axis, shapes, tensor, f"Node '{name}' ({op_type}) quantizes")
        kind = floats.dtype or ir.DataType.FLOAT
        return self.edit.constant(f"{node.name}/{label}", wide.astype(kind.numpy()))

    def _hand_out(self, node: ir.Node, computed: ir.Value) -> None:
        integers, graph = node.outputs[0], node.graph
        assert graph is not None
        for index, output in enumerate(graph.outputs):
            if output is integers:
                graph.outputs[index] = computed
        exchange_names(computed, integers)

    def _tell(self, node: ir.Node, readers: list[ir.Node], leaves: bool) -> None:
        name, op_type = stands_for(node)
        other = next((o for r in readers if (o := self._reading(node, r)[1]) is not None), None)
        mine, theirs = self._factors(node), None if other is None else self._factors(other)
        if mine is not None and theirs is not None and other is not None:
            reader, kind = stands_for(other)
            if kind != DEQUANTIZE or reader == name:
                return  # no pair of the user's: numbers of float8 are read as they are
            warn(
                self._model,
                f"The integers of {op_type} '{name}' have scale {mine[0][:4].tolist()} and zero point "
                f"{mine[1][:4].tolist()}, DequantizeLinear '{reader}' has {theirs[0][:4].tolist()} and "
                f"{theirs[1][:4].tolist()}: the outputs quantize with the first and dequantize with the second. Export "
                "equal factors, if those are meant.",
            )
        elif leaves or stands_for(readers[0]) == (name, op_type):
            warn(
                self._model,
                f"Node '{name}' ({op_type}) hands out integers that no AscendQuant gives there; the outputs compute "
                "them from floats. Hand out the DequantizeLinear's result to spare that.",
            )
        else:
            reader, kind = stands_for(readers[0])
            warn(
                self._model,
                f"Node '{reader}' ({kind}) reads integers that no AscendQuant gives; the outputs compute them from "
                "floats. Let it read the DequantizeLinear's result to spare that.",
            )
