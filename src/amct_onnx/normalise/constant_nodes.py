"""Constants in a form that ATC's parser reads: it takes the attribute ``value`` of a Constant node and no other.

The parser makes an EMPTY tensor of a Constant with value_int, value_ints, value_float, value_floats, value_string or
value_strings, without a message (ge: parser/parser/onnx/onnx_constant_parser.cc, ParseConstFromInput). Such a node
becomes an initializer of its graph; where its result is the graph's own output, it stays a node with ``value``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of

OTHER_VALUES: dict[str, Callable[[Any], ir.TensorProtocol]] = {
    "value_int": lambda v: ir.tensor(np.array(v, np.int64)),
    "value_ints": lambda v: ir.tensor(np.array(v, np.int64)),
    "value_float": lambda v: ir.tensor(np.array(v, np.float32)),
    "value_floats": lambda v: ir.tensor(np.array(v, np.float32)),
    "value_string": lambda v: _texts([v], ()),
    "value_strings": lambda v: _texts(v, (len(v),)),
}


def store_constants(model: ir.Model) -> None:
    """Rewrite the nodes in place, also in bodies."""
    for node in nodes_of(model):
        if node.op_type != "Constant" or node.domain != "" or node.graph is None:
            continue
        name = next((n for n in OTHER_VALUES if n in node.attributes), None)
        if name is None:
            continue
        result, tensor = node.outputs[0], OTHER_VALUES[name](node.attributes[name].value)
        if result.is_graph_output():
            del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", tensor)
            continue
        tensor.name = result.name
        value = ir.Value(
            name=result.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        graph = node.graph
        ir.convenience.replace_all_uses_with(result, value)
        graph.remove(node, safe=True)
        assert isinstance(graph, ir.Graph)
        graph.register_initializer(value)


def _texts(texts: Any, shape: tuple[int, ...]) -> ir.TensorProtocol:
    content = [t.encode() if isinstance(t, str) else t for t in texts]
    return ir.StringTensor(content, shape=ir.Shape(shape))
