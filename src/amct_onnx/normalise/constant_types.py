"""Constants of a type that their operator does not take: a scale of strings, a zero point of bool.

No runtime loads such a model, so nothing says what its numbers would be.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import onnx
import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op

NEWEST = 1000
"""A version far above every published opset: exporters write types of later versions, which are read as in these."""
KNOWN_TYPES = frozenset(onnx.TensorProto.DataType.values())
"""Numbers of the types of the installed onnx; a newer type is in none of its schemas."""
HOLDERS = ("Constant", "Identity")
"""Operators behind which a stored constant is known."""
TENSOR = re.compile(r"tensor\((\w+)\)")
"""How a schema writes the type of a tensor."""


def refuse_wrong_constants(model: ir.Model) -> None:
    """Hold stored constants to the types that ONNX's schema of the operator lists, in all bodies.

    Constants that are computed have the type that their nodes make, and the declared one of an activation may be false.

    Raises:
        UnsupportedModelError: A node of the default domain, or a Q or DQ of any, reads a constant of another type, or
            two constants of different types where the schema wants one.
    """
    version = opset_of(model)
    constants = ConstantEvaluator(version)
    for node in nodes_of(model):
        if node.domain != "" and not is_op(node, QUANTIZE, DEQUANTIZE):
            continue
        same: dict[str, tuple[str, ir.DataType]] = {}
        for index, value in enumerate(node.inputs):
            maker = None if value is None else value.producer()
            if value is None or (maker is not None and maker.op_type not in HOLDERS):
                continue
            tensor = constants.tensor(value)
            if tensor is None or int(tensor.dtype) not in KNOWN_TYPES:
                continue
            known = _parameter(node.op_type, version, index)
            if known.types and tensor.dtype.name.lower() not in known.types:
                raise UnsupportedModelError(
                    f"Node '{node.name}' ({node.op_type}) reads tensor '{value.name}' of type {tensor.dtype.name} as "
                    f"its '{known.name}'; the operator takes {', '.join(sorted(known.types))}. Export the model again "
                    "with a tensor of one of these types."
                )
            other, kind = same.setdefault(known.variable, (value.name or "", tensor.dtype))
            if known.variable and kind != tensor.dtype:
                raise UnsupportedModelError(
                    f"Node '{node.name}' ({node.op_type}) reads tensor '{other}' of type {kind.name} and "
                    f"'{value.name}' of type {tensor.dtype.name}; the operator takes both of one type. "
                    "Export the model again."
                )


class _Parameter(NamedTuple):
    """An input of an operator.

    Attributes:
        name: its name in the schema.
        types: names of the types of tensors that it takes, in this version or in the newest; empty when unknown.
        variable: all inputs with this one have the same type in this version; empty for none.
    """

    name: str
    types: frozenset[str]
    variable: str


@lru_cache(maxsize=1024)
def _parameter(op_type: str, version: int, index: int) -> _Parameter:
    """Kept, because onnx makes new objects of the whole schema each time it is asked."""
    try:
        schemas = [onnx.defs.get_schema(op_type, v, "") for v in (version, NEWEST)]
    except onnx.defs.SchemaError:
        return _Parameter("", frozenset(), "")
    # the last parameter stands for all behind it
    own, newest = [s.inputs[min(index, len(s.inputs) - 1)] for s in schemas]
    types = [TENSOR.fullmatch(t) for t in {*own.types, *newest.types}]
    return _Parameter(
        own.name, frozenset(t[1] for t in types if t is not None), own.type_str if own.is_homogeneous else ""
    )
