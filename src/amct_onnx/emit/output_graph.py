"""A copy of the normalised graph that becomes an output model; new nodes and constants get free names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.copied_model import copy_model
from amct_onnx.graph.edit import GraphEditor, bodies, known_as, nodes_of
from amct_onnx.graph.node_order import sort_nodes
from amct_onnx.graph.unused_nodes import remove_unused_nodes


class OutputGraph:
    """A graph under construction. The source's nodes and values are found by name, even when replaced."""

    def __init__(self, model: ir.Model, left_out: Set[ir.Node | ir.Value] = frozenset()) -> None:
        """Copy the model; weights are shared, not copied. What is left out cannot be found, but keeps its name."""
        self.model = copy_model(model, left_out)
        self._graph = self.model.graph
        all_nodes = nodes_of(self.model)
        self.nodes: dict[str, ir.Node] = {n.name or "": n for n in all_nodes}
        """The source's nodes by name."""
        self.values: dict[str, ir.Value] = {}
        """The source's tensors by name."""
        for graph in self._graphs():
            self.values.update({v.name or "": v for v in [*graph.inputs, *graph.initializers.values()]})
        for node in all_nodes:
            self.values.update({v.name or "": v for v in node.outputs})
        # onnx-ir's classes are protocols, which isinstance asks at length
        left_nodes = [item.name for item in left_out if type(item) is ir.Node]
        left_values = [item.name for item in left_out if type(item) is ir.Value]
        # ATC names the graph inputs' nodes after them
        self._edit = GraphEditor(self.model, [*(v.name for v in self._graph.inputs), *left_nodes], left_values)
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._replaces: dict[ir.Value, list[ir.Value]] = {}
        self._wished: list[tuple[ir.Value, str]] = []
        self.inserted: list[ir.Node] = []
        """The nodes that ``node`` inserted, in order."""

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Iterable[ir.Attr] = (),
        dtype: ir.DataType = ir.DataType.FLOAT,
        *,
        after: ir.Node | None = None,
        before: ir.Node | None = None,
    ) -> ir.Value:
        """Insert a node with one output, under a name that is still free."""
        name = self._edit.node_names.take(name)
        new = self._edit.insert(
            op_type, inputs, name, attributes, before=before, after=after, joint=".output", marked=False
        )
        new.outputs[0].type = ir.TensorType(dtype)
        self.inserted.append(new)
        return new.outputs[0]

    def initializer(self, name: str, tensor: Array | ir.TensorProtocol) -> ir.Value:
        """Register an initializer under a name that is still free."""
        value = self._edit.constant(name, tensor)
        if value.name != name:
            self._wished.append((value, name))
        return value

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """Register a small initializer from an array."""
        return self.initializer(name, array)

    def free_value_name(self, name: str) -> str:
        """The free name nearest to the given one; taken from now on."""
        return self._edit.value_names.take(name)

    def wish(self, value: ir.Value, name: str) -> None:
        """Give a tensor a name of the source's when the removed half of the graph leaves it free."""
        self._wished.append((value, name))

    def current(self, value: ir.Value) -> ir.Value:
        """The tensor that replaces a tensor of the source, or the tensor itself."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def before(self, value: ir.Value) -> Iterator[ir.Value]:
        """The tensor itself, and those that it has replaced."""
        waiting = [value]
        while waiting:
            current = waiting.pop()
            yield current
            waiting += self._replaces.get(current, ())

    def split(self, name: str, behind: str) -> None:
        """Let every reader of a tensor of the source read another, which is found under the name ``behind``."""
        value = self.values[name]
        producer = value.producer()
        new = self.node("Identity", [value], behind, dtype=value.dtype or ir.DataType.FLOAT, after=producer)
        new.shape = value.shape
        node = new.producer()
        assert node is not None
        if value.is_graph_output():
            value.name, new.name = self.free_value_name(f"{name}.unrounded"), value.name
        ir.convenience.replace_all_uses_with(value, new, replace_graph_outputs=True)
        node.replace_input_with(0, value)
        self.values[behind] = new

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every reader of old read new; a graph output keeps its name."""
        if old.is_graph_output():
            name = old.name or ""
            if new.is_graph_output() or new.is_graph_input() or new.is_initializer():
                producer = old.producer()
                new = self.node(
                    "Identity", [new], f"{name}.identity", dtype=new.dtype or ir.DataType.FLOAT, after=producer
                )
            new.shape = old.shape
            old.name = self.free_value_name(f"{name}.replaced")
            new.name = name
            if new.dtype is None or new.dtype.is_floating_point():
                new.type = old.type
        elif new.shape is None:
            new.shape = old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        self._replaced[old] = new
        self._replaces.setdefault(new, []).append(old)

    def finish(self, constants: Mapping[str, Callable[[], npt.NDArray[np.generic]]]) -> ir.Model:
        """The graph without what nothing reads, sorted, under the source's names.

        Args:
            constants: values of the source that are computed when something still reads them.

        Raises:
            UnsupportedModelError: A quantizer of the source is left.
        """
        remove_unused_nodes(self.model)
        if self._fold(constants):
            remove_unused_nodes(self.model)
        self._drop_unused_initializers()
        sort_nodes(self._graph)
        nodes = nodes_of(self.model)
        self._drop_unused_opsets(nodes)
        self._give_wished_names(nodes)
        self._check(nodes)
        return self.model

    def _fold(self, constants: Mapping[str, Callable[[], npt.NDArray[np.generic]]]) -> bool:
        """Dequantized weights of layers that stay float, where something still reads them."""
        folded = False
        for name, compute in constants.items():
            value = self.values.get(name)
            producer = None if value is None else value.producer()
            if value is None or producer is None or producer.graph is None:
                continue
            if not value.uses() and not value.is_graph_output():
                continue
            self.replace(value, self.constant(f"{name}.folded", np.asarray(compute())))
            folded = True
        return folded

    def _drop_unused_initializers(self) -> None:
        """Those of bodies: the main graph's are gone with the nodes."""
        for graph in bodies(self._graph):
            for name in [n for n, v in graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
                del graph.initializers[name]

    def _drop_unused_opsets(self, nodes: list[ir.Node]) -> None:
        """One opset_import of the default domain, and those of other domains that nodes are of."""
        used = {n.domain for n in nodes} | {""}
        version = self.model.opset_imports.get("", self.model.opset_imports.get("ai.onnx", 0))
        for domain in list(self.model.opset_imports):
            if domain not in used:
                del self.model.opset_imports[domain]
        self.model.opset_imports[""] = version

    def _check(self, nodes: list[ir.Node]) -> None:
        """Check that no source quantizer is left, and drop value_info without a type, which cannot be written."""
        for node in nodes:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                raise UnsupportedModelError(
                    f"Node '{known_as(node)}' ({node.op_type}) has no form in the outputs: its reader is not a "
                    "DequantizeLinear. Export the model with each QuantizeLinear followed by its DequantizeLinear."
                )
            for value in node.outputs:
                if value.type is None:
                    value.shape = None

    def _give_wished_names(self, nodes: list[ir.Node]) -> None:
        """Give source names that the removed half of the graph had occupied to their replacements."""
        values = {v.name for n in nodes for v in n.outputs}
        values |= {v.name for g in self._graphs() for v in [*g.inputs, *g.initializers.values()]}
        for value, name in self._wished:
            if value.name != name and name not in values and not value.is_graph_output():
                values.discard(value.name)
                values.add(name)
                value.name = name

    def _graphs(self) -> list[ir.Graph]:
        return [self._graph, *bodies(self._graph)]
