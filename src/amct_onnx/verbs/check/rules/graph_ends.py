"""Rules on the inputs and outputs of the graph."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.verbs.check.cann_versions import RELEASES
from amct_onnx.verbs.check.element_types import DESCRIBED_TYPES, MASTER_TYPES
from amct_onnx.verbs.check.model_view import DEFAULT_NAMES, ModelView
from amct_onnx.verbs.check.report import ERROR, NOTE
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import PARSER

TYPE_TABLE = "ge: parser/parser/onnx/onnx_util.cc (onnx_data_type_map)"
WITHOUT_INPUT = frozenset({"RandomNormal", "RandomUniform"})
"""Operators without an input that give something else in each run."""


@rule(
    id="no-graph-input",
    severity=ERROR,
    title="Graph without input",
    why="The parser stops on a root graph without inputs (E16001).",
    source=PARSER,
    remedy="Export the model with at least one input.",
)
def no_graph_input(view: ModelView) -> Iterator[Hit]:
    """The root graph has no input."""
    if not view.model.graph.inputs:
        yield Hit("the graph has no input")


@rule(
    id="no-graph-output",
    severity=ERROR,
    title="Graph without output",
    why="The parser stops on a graph without outputs (E16001).",
    source=PARSER,
    remedy="Export the model with its outputs.",
)
def no_graph_output(view: ModelView) -> Iterator[Hit]:
    """The root graph has no output."""
    if not view.model.graph.outputs:
        yield Hit("the graph has no output")


@rule(
    id="output-not-produced",
    severity=ERROR,
    title="Graph output that nothing produces",
    why="The parser looks every graph output up among the nodes' results and stops when it is not there (E19999).",
    source=PARSER,
    remedy="Export the model again; if a tool renamed tensors, rename the output as well.",
)
def output_not_produced(view: ModelView) -> Iterator[Hit]:
    """A graph output that no node produces."""
    for scope in view.scopes:
        for value in scope.graph.outputs:
            if value.producer() is not None or value.is_graph_input() or value.is_initializer():
                continue
            if not view.is_outer(value.name or "", scope):
                yield Hit("nothing produces this graph output", tensor=value.name or "")


@rule(
    id="input-not-produced",
    severity=ERROR,
    title="Node input that nothing produces",
    why="The parser only warns and leaves the input open: the operator fails later or runs without it.",
    source=PARSER,
    remedy="Export the model again; if a tool renamed tensors, rename the input as well.",
)
def input_not_produced(view: ModelView) -> Iterator[Hit]:
    """A node input that nothing produces."""
    for node in view.nodes():
        for value in node.inputs:
            if value is None or value.producer() is not None or value.is_graph_input() or value.is_initializer():
                continue
            yield Hit("nothing produces this input", view.names[node], value.name or "")


@rule(
    id="dynamic-input",
    severity=NOTE,
    title="Graph input of unknown size",
    why="Unknown dimensions become -1. A quantized model is compiled for fixed shapes: the dynamic-shape "
    "options of ATC are excluded for it.",
    source=f"{PARSER}; CANN documentation of ATC",
    remedy="Give --input_shape to ATC.",
)
def dynamic_input(view: ModelView) -> Iterator[Hit]:
    """A graph input of unknown size."""
    for value in _inputs(view):
        if value.shape is None:
            yield Hit("its shape is not in the file", tensor=value.name or "")
        elif any(not isinstance(d, int) or d < 0 for d in value.shape):
            shape = ", ".join(str(d) for d in value.shape)
            yield Hit(f"its shape is [{shape}]", tensor=value.name or "")


def _inputs(view: ModelView) -> Iterator[ir.Value]:
    """Inputs of the root graph that do not become constants."""
    constants = view.model.graph.initializers
    yield from (v for v in view.model.graph.inputs if v.name not in constants)


@rule(
    id="input-type",
    severity=ERROR,
    title="Graph input of a type that the parser does not know",
    why="The parser looks the element type up in its table and stops when it is not there (E19999, E11010): a "
    "sequence, an input without a type, UINT4, the FNUZ forms of float8.",
    source=TYPE_TABLE,
    remedy="Export the model with inputs of type FLOAT, FLOAT16 or UINT8, which the documentation names for quantized "
    "models.",
)
def input_type(view: ModelView) -> Iterator[Hit]:
    """A graph input without an element type, or of one that the parser's table lacks."""
    for value in _inputs(view):
        kind = value.type
        if kind is None:
            yield Hit("it has no type", tensor=value.name or "")
        elif not isinstance(kind, ir.TensorType):
            yield Hit(f"it is a {type(kind).__name__.removesuffix('Type').lower()}", tensor=value.name or "")
        elif kind.dtype.name not in DESCRIBED_TYPES and kind.dtype.name not in MASTER_TYPES:
            yield Hit(f"its element type is {kind.dtype.name}", tensor=value.name or "")


@rule(
    id="input-int4",
    severity=ERROR,
    title="Graph input of type INT4",
    why="The parser's table of element types has INT4 since 2026-08-17; earlier ones stop (E19999, E11010).",
    source=TYPE_TABLE,
    remedy="Give the model an INT8 input, or compile with a newer CANN.",
    versions=RELEASES,
)
def input_int4(view: ModelView) -> Iterator[Hit]:
    """A graph input of type INT4."""
    for value in _inputs(view):
        if value.dtype is not None and value.dtype.name in MASTER_TYPES:
            yield Hit(f"its element type is {value.dtype.name}", tensor=value.name or "")


@rule(
    id="constant-output",
    severity=ERROR,
    title="Graph output that depends on constants only",
    why="The parser computes such an output away and drops it; the outputs behind it then take the names of their "
    "predecessors.",
    source="ge: omg.cc (names of the default outputs)",
    remedy="Remove the output from the model; the application can hold the constant.",
)
def constant_output(view: ModelView) -> Iterator[Hit]:
    """An output of the root graph that no graph input reaches."""
    outputs = view.model.graph.outputs
    varying = _varying(view)
    for index, value in enumerate(outputs):
        produced = value.producer() is not None or value.is_initializer()
        if produced and value not in varying:
            later = ", ".join(f"'{v.name}'" for v in list(outputs)[index + 1 :][:3])
            shift = f"; {later} would take wrong names" if later else ""
            yield Hit(f"no graph input reaches this output{shift}", tensor=value.name or "")


def _varying(view: ModelView) -> set[ir.Value]:
    """Values of the root graph that a graph input, or an operator without constant result, reaches."""
    varying = set(_inputs(view))
    waiting: list[ir.Value] = list(varying)
    for node in view.names:
        dangling = any(
            v is not None and v.producer() is None and not v.is_graph_input() and not v.is_initializer()
            for v in node.inputs
        )
        if dangling or node.op_type in WITHOUT_INPUT or node.domain not in DEFAULT_NAMES:
            waiting += [v for v in node.outputs if v not in varying]
            varying.update(node.outputs)
    holders: dict[object, ir.Node | None] = {scope.graph: scope.holder for scope in view.scopes}
    while waiting:
        for use in waiting.pop().uses():
            reader: ir.Node | None = use.node
            while reader is not None:  # what a body reads reaches the node that holds the body
                new = [v for v in reader.outputs if v not in varying]
                varying.update(new)
                waiting += new
                reader = holders.get(reader.graph)
    return varying
