"""Rules on which operators may stand in the file, and on how many inputs and outputs they have."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from amct_onnx.common.counted import counted
from amct_onnx.graph.atc_operators import (
    EXPERIMENTAL,
    MASTER,
    UNPROVEN,
    Registration,
    registration,
    registrations,
)
from amct_onnx.verbs.check.cann_versions import RELEASES
from amct_onnx.verbs.check.model_view import ASCEND, DEFAULT_NAMES, ModelView
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import PARSER, REGISTRATIONS

LEFTOVERS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
WITHOUT_PLUGIN = ("AscendWeightQuant", "QuantBiasOptimization", "QuantWeightRollBack", "QuantBiasRollBack")
MADE_BY_GE = ("AscendRequant", "AscendRequantS16", "AscendDequantS16")
DOMAINS = frozenset(domain for domain, _ in registrations()) | {""}
"""Domains of which the parser knows operators."""


def _found(view: ModelView, *op_types: str) -> Iterator[Hit]:
    for op_type in op_types:
        for node in view.nodes(op_type):
            yield Hit(f"the operator is {op_type}", view.names[node])


def _types(view: ModelView) -> Iterator[tuple[str, str, list[ir.Node]]]:
    """Domain, type and nodes of every operator that is neither a function's call nor reported by name."""
    functions = {(key[0], key[1]) for key in view.model.functions}
    for (domain, op_type), nodes in view.op_types().items():
        named = domain in DEFAULT_NAMES and op_type in (*LEFTOVERS, *WITHOUT_PLUGIN)
        if (domain, op_type) not in functions and not named:
            yield domain, op_type, nodes


def _entry(view: ModelView, domain: str, op_type: str) -> Registration | None:
    """The registration that holds for the model's version of the domain."""
    entry, version = registration(domain, op_type), view.version_of(domain)
    return entry if entry is not None and version in entry.versions else None


@rule(
    id="foreign-domain",
    severity=ERROR,
    title="Operator of another domain",
    why="An operator is looked up under its domain. The Ascend operators and those of ONNX are registered in the "
    "default domain alone, and of other domains only npu and mmdeploy have any: every other one is unknown (E13010, or "
    "E19999 without an opset_import entry) unless you registered a plugin for it.",
    source=f"{PARSER}; {REGISTRATIONS}",
    remedy="Export without custom operators; Ascend operators belong to the domain ''.",
)
def foreign_domain(view: ModelView) -> Iterator[Hit]:
    """Operators of a domain that the parser does not know, one finding for each type."""
    for domain, op_type, nodes in _types(view):
        if domain not in DOMAINS:
            yield Hit(f"{op_type} of domain '{domain}' ({counted(len(nodes), 'node')})", view.names[nodes[0]])


@rule(
    id="operator-not-registered",
    severity=ERROR,
    title="Operator without a plugin at this opset",
    why="The parser looks up domain::version::type and takes the exact version, with no fallback to an earlier one. "
    "Without an entry it stops with E13010; a domain without an opset_import entry is E19999.",
    source=f"{PARSER}; {REGISTRATIONS}",
    remedy="Export with opset 11 to 18 and without this operator; `amct_onnx convert` rewrites operators that the "
    "specification gives a body for. A plugin of your own settles it too.",
)
def operator_not_registered(view: ModelView) -> Iterator[Hit]:
    """Operators that the parser does not know at the model's opset, one finding for each type."""
    for domain, op_type, nodes in _types(view):
        version = view.version_of(domain)
        if domain not in DOMAINS or (version is None and domain in DEFAULT_NAMES):
            continue  # reported by foreign-domain and opset-missing
        entry = registration(domain, op_type)
        place = f" of domain '{domain}'" if domain not in DEFAULT_NAMES else ""
        if version is None:
            what = f"there is no opset_import entry for domain '{domain}'"
        elif entry is None:
            what = "it is not registered for any opset"
        elif version not in entry.versions:
            what = f"it is registered for opset {entry.span()}, not {version}"
        else:
            continue
        yield Hit(f"{op_type}{place} ({counted(len(nodes), 'node')}): {what}", view.names[nodes[0]])


@rule(
    id="operator-newer",
    severity=ERROR,
    title="Operator whose plugin is newer than CANN 9.1",
    why="Releases up to 9.1 have no plugin for it: E13010.",
    source=REGISTRATIONS,
    remedy="Compile with a newer CANN, or write the operator in others; `amct_onnx convert` does so.",
    versions=RELEASES,
)
def operator_newer(view: ModelView) -> Iterator[Hit]:
    """Operators that only the newest parser knows."""
    for domain, op_type, nodes in _types(view):
        entry = _entry(view, domain, op_type)
        if entry is not None and entry.mark == MASTER:
            yield Hit(f"{op_type} ({counted(len(nodes), 'node')})", view.names[nodes[0]])


@rule(
    id="domain-newer",
    severity=ERROR,
    title="Operator of the domain npu or mmdeploy",
    why="Such an operator needs an opset_import entry of its own beside that of the default domain, which compilers up "
    "to 9.1 refuse (E16005).",
    source=f"{PARSER}; {REGISTRATIONS}",
    remedy="Write the operator in the default domain: the NPU operators are registered there for opset 11 to 18.",
    versions=RELEASES,
)
def domain_newer(view: ModelView) -> Iterator[Hit]:
    """Registered operators of another domain than the default one."""
    for domain, op_type, nodes in _types(view):
        if domain not in DEFAULT_NAMES and _entry(view, domain, op_type) is not None:
            yield Hit(f"{op_type} of domain '{domain}' ({counted(len(nodes), 'node')})", view.names[nodes[0]])


@rule(
    id="operator-unproven",
    severity=WARNING,
    title="Operator that the compiler may not know",
    why="The parser has a plugin for it, but either the plugin lies in a folder of experiments or the operator that it "
    "makes has its prototype in no public repository.",
    source=REGISTRATIONS,
    remedy="Write the operator in others, as `amct_onnx convert` does with HardSwish, or try it with your CANN.",
)
def operator_unproven(view: ModelView) -> Iterator[Hit]:
    """Operators whose registration does not settle that they compile."""
    for domain, op_type, nodes in _types(view):
        entry = _entry(view, domain, op_type)
        if entry is not None and entry.mark in (EXPERIMENTAL, UNPROVEN):
            yield Hit(f"{op_type} ({counted(len(nodes), 'node')})", view.names[nodes[0]])


@rule(
    id="leftover-quantizer",
    severity=ERROR,
    title="ONNX quantization operator",
    why="No plugin is registered for QuantizeLinear, DequantizeLinear, QLinear*, *Integer and "
    "DynamicQuantizeLinear (E13010).",
    source=REGISTRATIONS,
    remedy="Convert the QAT model with `amct_onnx convert`.",
)
def leftover_quantizer(view: ModelView) -> Iterator[Hit]:
    """ONNX quantization operators."""
    yield from _found(view, *LEFTOVERS)


@rule(
    id="no-plugin",
    severity=ERROR,
    title="Operator of the compiler's inside",
    why="The operator exists in GE's graphs but has no ONNX plugin (E13010).",
    source=REGISTRATIONS,
    remedy="Store int8 weights and int32 biases as initializers instead.",
)
def without_plugin(view: ModelView) -> Iterator[Hit]:
    """Operators that exist inside the compiler only."""
    yield from _found(view, *WITHOUT_PLUGIN)


@rule(
    id="made-by-compiler",
    severity=WARNING,
    title="Operator that GE makes itself",
    why="AscendRequant and the S16 operators are made by fusion passes out of AscendDequant and AscendQuant; in a "
    "file they bind it to one product.",
    source="ops-nn: common/src/framework/ascend_requant_onnx_plugin.cpp; ge: quant_pass/",
    remedy="Write AscendDequant and AscendQuant.",
)
def made_by_compiler(view: ModelView) -> Iterator[Hit]:
    """Operators that have a plugin but that the compiler makes itself."""
    yield from _found(view, *MADE_BY_GE)


def _schemas(view: ModelView) -> Iterator[tuple[ir.Node, OpSchema]]:
    """The nodes whose operator ONNX defines, with its schema; empty optional inputs are another rule's."""
    version = view.opset
    if version is None or version < 1:
        return
    version = min(version, onnx.defs.onnx_opset_version())
    for (domain, op_type), nodes in view.op_types().items():
        if domain not in DEFAULT_NAMES or op_type in ASCEND:
            continue
        try:
            schema = onnx.defs.get_schema(op_type, version, "")
        except onnx.defs.SchemaError:
            continue
        yield from ((node, schema) for node in nodes)


@rule(
    id="input-count",
    severity=ERROR,
    title="Operator with more or fewer inputs than it has",
    why="At an input too many the parser stops since 2026-08-19 (E19999); 9.1 and earlier drop it without a message. "
    "An input too few stops the compile when shapes are inferred.",
    source=f"{PARSER} (SetOperatorInputs); ONNX operator schemas",
    remedy="Write the inputs that the operator has in this opset.",
)
def input_count(view: ModelView) -> Iterator[Hit]:
    """An operator of ONNX with another number of inputs than its schema allows."""
    for node, schema in _schemas(view):
        given = len(node.inputs)
        while given and node.inputs[given - 1] is None:
            given -= 1
        if not schema.min_input <= given <= schema.max_input:
            yield Hit(f"{node.op_type} has {counted(given, 'input')}, {_expected(schema)}", view.names[node])


def _expected(schema: OpSchema) -> str:
    low, high = schema.min_input, schema.max_input
    return f"{low} expected" if low == high else f"{low} to {high} expected"


@rule(
    id="output-count",
    severity=ERROR,
    title="Operator with more outputs than it has",
    why="The parser finds no output of that number (E19999) and goes on without it: what reads it is lost.",
    source=f"{PARSER} (SetOperatorInputs, GetGraphOutputs); ONNX operator schemas",
    remedy="Write the outputs that the operator has in this opset.",
)
def output_count(view: ModelView) -> Iterator[Hit]:
    """An operator of ONNX with more outputs than its schema allows."""
    for node, schema in _schemas(view):
        if len(node.outputs) > schema.max_output:
            detail = f"{node.op_type} has {counted(len(node.outputs), 'output')}, at most {schema.max_output} expected"
            yield Hit(detail, view.names[node])
