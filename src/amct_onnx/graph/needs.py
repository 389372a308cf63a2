"""What the outputs of a model depend on: of which tensors the numbers, and of which the shape alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import bodies_of, nodes_of
from amct_onnx.graph.moves import data_inputs

MEASURES = frozenset("Shape Size RandomUniformLike RandomNormalLike EyeLike".split())
"""Operators that read the shape of their input and none of its numbers."""
SHAPED_BY_SHAPES = frozenset(
    """
    Cast CastLike Clip QuantizeLinear DequantizeLinear Dropout Bernoulli Multinomial Where
    Abs Neg Sign Ceil Floor Round Sqrt Reciprocal Exp Log Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Erf
    Relu LeakyRelu PRelu Elu Selu Celu Gelu Mish ThresholdedRelu Sigmoid HardSigmoid HardSwish Swish Softplus Softsign
    Softmax LogSoftmax Hardmax Not IsNaN IsInf BitwiseNot
    Add Sub Mul Div Pow Mod Max Min Sum Mean Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor BitShift
    BitwiseAnd BitwiseOr BitwiseXor CumSum Trilu
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LpNormalization
    MeanVarianceNormalization LRN
    Conv ConvTranspose Gemm MatMul Einsum AveragePool GlobalAveragePool LpPool GlobalLpPool
    """.split()
)
"""Operators whose results have a shape that no input's numbers decide; beside those that move elements."""


class Need(IntEnum):
    """What is needed of a tensor."""

    SHAPE = 1
    NUMBERS = 2


def needs_of(model: ir.Model, outputs: Iterable[ir.Value] | None = None) -> dict[ir.Value, Need]:
    """What outputs need of each tensor of the graph, of its bodies and of the functions that it calls.

    Tensors that no output depends on are not among them. Where nothing tells that a shape is enough, the numbers are
    needed.

    Args:
        model: only read.
        outputs: tensors whose numbers are needed; None for those of the graph.
    """
    return _Needs(model, model.graph.outputs if outputs is None else outputs).found


class _Needs:
    """Goes from the outputs to what they depend on.

    Args:
        model: see ``needs_of``.
        outputs: see ``needs_of``.
    """

    def __init__(self, model: ir.Model, outputs: Iterable[ir.Value]) -> None:
        self.found: dict[ir.Value, Need] = {}
        """What is needed of each tensor."""
        self._functions = model.functions
        self._waiting: list[ir.Value] = []
        self._given: dict[ir.Value, list[ir.Value | None]] = {}  # input of a body or a function -> what it stands for
        functions = (ir.traversal.RecursiveGraphIterator(f) for f in model.functions.values())
        for node in (*nodes_of(model), *chain(*functions)):
            self._note_given(node)
        self._need(outputs, Need.NUMBERS)
        while self._waiting:
            value = self._waiting.pop()
            self._need(self._given.get(value, ()), self.found[value])
            maker = value.producer()
            if maker is not None:
                self._need_inputs(maker, value, self.found[value])

    def _need(self, values: Iterable[ir.Value | None], need: Need) -> None:
        for value in values:
            if value is not None and self.found.get(value, 0) < need:
                self.found[value] = need
                self._waiting.append(value)

    def _note_given(self, node: ir.Node) -> None:
        function, bodies = self._functions.get(node.op_identifier()), bodies_of(node)
        if function is not None:
            self._give(function.inputs, node.inputs)
        elif node.op_type == "Loop" and bodies:
            self._give(bodies[0].inputs[2:], node.inputs[2:])
            self._give(bodies[0].inputs[2:], bodies[0].outputs[1:])
        elif node.op_type == "Scan" and bodies:
            states = _states(node, bodies[0])
            self._give(bodies[0].inputs, _scanned(node, bodies[0]))
            self._give(bodies[0].inputs[:states], bodies[0].outputs)

    def _give(self, inner: Sequence[ir.Value], outer: Sequence[ir.Value | None]) -> None:
        for value, given in zip(inner, outer, strict=False):
            self._given.setdefault(value, []).append(given)

    def _need_inputs(self, node: ir.Node, value: ir.Value, need: Need) -> None:
        """Need what one of a node's results is made of."""
        index, bodies = node.outputs.index(value), bodies_of(node)
        function = self._functions.get(node.op_identifier())
        if function is not None:
            self._need(function.outputs[index : index + 1], need)
        elif node.op_type == "If":
            self._need(node.inputs, Need.NUMBERS)
            self._need((v for body in bodies for v in body.outputs[index : index + 1]), need)
        elif node.op_type == "Loop" and bodies:
            self._need((*node.inputs[:2], *bodies[0].outputs[:1]), Need.NUMBERS)  # they decide how often it runs
            self._need(bodies[0].outputs[index + 1 : index + 2], need)
            self._need(node.inputs[index + 2 : index + 3], need)  # of a state, where it never runs
        elif node.op_type == "Scan" and bodies:
            states, given = _states(node, bodies[0]), _scanned(node, bodies[0])
            self._need(given[states:], Need.SHAPE)  # how often it runs
            self._need(bodies[0].outputs[index : index + 1], need)
            self._need(given[index : index + 1] if index < states else (), need)
        else:
            for position, source in enumerate(node.inputs):
                self._need((source,), _need_of_input(node, position, need))
            self._need((v for body in bodies for v in body.outputs), Need.NUMBERS)


def _states(scan: ir.Node, body: ir.Graph) -> int:
    """How many states a Scan has."""
    return len(body.inputs) - int(attribute(scan, "num_scan_inputs", len(body.inputs)))


def _scanned(scan: ir.Node, body: ir.Graph) -> Sequence[ir.Value | None]:
    """The inputs of a Scan that those of its body stand for: below opset 9 another one comes first."""
    return scan.inputs[max(0, len(scan.inputs) - len(body.inputs)) :]


def _need_of_input(node: ir.Node, position: int, need: Need) -> Need:
    """What a node without a body needs of one input, for what is needed of a result."""
    if node.domain not in ("", "ai.onnx") or any(a.is_ref() for a in node.attributes.values()):
        return Need.NUMBERS
    if node.op_type in MEASURES:
        return Need.SHAPE
    shaped = node.op_type in SHAPED_BY_SHAPES or position in data_inputs(node)
    return need if shaped else Need.NUMBERS
