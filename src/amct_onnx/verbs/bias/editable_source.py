"""A model file whose protobuf is edited in a few tensors while all else stays as it was read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.files.compose import Composition, compose_proto
from amct_onnx.files.file_tensor import FileTensor
from amct_onnx.files.proto_scan import HERE
from amct_onnx.files.read import read_model, read_proto
from amct_onnx.graph.edit import FreeNames

FIRST_IR_WITHOUT_INPUTS = 4
"""From this ir_version on initializers are not also graph inputs."""

CONTENT = (
    "raw_data float_data int32_data string_data int64_data double_data uint64_data external_data data_location".split()
)
"""Fields of a TensorProto that hold its content or its location."""

Reader = tuple[ir.Node, int]


class EditableSource:
    """One model, as a graph for the planner and as the protobuf that will be written.

    Attributes:
        model: the graph; it may be normalised, the file is described by what was noted before.
    """

    def __init__(self, model_file: str | os.PathLike[str]) -> None:
        """Read the file.

        Raises:
            ModelNotFoundError, ModelFileError: See ``read_model``.
        """
        self.model = read_model(model_file)
        self._proto = read_proto(model_file)
        self._nodes: dict[ir.Node, tuple[onnx.NodeProto, onnx.GraphProto]] = {}
        self._inputs: dict[ir.Node, tuple[ir.Value | None, ...]] = {}
        self._makers: dict[ir.Value, tuple[ir.Node, tuple[ir.Value, ...]]] = {}
        self._readers: dict[ir.Value, set[Reader]] = defaultdict(set)
        self._initializers: dict[ir.Value, tuple[onnx.TensorProto, onnx.GraphProto]] = {}
        self._handed_out: set[ir.Value] = set()
        self._fed: set[ir.Value] = set()
        self._streamed: dict[str, FileTensor] = {}
        self._external: set[str] = set()
        self._note(self._proto.graph, self.model.graph, outermost=True)
        for message, function in zip(self._proto.functions, self.model.functions.values(), strict=True):
            for node, graph_node in zip(message.node, function, strict=True):
                self._note_attributes(node, graph_node)
        self._names = FreeNames(_names(self._proto.graph))

    def _note(self, message: onnx.GraphProto, graph: ir.Graph, *, outermost: bool = False) -> None:
        """Remember the message of each object of the graph, before the graph changes."""
        self._handed_out.update(graph.outputs)
        self._fed.update(graph.inputs)
        for tensor in message.initializer:
            value = graph.initializers[tensor.name]
            self._initializers[value] = tensor, message
            if outermost and isinstance(value.const_value, FileTensor):
                self._streamed[tensor.name] = value.const_value
                if _location(tensor) != HERE:
                    self._external.add(tensor.name)
            else:
                _put_inline(tensor, value.const_value)
        for node_message, node in zip(message.node, graph, strict=True):
            self._nodes[node] = node_message, message
            self._inputs[node] = tuple(node.inputs)
            for output in node.outputs:
                self._makers[output] = node, tuple(node.outputs)
            for index, value_read in enumerate(node.inputs):
                if value_read is not None:
                    self._readers[value_read].add((node, index))
            self._note_attributes(node_message, node)

    def _note_attributes(self, message: onnx.NodeProto, node: ir.Node) -> None:
        for attribute in message.attribute:
            parsed = node.attributes[attribute.name]
            if parsed.is_ref():
                continue
            if parsed.type == ir.AttributeType.TENSOR:
                _put_inline(attribute.t, parsed.as_tensor())
            elif parsed.type == ir.AttributeType.TENSORS:
                for tensor, content in zip(attribute.tensors, parsed.as_tensors(), strict=True):
                    _put_inline(tensor, content)
            elif parsed.type == ir.AttributeType.GRAPH:
                self._note(attribute.g, parsed.as_graph())
            elif parsed.type == ir.AttributeType.GRAPHS:
                for body, graph in zip(attribute.graphs, parsed.as_graphs(), strict=True):
                    self._note(body, graph)

    def holds(self, node: ir.Node) -> bool:
        """Whether a node of the normalised graph is a node of the file: not the body of a function, for example."""
        return node in self._nodes

    def give(self, wanted: Sequence[tuple[ir.Node, int, Array]]) -> list[str]:
        """Let nodes read new constants: (node, index of the input, content).

        A tensor is edited in its place when all of its readers want the same; otherwise they read a new initializer,
        and unread tensors are removed.

        Returns:
            The name of the tensor that each node reads.
        """
        by_value: dict[ir.Value, list[tuple[Reader, Array]]] = defaultdict(list)
        for node, index, array in wanted:
            value = self._inputs[node][index]
            assert value is not None
            by_value[value].append(((node, index), array))
        for value, changes in by_value.items():
            first = changes[0][1]
            alike = all(np.array_equal(array, first) for _, array in changes)
            everybody = {reader for reader, _ in changes} == self._readers[value] and value not in self._handed_out
            if not (alike and everybody and self._edit(value, first)):
                self._redirect(value, changes)
        return [self._nodes[node][0].input[index] for node, index, _ in wanted]

    def _edit(self, value: ir.Value, array: Array) -> bool:
        """Give an initializer or a Constant node a new content of the same shape; False when it is neither."""
        if value in self._initializers:
            tensor = self._initializers[value][0]
        elif value in self._makers and self._makers[value][0].op_type == "Constant":
            attribute = self._nodes[self._makers[value][0]][0].attribute[0]
            if attribute.name != "value":
                return False
            tensor = attribute.t
        else:
            return False
        if tuple(tensor.dims) != array.shape:
            return False
        for content in CONTENT:
            tensor.ClearField(content)
        tensor.raw_data = onnx.numpy_helper.from_array(array).raw_data
        if value in self._initializers:  # the name of a Constant's tensor means nothing
            self._streamed.pop(tensor.name, None)
            self._external.discard(tensor.name)
        return True

    def _redirect(self, value: ir.Value, changes: list[tuple[Reader, Array]]) -> None:
        new_names: dict[tuple[tuple[int, ...], bytes], str] = {}
        for (node, index), array in changes:
            key = array.shape, array.tobytes()
            message = self._nodes[node][0]
            if key not in new_names:
                new_names[key] = self._names.take(f"{message.input[index]}_rounded")
                self._proto.graph.initializer.append(onnx.numpy_helper.from_array(array, new_names[key]))
                if self._proto.ir_version < FIRST_IR_WITHOUT_INPUTS:
                    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                    self._proto.graph.input.append(
                        onnx.helper.make_tensor_value_info(new_names[key], kind, array.shape)
                    )
            message.input[index] = new_names[key]
            self._readers[value].discard((node, index))
        self._remove_unread(value)

    def _remove_unread(self, value: ir.Value) -> None:
        waiting = [value]
        while waiting:
            current = waiting.pop()
            if self._readers[current] or current in self._handed_out or current in self._fed:
                continue
            if current in self._initializers:
                tensor, graph = self._initializers.pop(current)
                self._streamed.pop(tensor.name, None)
                self._external.discard(tensor.name)
                graph.initializer.remove(tensor)
                continue
            node, siblings = self._makers.get(current, (None, ()))
            if node not in self._nodes or any(self._readers[v] or v in self._handed_out for v in siblings):
                continue
            message, graph = self._nodes.pop(node)
            graph.node.remove(message)
            for info in [i for i in graph.value_info if i.name in message.output]:
                graph.value_info.remove(info)
            for index, read in enumerate(self._inputs[node]):
                if read is not None:
                    self._readers[read].discard((node, index))
                    waiting.append(read)

    def output(self, path: Path) -> Composition:
        """The file to write; the object cannot be used afterwards."""
        return compose_proto(self._proto, path, self._streamed, frozenset(self._external))


def _location(tensor: onnx.TensorProto) -> str:
    return next((e.value for e in tensor.external_data if e.key == "location"), "")


def _put_inline(tensor: onnx.TensorProto, content: ir.TensorProtocol | None) -> None:
    """Tensors in bodies and attributes stand in the model file; only initializers are streamed."""
    if isinstance(content, FileTensor):
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        tensor.raw_data = content.tobytes()


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (v.name for v in [*graph.input, *graph.initializer])
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _names(body)
