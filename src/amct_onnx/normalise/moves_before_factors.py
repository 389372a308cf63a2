"""DQ -> factors and quantizers that only rescale -> Transpose becomes DQ -> Transpose -> the same factors.

Mul and Div by one number above 0, and a pair of quantizers, act on each element alike and keep the order of numbers. So
they commute, bit for bit, with every operator that selects elements. A quantizer behind them that restores the integers
of the first one can then take them from a tensor of the source, whatever stood in between: the plan lets it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT8_MAX, INT8_MIN, reciprocal
from amct_onnx.device.restored_integers import Step, restores
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.marks import marks_of
from amct_onnx.graph.moves import data_inputs, fills
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op
from amct_onnx.graph.scalar_factors import factor_of

REPEATS = "amct_onnx.repeats"
"""Key in a QuantizeLinear's meta: see ``in_source``."""
CENTRES = {ir.DataType.INT8: 0, ir.DataType.UINT8: 128}
"""Integer type -> what lies at the middle of its range."""


@dataclass(frozen=True)
class Numbers:
    """Factors of a QuantizeLinear or DequantizeLinear of 8 bits, in the signed range.

    Attributes:
        scale_d: the scale.
        offset_d: the zero point, less the middle of its type.
        float_type: of the floats.
        low, high: of the integers.
    """

    scale_d: np.float32
    offset_d: int
    float_type: ir.DataType
    low: int = INT8_MIN
    high: int = INT8_MAX


@dataclass(frozen=True)
class Chain:
    """How a tensor comes from the first DequantizeLinear.

    Attributes:
        start: the tensor in front of all steps; between the DequantizeLinear and it elements only move.
        quantizer: the last DequantizeLinear, whose numbers these are but for ``factors``.
        factors: those behind it.
        steps: the nodes of each step: a factor, or a QuantizeLinear and its DequantizeLinear.
        key: equal for steps that compute the same.
    """

    start: ir.Value
    quantizer: ir.Node
    factors: tuple[Step, ...] = ()
    steps: tuple[tuple[ir.Node, ...], ...] = ()
    key: tuple[object, ...] = ()


def move_elements_before_factors(model: ir.Model) -> None:
    """Rewrite the graph in place, where all that reads a mover's result leads to such a quantizer or to a layer."""
    chains = _Chains(ConstantEvaluator(opset_of(model)))
    nodes = nodes_of(model)
    for node in nodes:
        chains.add(node)
    if any(c.steps for c in chains.of.values()):
        _Rewriting(model, chains).run(nodes)


def in_source(quantize: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """The QuantizeLinear for which one stands that elements have moved in front of, and what that one quantizes."""
    known: tuple[ir.Node, ir.Value | None] = marks_of(quantize).get(REPEATS, (quantize, quantize.inputs[0]))
    return known


class _Chains:
    """The chains of a graph, by tensor; nodes are added in their order."""

    def __init__(self, constants: ConstantEvaluator) -> None:
        self.constants = constants
        self.of: dict[ir.Value, Chain] = {}
        self._factors: dict[ir.Node, Numbers | None] = {}

    def add(self, node: ir.Node) -> None:
        """Find the chains of a node's outputs, from those of its inputs."""
        if is_op(node, DEQUANTIZE):
            if not self.constants.is_constant(node.outputs[0]):
                self.of[node.outputs[0]] = self._dequantized(node)
        elif any(v in self.of for v in node.inputs):
            moved = self.moved(node)
            if moved is not None:
                self.of.update((v, moved if moved.steps else replace(moved, start=v)) for v in node.outputs)
            elif (factor := factor_of(node, self.constants)) is not None and factor.value in self.of:
                chain, step = self.of[factor.value], (factor.op_type, factor.number)
                steps, key = (*chain.steps, (node,)), (*chain.key, step)
                self.of[node.outputs[0]] = replace(chain, factors=(*chain.factors, step), steps=steps, key=key)

    def moved(self, node: ir.Node) -> Chain | None:
        """The chain of all tensors whose elements a node moves; None for other nodes, or of unlike tensors."""
        values = [node.inputs[i] for i in self.positions(node)]
        found = [self.of[v] for v in values if v is not None and v in self.of]
        if not found or len(found) < len(values):
            return None
        first = found[0]
        alike = all(c.key == first.key and self._numbers(c.quantizer) == self._numbers(first.quantizer) for c in found)
        return first if len(found) == 1 or alike else None

    def positions(self, node: ir.Node) -> tuple[int, ...]:
        """The inputs whose elements a node moves, in an order that a factor above 0 does not change."""
        if node.op_type == "Relu" and node.domain == "":
            return (0,)
        if fills(node):
            fill = node.inputs[2] if len(node.inputs) > 2 else None
            if fill is not None and not (self.constants.is_constant(fill) and not np.any(self.constants.array(fill))):
                return ()
        return data_inputs(node)

    def rescales(self, quantize: ir.Node, chain: Chain) -> bool:
        """Whether a QuantizeLinear gives the integers again that a chain has come from."""
        own, before = self._numbers(quantize), self._numbers(chain.quantizer)
        if own is None or before is None or (own.offset_d, own.float_type) != (before.offset_d, before.float_type):
            return False
        return (own == before and not chain.factors) or restores(before, chain.factors, own)

    def may_be_int8(self, layer: ir.Node, chain: Chain) -> bool:
        """Whether a layer that reads a tensor of the chain may become int8: of two activations, with no offset."""
        numbers, operands = self._numbers(chain.quantizer), layer.inputs[:2]
        return numbers is not None and (numbers.offset_d == 0 or any(map(self.constants.is_constant, operands)))

    def _dequantized(self, node: ir.Node) -> Chain:
        q = node.inputs[0].producer() if node.inputs[0] is not None else None
        value = q.inputs[0] if is_op(q, QUANTIZE) and q is not None else None
        chain, numbers = self.of.get(value) if value is not None else None, None
        if q is not None and chain is not None and self.rescales(q, chain):
            numbers = self._numbers(node)
        repeats = chain is not None and not chain.steps and numbers == self._numbers(chain.quantizer)
        if q is None or chain is None or numbers is None or numbers != self._numbers(q) or repeats:
            return Chain(node.outputs[0], node)
        steps, key = (*chain.steps, (q, node)), (*chain.key, numbers)
        return replace(chain, quantizer=node, factors=(), steps=steps, key=key)

    def _numbers(self, node: ir.Node) -> Numbers | None:
        """None unless constant, per tensor and of 8 bits."""
        if node not in self._factors:
            self._factors[node] = self._read(node)
        return self._factors[node]

    def _read(self, node: ir.Node) -> Numbers | None:
        known = [v for v in node.inputs[1:3] if v is not None]
        floats = node.inputs[0] if node.op_type == QUANTIZE else node.outputs[0]
        if floats is None or not all(self.constants.is_constant(v) for v in known):
            return None
        arrays = [np.asarray(self.constants.array(v)).reshape(-1) for v in known]
        kind = integer_type(node, self.constants)
        if any(a.size != 1 for a in arrays) or kind not in CENTRES:
            return None
        scale, zero = np.float32(arrays[0][0]), int(arrays[1][0]) if len(arrays) > 1 else 0
        if not (0 < scale < np.inf and np.isfinite(reciprocal(scale))):
            return None
        return Numbers(scale, zero - CENTRES[kind], float_type_of(floats))


class _Rewriting:
    """Moves elements in front of factors, in one model."""

    def __init__(self, model: ir.Model, chains: _Chains) -> None:
        self._editor, self._chains = GraphEditor(model), chains
        self._alone: dict[ir.Value, bool] = {}
        for value in reversed(chains.of):  # readers first
            self._alone[value] = not value.is_graph_output() and all(
                self._follows(u.node, u.idx, value) for u in value.uses()
            )
        self._steps: list[ir.Node] = []

    def run(self, nodes: list[ir.Node]) -> None:
        """Go through the nodes in their order."""
        self._chains.of.clear()
        for node in nodes:
            chain = self._chains.moved(node)
            if chain is None or not chain.steps:
                self._chains.add(node)
            elif all(self._alone.get(v, False) for v in node.outputs) and any(v.uses() for v in node.outputs):
                self._move(node, chain)
        for node in reversed(self._steps):
            if node.graph is not None and not any(v.uses() or v.is_graph_output() for v in node.outputs):
                node.graph.remove(node, safe=True)

    def _follows(self, node: ir.Node, index: int, value: ir.Value) -> bool:
        """Whether a reader needs no numbers but those that a quantizer gives, the first or one that restores it."""
        chain = self._chains.of[value]
        if is_op(node, QUANTIZE):
            return index == 0 and self._chains.rescales(node, chain)
        if node.op_type in LAYER_KINDS and node.domain == "":
            behind_pair = not chain.factors
            return index < 2 and behind_pair and self._chains.may_be_int8(node, chain)
        if index in self._chains.positions(node) or factor_of(node, self._chains.constants) is not None:
            return all(self._alone.get(v, False) for v in node.outputs)
        return node.op_type in ("Shape", "Size") and node.domain == ""

    def _move(self, node: ir.Node, chain: Chain) -> None:
        inputs = list(node.inputs)
        for index in self._chains.positions(node):
            value = inputs[index]
            assert value is not None
            inputs[index] = self._chains.of[value].start
        attributes = list(node.attributes.values())
        first = self._editor.node(node.op_type, inputs, node, "", attributes, outputs=len(node.outputs))
        mover = first.producer()
        assert mover is not None
        self._steps += [n for step in chain.steps for n in step]
        results = []
        for start, old in zip(mover.outputs, node.outputs, strict=True):
            start.type, start.shape = chain.start.type, old.shape
            value = start
            for step in chain.steps:
                value = self._repeat(step, value, node)
            results.append(value)
            self._chains.of[value] = replace(chain, start=start)
        self._editor.replace(node, results)

    def _repeat(self, step: tuple[ir.Node, ...], value: ir.Value, at: ir.Node) -> ir.Value:
        """The result of a step on another tensor."""
        shape = value.shape
        for like in step:
            factor = factor_of(like, self._chains.constants)
            inputs = [value, *like.inputs[1:]]
            if factor is not None:
                kind = like.outputs[0].dtype or factor.value.dtype or ir.DataType.FLOAT
                # a scalar: the rank may be another now
                inputs[1] = self._editor.constant(f"{like.name}/number", np.asarray(factor.number, kind.numpy()))
            label = {QUANTIZE: "quantize", DEQUANTIZE: "dequantize"}.get(like.op_type, "factor")
            value = self._editor.node(like.op_type, inputs, at, label, like.attributes.values())
            value.type, value.shape = like.outputs[0].type, shape
            producer = value.producer()
            assert producer is not None
            if like.op_type == QUANTIZE:
                producer.meta[REPEATS] = in_source(like)
            self._steps.append(producer)
        return value
