"""Insert and replace nodes under free names, in the graph or the body that holds the node at hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.marks import marks_of

WITH_BODY = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators of the default domain that hold graphs."""


STANDS_FOR = "amct_onnx.stands_for"
"""Key in a node's meta: name and operator of the node of the user's file in whose place it stands."""
MADE = "amct_onnx.made"
"""Key in a tensor's meta: the user's file does not hold it."""
FLAT = "amct_onnx.flat"
"""Key in a graph's meta: no node of it holds a graph. No rule and no emitter makes a node that does."""


def stands_for(node: ir.Node) -> tuple[str, str]:
    """Name and operator under which the user knows a node."""
    known: tuple[str, str] = marks_of(node).get(STANDS_FOR, (node.name or "", node.op_type))
    return known


def known_as(node: ir.Node) -> str:
    """What the ledger and messages call a node: its name, or that of the user's node and which part of it this is.

    A part stands in brackets, so that nobody looks for a node of that name in the file.
    """
    own, (name, _) = node.name or "", stands_for(node)
    return own if own == name or not name else f"{name} ({own.removeprefix(f'{name}/')})"


def users_tensor(value: ir.Value) -> ir.Value:
    """The tensor of the user's file behind one that was made in the place of one of the user's nodes."""
    while MADE in marks_of(value):
        producer = value.producer()
        if producer is None or not producer.inputs or producer.inputs[0] is None:
            break
        value = producer.inputs[0]
    return value


def exchange_names(one: ir.Value, other: ir.Value) -> None:
    """Exchange two tensors' names, and which of them the user's file holds."""
    one.name, other.name = other.name, one.name
    made = [MADE in marks_of(value) for value in (one, other)]
    if made[0] != made[1]:
        made_before, made_now = (one, other) if made[0] else (other, one)
        made_now.meta[MADE] = made_before.meta.pop(MADE)


def tensor_known_as(value: ir.Value) -> str:
    """What messages call a tensor: its name, or the part of the user's node that makes it, as ``known_as`` does."""
    producer = value.producer() if MADE in marks_of(value) else None
    return (value.name or "") if producer is None else known_as(producer)


SCALAR = ir.Shape([], frozen=True)
"""The shape of every scalar that is made."""


class GraphEditor:
    """Edits one model; collects its names once, with the first edit, so that each costs the same in a large graph.

    Args:
        model: edited in place.
        reserved: names that no new node may get, beside those of the nodes.
        reserved_values: names that no new tensor may get, beside those of the tensors.
    """

    def __init__(
        self, model: ir.Model, reserved: Iterable[str | None] = (), reserved_values: Iterable[str | None] = ()
    ) -> None:
        self.model = model
        self._reserved, self._reserved_values = reserved, reserved_values

    @cached_property
    def node_names(self) -> FreeNames:
        """Names that a new node may get."""
        return FreeNames([*(n.name for n in nodes_of(self.model)), *self._reserved])

    @cached_property
    def value_names(self) -> FreeNames:
        """Names that a new tensor may get."""
        values = [*self.model.graph.inputs, *self.model.graph.initializers.values()]
        for node in nodes_of(self.model):
            values.extend(node.outputs)
            for body in bodies_of(node):
                values.extend([*body.inputs, *body.initializers.values()])
        return FreeNames([*(v.name for v in values), *self._reserved_values])

    def insert(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Iterable[ir.Attr] = (),
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        domain: str = "",
        outputs: int = 1,
        joint: str = ":",
        doc_string: str | None = None,
        marked: bool = True,
    ) -> ir.Node:
        """Insert a node, at the end of the main graph where neither ``before`` nor ``after`` names its place.

        Args:
            op_type: operator type of the node.
            inputs: inputs of the node; None stands for an omitted input.
            name: taken as it is, see ``node_names``.
            attributes: attributes of the node.
            before: the node in front of which, in whose graph, it is inserted.
            after: the node behind which it is inserted.
            domain: domain of the operator.
            outputs: number of outputs.
            joint: between the node's name and the number of an output, in the output's name.
            doc_string: doc string of the node.
            marked: whether to note on its results that the user's file does not hold them.
        """
        results = [ir.Value(name=self.value_names.take(f"{name}{joint}{index}")) for index in range(outputs)]
        if marked:
            for result in results:
                result.meta[MADE] = True
        new = ir.Node(domain, op_type, inputs, attributes, outputs=results, name=name, doc_string=doc_string)
        if before is not None:
            assert before.graph is not None
            before.graph.insert_before(before, new)
        elif after is not None:
            assert after.graph is not None
            after.graph.insert_after(after, new)
        else:
            self.model.graph.append(new)
        return new

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        at: ir.Node,
        label: str = "",
        attributes: Iterable[ir.Attr] = (),
        like: ir.Value | None = None,
        outputs: int = 1,
    ) -> ir.Value:
        """Insert a node of the default domain in front of ``at``, which it replaces, and return its first output.

        Args:
            op_type: operator type of the node.
            inputs: inputs of the node; None stands for an omitted input.
            at: the node that is replaced; the new one is named after it.
            label: appended to the name; without it the node takes over the name of ``at``, which must be removed.
            attributes: attributes of the node.
            like: gives the results their type and shape.
            outputs: number of outputs.
        """
        name = at.name or op_type
        if label:
            name = self.node_names.take(f"{name}/{label}")
        new = self.insert(op_type, inputs, name, attributes, before=at, outputs=outputs, doc_string=at.doc_string)
        new.meta[STANDS_FOR] = stands_for(at)
        if like is not None:
            for result in new.outputs:
                result.type, result.shape = like.type, like.shape
        return new.outputs[0]

    def constant(self, name: str, content: Array | ir.TensorProtocol) -> ir.Value:
        """Register an initializer; it lies in the outermost graph, where every body sees it."""
        # ir.tensor asks for protocols, which takes longer than all that follows
        tensor = _tensor(content) if isinstance(content, (np.ndarray, np.generic)) else content
        name = self.value_names.take(name)
        tensor.name = name
        shape = tensor.shape if type(tensor.shape) is ir.Shape else ir.Shape(tensor.shape.numpy())
        shape.freeze()  # of the tensor, and of the value as well
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self.model.graph.register_initializer(value)
        return value

    def replace(self, node: ir.Node, results: Sequence[ir.Value]) -> None:
        """Let the readers of a node's outputs read ``results``, which take over names, types and shapes.

        Raises:
            UnsupportedModelError: The node has another number of outputs than its operator gives.
        """
        if len(node.outputs) != len(results):
            raise UnsupportedModelError(
                f"Node '{known_as(node)}' ({node.op_type}) has {counted(len(node.outputs), 'output')}, the "
                f"operator {len(results)}. Export the model again."
            )
        for old, new in zip(node.outputs, results, strict=True):
            exchange_names(new, old)
            old.name = None
            new.type = old.type or new.type
            new.shape = old.shape or new.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _tensor(content: Array) -> ir.TensorProtocol:
    array = np.asarray(content)
    return ir.Tensor(array, shape=SCALAR if array.ndim == 0 else None)


def main_output(outputs: Sequence[ir.Value]) -> ir.Value:
    """Of the outputs of a node, the first that something reads; the first where nothing does."""
    return next((v for v in outputs if v.uses() or v.is_graph_output()), outputs[0])


def nodes_of(model: ir.Model) -> list[ir.Node]:
    """Every node of the graph and of the bodies of its If, Loop and Scan nodes; the graph may change meanwhile."""
    return _nodes_within(model.graph)


def note_flat(model: ir.Model) -> None:
    """Note where no node holds a graph, as in most models: nobody looks for such nodes again, nor in copies."""
    if not any(map(bodies_of, model.graph)):
        model.graph.meta[FLAT] = True


def _is_flat(graph: ir.Graph) -> bool:
    return FLAT in marks_of(graph)


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs that a node holds; most nodes are known to hold none without a look at their attributes."""
    if not node.domain and node.op_type not in WITH_BODY:
        return []
    collected: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            collected.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            collected.extend(attribute.as_graphs())
    return collected


def _nodes_within(graph: ir.Graph) -> list[ir.Node]:
    nodes = list(graph)
    if _is_flat(graph) or not any(map(bodies_of, nodes)):
        return nodes
    collected: list[ir.Node] = []
    for node in nodes:
        collected.append(node)
        for body in bodies_of(node):
            collected += _nodes_within(body)
    return collected


class FreeNames:
    """Gives out free names: the wanted one, or the wanted one with the next suffix."""

    def __init__(self, taken: Iterable[str | None] = ()) -> None:
        self._taken = set(taken)
        self._last: dict[str, int] = {}

    def take(self, wished: str) -> str:
        """The free name nearest to the wanted one; it is taken from now on."""
        name = wished
        while name in self._taken:
            self._last[wished] = self._last.get(wished, 0) + 1
            name = f"{wished}_{self._last[wished]}"
        self._taken.add(name)
        return name


def bodies(graph: ir.Graph) -> list[ir.Graph]:
    """The bodies of all If, Loop and Scan nodes in a graph, nested ones too."""
    collected: list[ir.Graph] = []
    for node in () if _is_flat(graph) else graph:
        for body in bodies_of(node):
            collected += [body, *bodies(body)]
    return collected
