"""Tensors of 4 and 2 bits that depend on the inputs become tensors of 8 bits, and those of float8 floats.

No opset of the outputs has such types. int8 and uint8 hold every integer of 4 or 2 bits, so a QuantizeLinear to int4 is
one to int8 and a Clip. float32 holds every number of float8 and float4, so a tensor of these that an input or a table
gives is one of floats, behind which a pair of scale 1 says their type. A graph input or output keeps its numbers, and
gets the wider type.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.small_floats import SMALL_FLOATS
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import STANDS_FOR, GraphEditor, exchange_names, nodes_of, stands_for
from amct_onnx.graph.float_types import FLOATS
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op
from amct_onnx.normalise.integer_valued import IntegerValues
from amct_onnx.normalise.small_types import is_small

WIDER = {
    ir.DataType.INT4: ir.DataType.INT8,
    ir.DataType.INT2: ir.DataType.INT8,
    ir.DataType.UINT4: ir.DataType.UINT8,
    ir.DataType.UINT2: ir.DataType.UINT8,
}
MEASURED = frozenset("Shape Size".split())


def widen_small_types(model: ir.Model) -> None:
    """Rewrite the graph in place; its types are inferred. Constants in front of a DequantizeLinear stay as they are."""
    nodes = nodes_of(model)
    values = [
        *model.graph.inputs,
        *model.graph.outputs,
        *(v for n in nodes for v in (*n.inputs, *n.outputs) if v is not None),
    ]
    if not any(is_small(v) for v in values):
        return
    widening = _Widening(model)
    for value in model.graph.inputs:
        if is_small(value) and not value.is_initializer():
            widening.input(value)
    for node in nodes_of(model):
        widening.node(node)
    for index, value in enumerate(model.graph.outputs):
        if is_small(value):
            widening.output(index, value)


class _Widening:
    """Widens the tensors of one model.

    Args:
        model: edited in place.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._edit = GraphEditor(model)
        self._constants = ConstantEvaluator(opset_of(model))
        self._values = IntegerValues(self._constants)
        self._widened: set[ir.Value | None] = set()

    def input(self, value: ir.Value) -> None:
        """A graph input takes the same numbers in a type that the outputs have."""
        small = value.dtype
        assert small is not None
        wide = WIDER.get(small, ir.DataType.FLOAT)
        self._tell("input", value, small, wide)
        self._widen(value, wide)
        first = next(iter(self._model.graph), None)
        uses = list(value.uses())
        if wide == ir.DataType.FLOAT and first is not None and uses:
            stated = self._stated(value, small, f"{value.name}/quantize", stands_for(uses[0].node), before=first)
            for use in uses:
                use.node.replace_input_with(use.idx, stated)

    def output(self, index: int, value: ir.Value) -> None:
        """A graph output of float8, or a constant one of few bits, gives the same numbers in another type."""
        small, producer = value.dtype, value.producer()
        if self._constants.is_constant(value):
            self._constant_output(index, value)
            return
        if small is None or producer is None or small in WIDER:
            return
        self._tell("output", value, small, ir.DataType.FLOAT)
        name = value.name or ""
        value.name = self._edit.value_names.take(f"{name}/{small.name.lower()}")
        label = self._edit.node_names.take(f"{producer.name or name}/numbers")
        end = self._edit.insert(DEQUANTIZE, [value, self._one()], label, after=producer)
        end.meta[STANDS_FOR] = stands_for(producer)
        end.outputs[0].type, end.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        self._model.graph.outputs[index] = end.outputs[0]
        end.outputs[0].name = name

    def _constant_output(self, index: int, value: ir.Value) -> None:
        small = value.dtype
        assert small is not None
        wide, name = WIDER.get(small, ir.DataType.FLOAT), value.name or ""
        self._tell("output", value, small, wide)
        content = np.asarray(self._constants.array(value)).astype(np.float32).astype(wide.numpy())
        label = self._edit.node_names.take(f"{name}/widened")
        end = self._edit.insert("Identity", [self._edit.constant(f"{name}/{wide.name.lower()}", content)], label)
        value.name = self._edit.value_names.take(f"{name}/{small.name.lower()}")
        end.outputs[0].name, end.outputs[0].shape = name, value.shape
        end.outputs[0].type = ir.TensorType(wide)
        self._model.graph.outputs[index] = end.outputs[0]

    def node(self, node: ir.Node) -> None:
        """Widen what a node reads and makes; nodes of other domains and computed constants stay."""
        if is_op(node, QUANTIZE):
            self._quantizer(node)
        elif is_op(node, DEQUANTIZE):
            self._zero_point(node, node.inputs[0])
        elif node.domain == "" and not all(self._constants.is_constant(v) for v in node.outputs):
            if node.op_type == "Cast":
                self._cast(node)
            elif data_inputs(node) or node.op_type in MEASURED:
                self._mover(node)

    def _quantizer(self, node: ir.Node) -> None:
        """A QuantizeLinear to few bits is one to 8 bits, and a Clip."""
        result = node.outputs[0]
        if self._constants.is_constant(node.inputs[0]) or not all(
            self._constants.is_constant(v) for v in node.inputs[1:2]
        ):
            return
        small = integer_type(node, self._constants)
        if small not in WIDER:
            return
        wide = WIDER[small]
        node.attributes["output_dtype"] = ir.AttrInt64("output_dtype", int(wide))
        self._widen_input(node, 2, wide)
        low = -(2 ** (small.bitwidth - 1)) if small.is_signed() else 0
        bounds = [
            self._edit.constant(f"{node.name}/{label}", np.asarray(n, wide.numpy()))
            for label, n in (("low", low), ("high", low + 2**small.bitwidth - 1))
        ]
        is_output = result.is_graph_output()
        if is_output:
            self._tell("output", result, small, wide)
        name = node.name or result.name or ""
        clip = self._edit.insert("Clip", [result, *bounds], self._edit.node_names.take(f"{name}/clip"), after=node)
        clip.meta[STANDS_FOR] = stands_for(node)
        narrow = clip.outputs[0]
        for value in (result, narrow):
            self._widen(value, wide)
            value.shape = result.shape
        ir.convenience.replace_all_uses_with(result, narrow, replace_graph_outputs=True)
        clip.replace_input_with(0, result)
        if is_output:
            exchange_names(result, narrow)

    def _zero_point(self, node: ir.Node, value: ir.Value | None) -> None:
        """Of the type of the integers that a DequantizeLinear reads."""
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        if value is not None and value.dtype is not None and value in self._widened and is_small(zero):
            self._widen_input(node, 2, value.dtype)

    def _cast(self, node: ir.Node) -> None:
        """A Cast to few bits of integers that they hold is one to 8 bits; one from float8 reads the numbers."""
        value, to = node.inputs[0], ir.DataType(node.attributes["to"].as_int())
        if value is None:
            return
        if to in WIDER:
            low = -(2 ** (to.bitwidth - 1)) if to.is_signed() else 0
            span = self._values.of(value)
            if span.whole and low <= span.low and span.high < low + 2**to.bitwidth:
                node.attributes["to"] = ir.AttrInt64("to", int(WIDER[to]))
                self._widen(node.outputs[0], WIDER[to])
        elif value.dtype is not None and value.dtype.name in SMALL_FLOATS and to not in FLOATS:
            node.replace_input_with(0, self._numbers(node, value, 0))

    def _mover(self, node: ir.Node) -> None:
        """What moves elements moves those of the wider type; tables that it reads are widened as well."""
        for index in data_inputs(node) or (0,):
            value = node.inputs[index]
            if value is None or not is_small(value) or not self._constants.is_constant(value):
                continue
            assert value.dtype is not None
            if value.dtype in WIDER:
                self._widen_input(node, index, WIDER[value.dtype])
            elif value.dtype.name in SMALL_FLOATS:
                self._move_floats(node, index, value)
        if node.op_type in MEASURED:
            return
        moved = [v for i in data_inputs(node) if (v := node.inputs[i]) is not None and v in self._widened]
        wide = moved[0].dtype if moved else None
        for result in node.outputs if wide is not None else ():
            assert wide is not None
            if result.dtype in WIDER and result.is_graph_output():
                self._tell("output", result, result.dtype, wide)
            self._widen(result, wide)

    def _widen(self, value: ir.Value, wide: ir.DataType) -> None:
        value.type = ir.TensorType(wide)
        self._widened.add(value)

    def _move_floats(self, node: ir.Node, index: int, table: ir.Value) -> None:
        """A table of float8 is read as floats, whose type a pair behind them states."""
        small, result = table.dtype, node.outputs[0]
        if small is None or len(node.outputs) != 1 or node.op_type in MEASURED:
            return
        node.replace_input_with(index, self._numbers(node, table, index))
        result.type = ir.TensorType(ir.DataType.FLOAT)
        uses = list(result.uses())
        stated = self._stated(result, small, f"{node.name}/quantize", stands_for(node), after=node)
        for use in uses:
            use.node.replace_input_with(use.idx, stated)

    def _widen_input(self, node: ir.Node, index: int, wide: ir.DataType) -> None:
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None or not is_small(value) or not self._constants.is_constant(value):
            return
        tensor, kind = self._constants.tensor(value), wide.numpy()
        if tensor is None:
            content: ir.TensorProtocol = ir.tensor(np.asarray(self._constants.array(value)).astype(kind))
        else:
            content = ir.LazyTensor(
                lambda: ir.tensor(tensor.numpy().astype(kind)), dtype=wide, shape=ir.Shape(tensor.shape.numpy())
            )
        widened = self._edit.constant(f"{value.name}/{wide.name.lower()}", content)
        self._widened.add(widened)
        node.replace_input_with(index, widened)

    def _numbers(self, node: ir.Node, value: ir.Value, index: int) -> ir.Value:
        """The numbers of a tensor of float8, as floats."""
        name = self._edit.node_names.take(f"{node.name}/numbers_{index}")
        made = self._edit.insert(DEQUANTIZE, [value, self._one()], name, before=node)
        made.meta[STANDS_FOR] = stands_for(node)
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        return made.outputs[0]

    def _stated(
        self,
        value: ir.Value,
        small: ir.DataType,
        name: str,
        stand: tuple[str, str],
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Numbers of float8 that floats hold, as a tensor of their type again."""
        attributes = [ir.AttrInt64("output_dtype", int(small)), ir.AttrInt64("saturate", 0)]
        name = self._edit.node_names.take(name)
        made = self._edit.insert(QUANTIZE, [value, self._one()], name, attributes, before=before, after=after)
        made.meta[STANDS_FOR] = stand
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(small), value.shape
        return made.outputs[0]

    def _one(self) -> ir.Value:
        return self._edit.constant("one", np.ones((), np.float32))

    def _tell(self, what: str, value: ir.Value, small: ir.DataType, wide: ir.DataType) -> None:
        verb = "takes" if what == "input" else "gives"
        warn(
            self._model,
            f"Graph {what} '{value.name}' was {small.name} and is {wide.name} now, which the outputs' opset has: it "
            f"{verb} the same numbers.",
        )
