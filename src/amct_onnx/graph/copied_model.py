"""A copy of a model that shares with it what nobody changes in place: tensors, attributes, shapes, types.

``ir.Model.clone`` makes stores for metadata on every node and value of both models and new shapes, which takes three
times as long and as much memory; and it cannot leave out what the copy will not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import onnx_ir as ir

from amct_onnx.graph.marks import marks_of, texts_of


def copy_model(model: ir.Model, left_out: Set[ir.Node | ir.Value] = frozenset()) -> ir.Model:
    """Copy a model.

    Args:
        model: without functions; its shapes can no longer be changed in place afterwards.
        left_out: nodes, their results and initializers that the copy does not hold. No output depends on them but
            through nodes that will be replaced; these read nothing instead.
    """
    return with_graph(model, _Copy(left_out).graph(model.graph))


def with_graph(model: ir.Model, graph: ir.Graph) -> ir.Model:
    """A model with all that stands around the graph of another one, but for its functions."""
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )


class _Copy:
    def __init__(self, left_out: Set[ir.Node | ir.Value]) -> None:
        self._left_out = left_out
        self._values: dict[ir.Value, ir.Value] = {}

    def graph(self, graph: ir.Graph) -> ir.Graph:
        inputs = [self._value(v) for v in graph.inputs]
        initializers = [self._value(v) for v in graph.initializers.values() if v not in self._left_out]
        nodes = [self._node(n) for n in graph if n not in self._left_out]
        copy = ir.Graph(
            inputs,
            [self._values[v] for v in graph.outputs],
            nodes=nodes,
            initializers=initializers,
            doc_string=graph.doc_string,
            opset_imports=dict(graph.opset_imports),
            name=graph.name,
            metadata_props=texts_of(graph),
        )
        _mark(copy, graph)
        return copy

    def _value(self, value: ir.Value) -> ir.Value:
        if value in self._values:  # an initializer that is an input as well
            return self._values[value]
        if value.shape is not None:
            value.shape.freeze()
        copy = ir.Value(
            name=value.name,
            shape=value.shape,
            type=value.type,
            doc_string=value.doc_string,
            const_value=value.const_value,
            metadata_props=texts_of(value),
        )
        _mark(copy, value)
        self._values[value] = copy
        return copy

    def _node(self, node: ir.Node) -> ir.Node:
        copy = ir.Node(
            node.domain,
            node.op_type,
            # a tensor from outside the graph was copied with the graph around it
            [None if v is None else self._values.get(v) for v in node.inputs],
            self._attributes(node.attributes.values()),
            overload=node.overload,
            outputs=[self._value(v) for v in node.outputs],
            version=node.version,
            name=node.name,
            doc_string=node.doc_string,
            metadata_props=texts_of(node),
            device_configurations=node.device_configurations,
        )
        _mark(copy, node)
        return copy

    def _attributes(self, attributes: Iterable[ir.Attr]) -> list[ir.Attr]:
        return [
            self._attribute(a) if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) else a for a in attributes
        ]

    def _attribute(self, attribute: ir.Attr) -> ir.Attr:
        """One that holds graphs."""
        if attribute.type == ir.AttributeType.GRAPH:
            return ir.AttrGraph(attribute.name, self.graph(attribute.as_graph()), attribute.doc_string)
        return ir.AttrGraphs(attribute.name, [self.graph(g) for g in attribute.as_graphs()], attribute.doc_string)


def _mark(copy: ir.Node | ir.Value | ir.Graph, item: ir.Node | ir.Value | ir.Graph) -> None:
    marks = marks_of(item)
    if marks:
        copy.meta.update(marks)
