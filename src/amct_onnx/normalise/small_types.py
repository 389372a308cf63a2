"""Tensors of float8, float4 and of integers of 4 and 2 bits, which the outputs' opset has not.

They may stand between QuantizeLinear and DequantizeLinear, in constants and in what only moves them: later rules lead
these back to floats. What reads them otherwise is refused by name.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.small_floats import SMALL_FLOATS
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, known_as, nodes_of
from amct_onnx.graph.float_types import FLOATS
from amct_onnx.graph.moves import data_inputs
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, is_op

SMALL_TYPES = frozenset({*SMALL_FLOATS, "INT4", "UINT4", "INT2", "UINT2"})


def is_small(value: ir.Value | None) -> bool:
    """Whether a tensor is of such a type."""
    return value is not None and value.dtype is not None and value.dtype.name in SMALL_TYPES


def may_stay_small(node: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether a node of such types is led back to floats by a later rule."""
    return any(is_small(node.inputs[i]) for i in data_inputs(node)) or _is_folded(node, constants)


def write_casts_as_quantizers(model: ir.Model) -> None:
    """Write Cast to and from float8 as QuantizeLinear and DequantizeLinear of scale 1, in place.

    Fake quantization written as two Casts is then a pair like any other.
    """
    editor: GraphEditor | None = None
    for node in nodes_of(model):
        if node.op_type != "Cast" or node.domain != "" or node.inputs[0] is None:
            continue
        value, to = node.inputs[0], ir.DataType(node.attributes["to"].as_int())
        if to.name in SMALL_FLOATS and value.dtype in FLOATS and not node.outputs[0].is_graph_output():
            attributes = [ir.AttrInt64("output_dtype", int(to))]
            attributes += [a for a in (node.attributes.get("saturate"),) if a is not None]
            op_type, kind = QUANTIZE, value.dtype
        elif to in FLOATS and value.dtype is not None and value.dtype.name in SMALL_FLOATS:
            op_type, kind, attributes = DEQUANTIZE, to, []
        else:
            continue
        editor = editor or GraphEditor(model)
        one = editor.constant(f"{node.name}/one", np.ones((), kind.numpy()))
        result = editor.node(op_type, [value, one], node, "", attributes, like=node.outputs[0])
        editor.replace(node, [result])


def refuse_small_types(model: ir.Model) -> None:
    """See that no tensor of such a type is left but in front of a DequantizeLinear.

    Raises:
        UnsupportedModelError: A graph input or a node has one.
    """
    for value in model.graph.inputs:
        if is_small(value):
            raise UnsupportedModelError(
                f"Graph input '{value.name}' is of type {value.dtype.name if value.dtype else ''}, which the opset of "
                "the output models has not. Give the model an input of float or of int8."
            )
    constants = ConstantEvaluator(opset_of(model))
    for node in nodes_of(model):
        if node.domain != "":
            continue  # the ledger lists it
        small = next((v for v in node.inputs if is_small(v)), None)
        if small is None or is_op(node, QUANTIZE, DEQUANTIZE, *BETWEEN) or _is_folded(node, constants):
            continue
        raise UnsupportedModelError(
            f"Node '{known_as(node)}' ({node.op_type}) reads '{small.name}' of type "
            f"{small.dtype.name if small.dtype else ''}, which the opset of the output models has not. Put the "
            "DequantizeLinear in front of this node and export again."
        )


def _is_folded(node: ir.Node, constants: ConstantEvaluator) -> bool:
    """Whether a node computes constants, which are folded."""
    return all(constants.is_constant(v) for v in node.outputs)
