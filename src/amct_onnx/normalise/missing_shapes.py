"""Shape inference, where a later stage needs a shape that the model does not declare.

Exporters need not write value_info. The size of a convolution's input decides its padding; the rank decides which axis
a per-channel quantizer or a BatchNormalization behind a MatMul belongs to. Inference costs as much as the rest of
normalisation, so it runs only for such nodes.
"""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.shapes import infer_shapes, stored_shape
from amct_onnx.normalise.conv_attributes import lacks_size

AFFINE = ("Add", "Sub", "Mul", "Div", "BatchNormalization")


def infer_missing_shapes(model: ir.Model) -> None:
    """Complete shapes in place where one is missing; what cannot be inferred stays unknown."""
    if any(n.domain == "" and (lacks_size(n) or _lacks_rank(n)) for n in nodes_of(model)):
        declared = [None if v.shape is None else ir.Shape(v.shape) for v in model.graph.outputs]
        # types are not checked: the canonical form has Q/DQ on float16 at any opset
        infer_shapes(model, strict=False)
        for value, shape in zip(model.graph.outputs, declared, strict=True):
            value.shape = shape  # the interface stays as it was declared


def _lacks_rank(node: ir.Node) -> bool:
    """Whether the plan needs the rank of a tensor whose rank is unknown."""
    if node.op_type == "MatMul":
        readers = [use.node for use in node.outputs[0].uses()]
        batch = len(stored_shape(node.inputs[1]) or ()) > 2  # whose axes of 1 go where the activation has as many
        open_result = node.outputs[0].shape is None and any(n.op_type in AFFINE for n in readers)
        return open_result or (batch and (node.inputs[0] is None or node.inputs[0].shape is None))
    if node.op_type == "Einsum":  # an ellipsis stands for as many axes as the activation has left
        return "..." in attribute(node, "equation", "") and any(v is None or v.shape is None for v in node.inputs)
    if node.op_type == "QuantizeLinear":
        value, scale = node.inputs[0], node.inputs[1]
        per_tensor = scale is not None and scale.shape is not None and all(d == 1 for d in scale.shape)
        return value is not None and value.shape is None and not per_tensor
    return False
