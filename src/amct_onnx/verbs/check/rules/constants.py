"""Rules on what the parser reads of constants."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.graph.tensor_content import tensor_bytes
from amct_onnx.verbs.check.cann_versions import RELEASES
from amct_onnx.verbs.check.element_types import CONSTANT_TYPES, DESCRIBED_TYPES, MASTER_TYPES
from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import ERROR
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import CONSTANT_PARSER

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that one protobuf message can hold."""


@rule(
    id="file-too-large",
    severity=ERROR,
    title="More than 2 GB in one file",
    why="Protobuf cannot hold more than 2 GB in one message.",
    source="protobuf documentation",
    remedy="Save large float constants as external data.",
)
def too_large(view: ModelView) -> Iterator[Hit]:
    """More bytes inside the file than protobuf holds."""
    inline = sum(tensor_bytes(t) for _, t, _ in view.tensors if not isinstance(t, ir.ExternalTensor))
    if inline > PROTOBUF_LIMIT:
        yield Hit(f"{inline} bytes of constants inside the file")


@rule(
    id="constant-type",
    severity=ERROR,
    title="Constant of a type that the parser does not read",
    why="The parser stops at a constant whose element type it has no reader for (E19999, E11010): all float8 types, "
    "UINT4 and the newer small types. Outside the file, FLOAT8E4M3FN and FLOAT8E5M2 pass.",
    source=f"{CONSTANT_PARSER} (datatype_val_size_map); ge: parser/parser/onnx/onnx_util.cc",
    remedy="Store the constant in a type that the parser reads; 4-bit weights as INT8.",
)
def unread_type(view: ModelView) -> Iterator[Hit]:
    """A constant of an element type that the parser does not read."""
    for name, tensor, _ in view.tensors:
        allowed = DESCRIBED_TYPES if isinstance(tensor, ir.ExternalTensor) else CONSTANT_TYPES
        if tensor.dtype.name not in allowed and tensor.dtype.name not in MASTER_TYPES:
            yield Hit(f"its element type is {tensor.dtype.name}", tensor=name)


@rule(
    id="constant-int4",
    severity=ERROR,
    title="Constant of type INT4",
    why="The parser reads INT4 since 2026-08-17; earlier ones stop (E19999, E11010).",
    source=f"{CONSTANT_PARSER} (datatype_val_size_map)",
    remedy="Store 4-bit weights as INT8, or compile with a newer CANN.",
    versions=RELEASES,
)
def int4_constant(view: ModelView) -> Iterator[Hit]:
    """A constant of type INT4."""
    for name, tensor, _ in view.tensors:
        if tensor.dtype.name in MASTER_TYPES:
            yield Hit(f"its element type is {tensor.dtype.name}", tensor=name)


@rule(
    id="constant-without-data",
    severity=ERROR,
    title="Constant without data",
    why="The parser stops at a constant whose shape has elements and that holds none (E19999).",
    source=f"{CONSTANT_PARSER} (ParseConvertData)",
    remedy="Export the model again: the data of this tensor was lost.",
)
def without_data(view: ModelView) -> Iterator[Hit]:
    """A constant inside the file that holds nothing although its shape has elements."""
    for name in view.facts.without_data:
        yield Hit("its shape has elements, and it holds none", tensor=name)


@rule(
    id="constant-attribute",
    severity=ERROR,
    title="Constant node without the attribute 'value'",
    why="The parser reads 'value' alone: of value_int, value_ints, value_float, value_floats, value_string, "
    "value_strings and sparse_value it makes an empty tensor, without a message.",
    source=f"{CONSTANT_PARSER} (ParseConstFromInput)",
    remedy="Store the number as an initializer; `amct_onnx convert` does so.",
)
def constant_attribute(view: ModelView) -> Iterator[Hit]:
    """A Constant node whose content is in another attribute."""
    for node in view.nodes("Constant"):
        held = node.attributes.get("value")
        if held is None or held.type != ir.AttributeType.TENSOR:
            name = next((n for n in node.attributes if "value" in n), "no attribute")
            tensor = node.outputs[0].name or "" if node.outputs else ""
            yield Hit(
                f"its content is in '{name}'" if held is None else "its value is not a tensor", view.names[node], tensor
            )
