"""Insert nodes into a graph that is being lowered, under free names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


class Emitter:
    """Inserts nodes before the node that is being lowered, and small constants into the main graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._main = graph
        nodes = list(ir.traversal.RecursiveGraphIterator(graph))
        self._names = {n.name for n in nodes} | {v.name for n in nodes for v in n.outputs}
        self._names |= {v.name for v in [*graph.inputs, *graph.initializers.values()]}
        for node in nodes:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    body = attribute.as_graph()
                    self._names |= {v.name for v in [*body.inputs, *body.initializers.values()]}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._place: Callable[[ir.Node], None] = graph.append
        self._prefix = ""

    def before(self, node: ir.Node) -> None:
        """Insert what follows before the node."""
        graph = node.graph
        assert graph is not None
        self._place, self._prefix = lambda new: graph.insert_before(node, new), node.name or node.op_type

    def after(self, node: ir.Node) -> None:
        """Insert what follows after the node, in order."""
        graph, place = node.graph, [node]
        assert graph is not None

        def insert(new: ir.Node) -> None:
            graph.insert_after(place[0], new)
            place[0] = new

        self._place, self._prefix = insert, node.name or node.op_type

    def at_end(self) -> None:
        """Append what follows to the main graph."""
        self._place, self._prefix = self._main.append, "collected"

    def unique(self, name: str) -> str:
        """A name that nothing has yet."""
        result, suffix = name, 1
        while result in self._names:
            result, suffix = f"{name}_{suffix}", suffix + 1
        self._names.add(result)
        return result

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Iterable[ir.Attr] = (), domain: str = ""
    ) -> ir.Value:
        """Insert a node; its one output."""
        new = ir.Node(domain, op_type, inputs, list(attributes), num_outputs=1)
        new.name = self.unique(f"{self._prefix}:{op_type}")
        new.outputs[0].name = self.unique(f"{new.name}:0")
        self._place(new)
        return new.outputs[0]

    def constant(self, array: npt.NDArray[np.generic] | np.generic) -> ir.Value:
        """An initializer; equal ones are one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, blake2b(np.ascontiguousarray(array).data).digest())
        if key not in self._constants:
            name = self.unique("constant")
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self._main.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def number(self, value: float) -> ir.Value:
        """A float32 scalar."""
        return self.constant(np.float32(value))

    def cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """Insert a Cast."""
        return self.node("Cast", [value], [ir.AttrInt64("to", int(to))])

    def half(self, value: ir.Value) -> ir.Value:
        """Round a float32 tensor to float16, held in float32 again."""
        return self.cast(self.cast(value, ir.DataType.FLOAT16), ir.DataType.FLOAT)

    def times(self, value: ir.Value, factor: ir.Value, count: int = 1) -> ir.Value:
        """Multiply ``count`` times."""
        for _ in range(count):
            value = self.node("Mul", [value, factor])
        return value
