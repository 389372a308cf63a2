"""Fake quantization written as operators: Div or Mul -> Round -> Clip -> Mul, with zero points, in any order and sign.

Clip may stand before or behind Round or at the end, and may be Max and Min, or Where and a comparison. A
straight-through estimator's x + (round(x) - x) is round(x). A chain that is exactly a quantizer becomes
QuantizeLinear (-> Clip) -> DequantizeLinear; at an exact tie an odd zero point picks the other neighbour. Every other
chain stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.refused import note_form
from amct_onnx.graph.shapes import stored_shape
from amct_onnx.normalise.foreign_quantizers.affine_chains import SAME, Step, grid_of
from amct_onnx.normalise.foreign_quantizers.grid import Grid, limits, type_for
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter

LARGER, SMALLER = {"Greater", "GreaterOrEqual"}, {"Less", "LessOrEqual"}
MAX_STEPS = 8
"""Operators on either side of Round: two shifts, two bounds, a Cast and its way back, a scale, and one in reserve."""


@dataclass(frozen=True)
class _Chain:
    """A way through the graph.

    Attributes:
        value: where it ends, seen from Round.
        steps: in the order of computation.
    """

    value: ir.Value
    steps: tuple[Step, ...] = ()


def read_written_out_quantizers(model: ir.Model) -> None:
    """Rewrite the graph in place; a warning names each chain that almost is a quantizer, and says why it is none."""
    rounds = [n for n in nodes_of(model) if n.op_type == "Round" and n.domain == "" and n.inputs]
    if not rounds:
        return
    reader = _Reader(QuantizerWriter(model))
    for node in rounds:
        if node.graph is not None:  # an earlier one has not taken it along
            reader.read(node)


class _Reader:
    def __init__(self, writer: QuantizerWriter) -> None:
        self._writer = writer
        self._constants = writer.constants

    def read(self, node: ir.Node) -> None:
        """Find the shortest chain around a Round that is a quantizer, and put Q and DQ in its place."""
        if node.inputs[0] is None:
            return
        before, after = list(self._before(node)), list(self._after(node))
        kind = node.outputs[0].dtype or node.inputs[0].dtype
        tolerance = 4 * float(np.finfo(np.float16 if kind == ir.DataType.FLOAT16 else np.float32).eps)
        why = ""
        pairs = sorted(((b, a) for b in before for a in after), key=lambda p: len(p[0].steps) + len(p[1].steps))
        for start, end in pairs:
            if start.value.dtype != end.value.dtype and None not in (start.value.dtype, end.value.dtype):
                continue
            found = grid_of(list(start.steps), list(end.steps), _floor(start.value), tolerance)
            if isinstance(found, Grid):
                found = self._expressible(start.value, found)
            if isinstance(found, Grid):
                self._write(start.value, self._straight_through(end.value, start.value) or end.value, found)
                return
            why = why or found or ""
        if why:
            note_form(node, f"it {why}")
            warn(
                self._writer.edit.model,
                f"Node '{node.name}' (Round) and the operators around it are almost a fake quantization: it {why}. "
                "These operators stay. Train with quantizers that have an integer zero point and at most 16 bits.",
            )

    def _expressible(self, x: ir.Value, grid: Grid) -> Grid | str:
        why = self._writer.obstacle(x, *grid.factors)
        if not why and type_for(grid) is None:
            why = f"needs more than 16 bits for its integers {grid.low}..{grid.high}"
        return why or grid

    def _write(self, x: ir.Value, end: ir.Value, grid: Grid) -> None:
        """A node that stands for the chain takes its place, and is written as any foreign quantizer.

        A constant is rounded by its own chain, so that not even a tie falls otherwise.
        """
        chain, edit = end.producer(), self._writer.edit
        assert chain is not None
        constant = self._constants.is_constant(x)
        stand_in = edit.insert("FakeQuantize", [x], chain.name or "", after=chain)
        chain.name = edit.node_names.take(f"{chain.name}/written_out")
        result = stand_in.outputs[0]
        result.type, result.shape = end.type, end.shape
        name, end.name = end.name, edit.value_names.take(f"{end.name}/written_out")
        ir.convenience.replace_all_uses_with(end, result, replace_graph_outputs=True)
        result.name = name
        if constant:
            stand_in.replace_input_with(0, end)
        self._writer.write(stand_in, grid)
        if not constant:
            _remove_unread(chain)

    # -- the chain -------------------------------------------------------------------------------------------------

    def _before(self, node: ir.Node) -> Iterator[_Chain]:
        value = node.inputs[0]
        assert value is not None
        chain = _Chain(value)
        yield chain
        while len(chain.steps) < MAX_STEPS:
            producer = chain.value.producer()
            source = None if producer is None else self._data_input(producer)
            step = None if producer is None or source is None else self._step(producer, source)
            if step is None or source is None or step.integer is not None:
                return
            chain = _Chain(source, (step, *chain.steps))
            yield chain

    def _after(self, node: ir.Node) -> Iterator[_Chain]:
        """Every way onward; few tensors have several readers that scale, shift or clip."""
        rounded, source = node.outputs[0], node.inputs[0]
        assert source is not None
        open_ends = [_Chain(rounded)]
        skipped = self._straight_through(rounded, source)
        if skipped is not None:
            open_ends.append(_Chain(skipped))
        while open_ends:
            chain = open_ends.pop()
            yield chain
            if len(chain.steps) == MAX_STEPS:
                continue
            for use in chain.value.uses():
                step = self._step(use.node, chain.value)
                if step is not None and self._data_input(use.node) is chain.value:
                    open_ends.append(_Chain(use.node.outputs[0], (*chain.steps, step)))

    def _straight_through(self, value: ir.Value, source: ir.Value) -> ir.Value | None:
        """The result of source + (value - source), which is value."""
        for use in value.uses():
            if use.node.op_type != "Sub" or use.idx != 0 or use.node.domain or use.node.inputs[1] is not source:
                continue
            for reader in use.node.outputs[0].uses():
                if reader.node.op_type == "Add" and source in reader.node.inputs and not reader.node.domain:
                    return reader.node.outputs[0]
        return None

    def _data_input(self, node: ir.Node) -> ir.Value | None:
        """The input that a step changes: the one that is not constant, or of constants the larger one."""
        inputs = list(node.inputs)
        if not inputs or inputs[0] is None:
            return None
        if node.op_type == "Where" and len(inputs) == 3:
            moving = [v for v in inputs[1:] if v is not None and not self._constants.is_constant(v)]
            return moving[0] if moving else max(inputs[1:], key=_size)
        if node.op_type in ("Mul", "Add", "Sub", "Max", "Min") and len(inputs) == 2 and inputs[1] is not None:
            constant = [self._constants.is_constant(v) for v in inputs]
            if all(constant):
                return max(inputs, key=_size)
            return inputs[0] if constant[1] else inputs[1]
        return inputs[0]

    def _step(self, node: ir.Node, data: ir.Value) -> Step | None:
        """What a node does with ``data``; None where that is not a step."""
        if node.domain != "" or len(node.outputs) != 1:
            return None
        op_type, others = node.op_type, [v for v in node.inputs if v is not data]
        if op_type == "Identity":
            return SAME
        if op_type == "Neg":
            return Step(sign=-1.0)
        if op_type == "Cast":
            return _cast(ir.DataType(node.attributes["to"].as_int())) if "to" in node.attributes else None
        if op_type == "Clip":
            bounds = [self._factor(v) for v in [*node.inputs[1:], None, None][:2]]
            if any(bound is None and v is not None for bound, v in zip(bounds, node.inputs[1:], strict=False)):
                return None
            low, high = bounds
            return Step(low=-np.inf if low is None else low, high=np.inf if high is None else high)
        if op_type == "Where":
            return self._selection(node, data)
        number = self._factor(others[0]) if len(others) == 1 and len(node.inputs) == 2 else None
        if number is None:
            return None
        if op_type == "Mul":
            return Step(factor=number)
        if op_type == "Add":
            return Step(offset=number)
        if op_type == "Max":
            return Step(low=number)
        if op_type == "Min":
            return Step(high=number)
        if op_type == "Sub":
            return Step(offset=-number) if node.inputs[0] is data else Step(sign=-1.0, offset=number)
        if node.inputs[0] is data and op_type == "Div" and np.all(number != 0):
            return Step(factor=1 / number)
        return None

    def _selection(self, node: ir.Node, data: ir.Value) -> Step | None:
        """Where(x > c, c, x) is Min(x, c), and so on for the other comparisons, which differ in nothing at x = c."""
        condition, taken, other = node.inputs
        test = condition.producer() if condition is not None else None
        bound = other if taken is data else taken
        if test is None or test.domain or test.op_type not in LARGER | SMALLER or data not in test.inputs:
            return None
        number, compared = self._factor(bound), self._factor(test.inputs[1 if test.inputs[0] is data else 0])
        if number is None or compared is None or number.shape != compared.shape or np.any(number != compared):
            return None
        # whether the data is selected where it is the larger one
        larger = ((test.op_type in LARGER) == (test.inputs[0] is data)) == (taken is data)
        return Step(low=number) if larger else Step(high=number)

    def _factor(self, value: ir.Value | None) -> np.ndarray | None:
        """A constant of at most one axis, in float64."""
        if value is None or not self._constants.is_constant(value):
            return None
        shape = stored_shape(value)
        if shape is not None and sum(n > 1 for n in shape) > 1:
            return None
        array = np.asarray(self._constants.array(value))
        known = array.dtype.kind in "fiu" and array.size and sum(n > 1 for n in array.shape) <= 1
        return array.astype(np.float64) if known else None


def _cast(to: ir.DataType) -> Step | None:
    """Casting whole numbers to an integer type and back changes none that the type holds."""
    if to.is_integer() and to.bitwidth >= 8:
        low, high = limits(to)
        return Step(low=float(low), high=float(high), integer=True)
    return Step(integer=False) if to.is_floating_point() else None


def _floor(value: ir.Value) -> float:
    producer = value.producer()
    return 0.0 if producer is not None and producer.op_type == "Relu" and producer.domain == "" else -np.inf


def _size(value: ir.Value | None, depth: int = MAX_STEPS) -> float:
    """Number of elements; a computed tensor of unknown shape has those of the largest that it is computed from."""
    if value is None:
        return 0
    shape = stored_shape(value)
    if shape is None and value.shape is not None and value.shape.is_static():
        shape = tuple(value.shape.numpy())
    producer = value.producer()
    if shape is not None or producer is None or not depth:
        return float(np.prod(shape)) if shape is not None else np.inf
    return max((_size(v, depth - 1) for v in producer.inputs), default=np.inf)


def _remove_unread(node: ir.Node) -> None:
    """Remove a node that nothing reads, and those that only it read."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current.graph is None or any(v.uses() or v.is_graph_output() for v in current.outputs):
            continue
        sources = [v.producer() for v in current.inputs if v is not None]
        current.graph.remove(current, safe=True)
        waiting += [s for s in sources if s is not None]
