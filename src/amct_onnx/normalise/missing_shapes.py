"""Shape inference, where a later stage needs a shape that the model does not declare.

Exporters need not write value_info. The size of a convolution's input decides its padding; the rank decides which axis
a per-channel quantizer or a BatchNormalization behind a MatMul belongs to; the number of elements decides on which side
of a Concat or a Slice a pair of quantizers costs less. Inference costs as much as the rest of
normalisation, so it runs only for such nodes.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.graph.shapes import infer_shapes, known_shape, stored_shape
from amct_onnx.normalise.conv_attributes import lacks_size

AFFINE = ("Add", "Sub", "Mul", "Div", "BatchNormalization")
UNKNOWN_AXIS = "unk__"
"""How onnx's inference begins the names that it makes up."""
KEEPS_COUNT = frozenset("Identity Reshape Flatten Squeeze Unsqueeze Transpose DepthToSpace SpaceToDepth".split())
"""Operators that move elements and hand each of them on once."""


def infer_missing_shapes(model: ir.Model) -> None:
    """Complete shapes in place where one is missing; what cannot be inferred stays unknown."""
    nodes = [n for n in nodes_of(model) if n.domain == ""]
    sizes = any(lacks_size(n) or _lacks_rank(n) for n in nodes)
    if sizes or any(_lacks_type(n) or _lacks_count(n) for n in nodes):
        unknown = [] if sizes else [v for n in nodes for v in n.outputs if v.shape is None]
        undeclared = [v for v in model.graph.outputs if v.shape is None]
        # types are not checked: the canonical form has Q/DQ on float16 at any opset
        infer_shapes(model, strict=False)
        for value in undeclared:
            value.shape = None  # the interface stays as it was declared
        for value in unknown:
            if _is_made_up(value):
                value.shape = None  # inference made up the name of an axis, whose size stays unknown


def _lacks_type(node: ir.Node) -> bool:
    """Whether a Cast may change nothing, or integers have any size, because the type of its input is unknown."""
    if not node.inputs or node.inputs[0] is None or node.inputs[0].dtype is not None:
        return False
    made = node.inputs[0].producer()
    bare = is_op(node, DEQUANTIZE) and len(node.inputs) < 3 and not is_op(made, QUANTIZE, *BETWEEN)
    return node.op_type == "Cast" or (bare and made is not None)


def _is_made_up(value: ir.Value) -> bool:
    """Whether inference has named an axis of which it knows nothing."""
    shape = value.shape or ir.Shape([])
    return any(not isinstance(d, int) and (d.value is None or d.value.startswith(UNKNOWN_AXIS)) for d in shape)


def _lacks_rank(node: ir.Node) -> bool:
    """Whether the plan needs the rank of a tensor whose rank is unknown."""
    if node.op_type == "MatMul":
        readers = [use.node for use in node.outputs[0].uses()]
        batch = len(stored_shape(node.inputs[1]) or ()) > 2  # whose axes of 1 go where the activation has as many
        open_result = node.outputs[0].shape is None and any(n.op_type in AFFINE for n in readers)
        open_ranks = node.outputs[0].shape is None and not any(map(known_shape, node.inputs[:2]))
        return open_result or open_ranks or (batch and (node.inputs[0] is None or node.inputs[0].shape is None))
    if node.op_type == "Einsum":  # a sum over two axes is a product where these are equally long
        return len(node.inputs) == 2 and any(v is None or v.shape is None for v in node.inputs)
    if node.op_type == "QuantizeLinear":
        value, scale = node.inputs[0], node.inputs[1]
        per_tensor = scale is not None and scale.shape is not None and all(d == 1 for d in scale.shape)
        return value is not None and value.shape is None and not per_tensor
    return False


def _lacks_count(node: ir.Node) -> bool:
    """Whether the plan compares the elements in front of and behind a node beside a quantizer, and one is unknown."""
    if node.op_type in KEEPS_COUNT or not data_inputs(node) or all(v.shape is not None for v in node.outputs):
        return False
    before = any(v is not None and is_op(v.producer(), DEQUANTIZE) for v in node.inputs)
    return before or any(is_op(use.node, QUANTIZE) for v in node.outputs for use in v.uses())
