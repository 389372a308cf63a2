"""A deploy model indexed for the rules: graphs, nodes by type, constants, and the int8 layers with what is around them.

Nothing here computes or copies weights; tensors are read only by rules that ask for a small one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import NO_NUMBERS
from amct_onnx.graph.layers import LAYER_KINDS, PRODUCTS, bias_of, layout_of
from amct_onnx.verbs.check.file_facts import FileFacts
from amct_onnx.verbs.check.scopes import Scope, scopes_of

Stored = TypeVar("Stored", float, int, str, tuple[int, ...])

CUBE = tuple(LAYER_KINDS)
"""Operators of the matrix unit, which take int8."""
POOL = "AveragePool"
"""The vendor's tool quantizes it like a layer without a weight."""
QUANT, DEQUANT, ANTIQUANT = "AscendQuant", "AscendDequant", "AscendAntiQuant"
ASCEND = (QUANT, DEQUANT, ANTIQUANT)
DEFAULT_NAMES = ("", "ai.onnx")
"""Names of the default domain."""
INTEGER_WEIGHTS = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4)
MOVES = frozenset(
    {
        "Pad",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Concat",
        "Gather",
        "Expand",
        "Identity",
        "MaxPool",
        "DepthToSpace",
        "SpaceToDepth",
    }
)
"""Operators whose output has the type of their first input: through them int8 stays int8, int32 stays int32."""
STEPS = 32
"""How many operators are followed in search of a neighbour, so that odd graphs cost no more than long ones."""


@dataclass(frozen=True)
class IntegerLayer:
    """An int8 layer with its surroundings, as far as they could be followed.

    Attributes:
        node: the layer.
        quants: AscendQuant of the first and (for a MatMul of two activations) second input.
        before: operators between the first AscendQuant and the layer, nearest to the layer first.
        weight: the weight tensor; None when it is not a constant.
        weight_moves: operators between the weight's constant and the layer.
        bias: third input, or the other input of ``add``.
        add: the Add behind a MatMul or Gemm that reads its int32 result.
        after: other operators between the result and AscendDequant.
        dequants: AscendDequant nodes that read the result.
        strangers: other readers of the int32 result.
        is_output: whether the int32 result is a graph output.
    """

    node: ir.Node
    quants: tuple[ir.Node | None, ir.Node | None]
    before: tuple[ir.Node, ...]
    weight: ir.TensorProtocol | None
    weight_moves: tuple[ir.Node, ...]
    bias: ir.Value | None
    add: ir.Node | None
    after: tuple[ir.Node, ...]
    dequants: tuple[ir.Node, ...]
    strangers: tuple[ir.Node, ...]
    is_output: bool

    @property
    def multiplies_activations(self) -> bool:
        """Whether it is a product of two inputs, neither of which is a constant."""
        given = self.node.inputs[:2]
        product = self.node.op_type in PRODUCTS and len(given) == 2 and None not in given
        return product and self.weight is None and constant(given[0]) is None

    @property
    def offset(self) -> float:
        """The zero point of the activation, or of one of two activations; 0 when there is none."""
        offsets = (attribute(quant, "offset", 0.0) for quant in self.quants if quant is not None)
        return next((offset for offset in offsets if offset), 0.0)

    @property
    def channels(self) -> int | None:
        """Output channels, from the weight's shape; None when they cannot be told."""
        shape = weight_shape(self)
        if shape is None or len(shape) < 2:
            return None
        layout = layout_of(self.node)
        return None if layout is None else layout.channels(shape)


def weight_shape(layer: IntegerLayer) -> tuple[int, ...] | None:
    """Shape of the weight as the layer reads it; None behind anything but one Transpose."""
    if layer.weight is None:
        return None
    shape = tuple(layer.weight.shape.numpy())
    if not layer.weight_moves:
        return shape
    if len(layer.weight_moves) == 1 and layer.weight_moves[0].op_type == "Transpose":
        order = attribute(layer.weight_moves[0], "perm", ()) or tuple(reversed(range(len(shape))))
        if sorted(order) == list(range(len(shape))):
            return tuple(shape[i] for i in order)
    return None


def _held(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node."""
    found = node.attributes.get("value")
    value = None if found is None or found.is_ref() else found.value
    return value if isinstance(value, ir.TensorProtocol) else None


def attribute_type(node: ir.Node, name: str) -> ir.AttributeType | None:
    """The type of an attribute; None when it is absent."""
    found = node.attributes.get(name)
    return None if found is None else found.type


def float_attribute(node: ir.Node, name: str) -> float | None:
    """A FLOAT attribute; None when it is absent or of another type, which the plugins read as 0."""
    return attribute(node, name, 0.0) if attribute_type(node, name) == ir.AttributeType.FLOAT else None


def static_shape(shape: ir.Shape | None) -> tuple[int, ...] | None:
    """A shape when every dimension is a number."""
    if shape is None:
        return None
    dims = tuple(shape)
    return tuple(int(d) for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind an initializer or a Constant node; None for anything else."""
    if value is None:
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant":
        return None
    return _held(node)


def folded(value: ir.Value | None) -> tuple[ir.TensorProtocol, tuple[ir.Node, ...]] | None:
    """The constant that reaches value through operators with no other input, and those operators, last one first.

    The compiler computes such a chain before its quantization passes run.
    """
    passed: list[ir.Node] = []
    while value is not None and len(passed) < STEPS:
        tensor = constant(value)
        if tensor is not None:
            return tensor, tuple(passed)
        node = value.producer()
        if node is None or node.domain not in DEFAULT_NAMES or len(node.inputs) != 1 or node.op_type in ASCEND:
            return None
        passed.append(node)
        value = node.inputs[0]
    return None


def array(tensor: ir.TensorProtocol | None, most: int = 1 << 22) -> npt.NDArray[Any] | None:
    """The numbers of a tensor of at most ``most`` elements; None when they are missing, too many, malformed or none."""
    if tensor is None or (isinstance(tensor, ir.ExternalTensor) and not os.path.isfile(tensor.path)):
        return None
    try:
        numbers = np.asarray(tensor.numpy()) if tensor.size <= most else None
        return None if numbers is None or numbers.dtype.kind in NO_NUMBERS else numbers
    except Exception:  # malformed bytes, a missing file: other rules name the tensor
        return None


def data_input(node: ir.Node) -> ir.Value | None:
    """The first input."""
    return node.inputs[0] if node.inputs else None


def follow_back(value: ir.Value | None) -> tuple[ir.Value | None, tuple[ir.Node, ...]]:
    """The tensor that reaches value through data movement alone, and the operators in between."""
    passed: list[ir.Node] = []
    while value is not None and len(passed) < STEPS:
        node = value.producer()
        if node is None or node.op_type not in MOVES or node.domain:
            break
        passed.append(node)
        value = data_input(node)
    return value, tuple(passed)


def source_of(value: ir.Value | None, op_type: str) -> tuple[ir.Node | None, tuple[ir.Node, ...]]:
    """The node of a type that feeds value through data movement, and the operators in between."""
    origin, passed = follow_back(value)
    node = origin.producer() if origin is not None else None
    return (node, passed) if node is not None and node.op_type == op_type else (None, passed)


class ModelView:
    """Indexes of one model; built once, in one pass over its nodes.

    Attributes:
        model: the model.
        folder: the folder of its file, against which external data is resolved; None in memory.
        facts: what the file says beyond the model.
        scopes: the root graph and all nested ones, breadth first as ATC's parser visits them.
        names: the name that ATC gives to each node: its own, or OpType_<n> for the n-th unnamed one.
    """

    def __init__(self, model: ir.Model, folder: Path | None = None, facts: FileFacts | None = None) -> None:
        self.model = model
        self.folder = folder
        self.facts = facts or FileFacts(tuple(model.opset_imports.items()), (), ())
        self.scopes = tuple(scopes_of(model.graph))
        self.names: dict[ir.Node, str] = {}
        self._by_type: dict[str, list[ir.Node]] = {}
        self._defined: dict[ir.Graph, frozenset[str]] = {}
        unnamed = 0
        for scope in self.scopes:
            for node in scope.graph:
                self.names[node] = node.name or f"{node.op_type}_{unnamed}"
                unnamed += not node.name
                self._by_type.setdefault(node.op_type, []).append(node)
        self.layers = tuple(self._layers())

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """Nodes of the default domain with one of the types; all nodes when none is given."""
        if not op_types:
            yield from self.names
        for op_type in op_types:
            yield from (n for n in self._by_type.get(op_type, ()) if n.domain in DEFAULT_NAMES)

    def cubes(self, *op_types: str) -> Iterator[IntegerLayer]:
        """int8 layers of one of the types; all that run on the matrix unit when none is given."""
        yield from (layer for layer in self.layers if layer.node.op_type in (op_types or CUBE))

    @cached_property
    def deq_scales(self) -> tuple[tuple[ir.Node, ir.TensorProtocol], ...]:
        """Every AscendDequant whose deq_scale is a constant, also behind Identity, and that constant."""
        found = ((node, folded(node.inputs[1])) for node in self.nodes(DEQUANT) if len(node.inputs) > 1)
        return tuple((n, f[0]) for n, f in found if f is not None and all(p.op_type == "Identity" for p in f[1]))

    def op_types(self) -> dict[tuple[str, str], list[ir.Node]]:
        """Nodes by (domain, type)."""
        found: dict[tuple[str, str], list[ir.Node]] = {}
        for nodes in self._by_type.values():
            for node in nodes:
                found.setdefault((node.domain, node.op_type), []).append(node)
        return found

    @cached_property
    def packed_scales(self) -> tuple[tuple[ir.Node, str, npt.NDArray[np.uint64]], ...]:
        """The uint64 elements of every readable deq_scale, flat; with the AscendDequant and the constant's name."""
        read = ((n, t.name or "", array(t)) for n, t in self.deq_scales if t.dtype == ir.DataType.UINT64)
        return tuple((n, name, v.reshape(-1).astype(np.uint64)) for n, name, v in read if v is not None)

    @cached_property
    def tensors(self) -> tuple[tuple[str, ir.TensorProtocol, ir.Node | None], ...]:
        """Every constant: its tensor's name, the tensor, and the Constant node that holds it."""
        return tuple(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, ir.TensorProtocol, ir.Node | None]]:
        for scope in self.scopes:
            for name, value in scope.graph.initializers.items():
                if value.const_value is not None:
                    yield name, value.const_value, None
        for node in self._by_type.get("Constant", ()):
            found = _held(node)
            if found is not None:
                yield (node.outputs[0].name or "" if node.outputs else ""), found, node

    def defined(self, graph: ir.Graph) -> frozenset[str]:
        """Names that a graph itself gives: inputs, initializers, results."""
        if graph not in self._defined:
            results = (v.name for node in graph for v in node.outputs)
            names = {*(v.name for v in graph.inputs), *graph.initializers, *results}
            self._defined[graph] = frozenset(n for n in names if n)
        return self._defined[graph]

    def is_outer(self, name: str, scope: Scope) -> bool:
        """Whether a graph around ``scope`` gives this name."""
        outer = scope.outer
        while outer is not None:
            if name in self.defined(outer.graph):
                return True
            outer = outer.outer
        return False

    @property
    def quantized(self) -> bool:
        """Whether any Ascend operator or int8 layer is there."""
        return bool(self.layers) or any(self._by_type.get(t) for t in ASCEND)

    @property
    def opset(self) -> int | None:
        """Version of the default domain; None when it is not imported."""
        return self.version_of("")

    def version_of(self, domain: str) -> int | None:
        """Version of a domain, the last one when the file names it twice, as the parser keeps it; None without one."""
        names = DEFAULT_NAMES if domain in DEFAULT_NAMES else (domain,)
        found = [v for d, v in self.facts.opsets if d in names]
        return found[-1] if found else None

    def _layers(self) -> Iterator[IntegerLayer]:
        for node in self.nodes(*CUBE, POOL):
            first, before = source_of(data_input(node), QUANT)
            if node.op_type == POOL:
                if first is not None:
                    yield self._layer(node, (first, None), before, None, ())
                continue
            second = node.inputs[1] if len(node.inputs) > 1 else None
            origin, moves = follow_back(second)
            weight = constant(origin)
            other = None
            if weight is None and origin is not None:
                producer = origin.producer()
                other = producer if producer is not None and producer.op_type == QUANT else None
            if first is not None or other is not None or (weight is not None and weight.dtype in INTEGER_WEIGHTS):
                yield self._layer(node, (first, other), before, weight, moves)

    def _layer(
        self,
        node: ir.Node,
        quants: tuple[ir.Node | None, ir.Node | None],
        before: tuple[ir.Node, ...],
        weight: ir.TensorProtocol | None,
        moves: tuple[ir.Node, ...],
    ) -> IntegerLayer:
        bias = bias_of(node)
        add: ir.Node | None = None
        after: list[ir.Node] = []
        result = node.outputs[0] if node.outputs else None
        dequants: list[ir.Node] = []
        strangers: list[ir.Node] = []
        is_output = False
        while result is not None and len(after) < STEPS:
            is_output = is_output or result.is_graph_output()
            uses = list(result.uses())
            dequants += [u.node for u in uses if u.node.op_type == DEQUANT]
            others = [u for u in uses if u.node.op_type != DEQUANT]
            result = None
            if len(others) == 1 and not dequants:
                reader, position = others[0].node, others[0].idx
                other = reader.inputs[1 - position] if reader.op_type == "Add" and len(reader.inputs) == 2 else None
                if add is None and bias is None and node.op_type in PRODUCTS and constant(other) is not None:
                    add, bias = reader, other
                    result = reader.outputs[0] if reader.outputs else None
                    continue
                if _reaches_dequant(reader):
                    after.append(reader)
                    result = reader.outputs[0]
                    continue
            strangers += [u.node for u in others]
        return IntegerLayer(
            node=node,
            quants=quants,
            before=before,
            weight=weight,
            weight_moves=moves,
            bias=bias,
            add=add,
            after=tuple(after),
            dequants=tuple(dequants),
            strangers=tuple(strangers),
            is_output=is_output,
        )


def _reaches_dequant(node: ir.Node) -> bool:
    """Whether a chain of single readers ends at an AscendDequant, before the next quantizer or layer."""
    for _ in range(STEPS):
        if not node.outputs or node.op_type in (QUANT, ANTIQUANT, *CUBE):
            return False
        uses = list(node.outputs[0].uses())
        if any(u.node.op_type == DEQUANT for u in uses):
            return True
        if len(uses) != 1:
            return False
        node = uses[0].node
    return False
