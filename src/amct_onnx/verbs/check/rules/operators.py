"""Rules on which operators may stand in the file."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from amct_onnx.verbs.check.model_view import ASCEND, ModelView
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule

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
WITH_PLUGIN = frozenset(
    {
        *ASCEND,
        *WITHOUT_PLUGIN,
        *MADE_BY_GE,
        "Int8Quantize",
        "Int8Dequantize",
        "Int8Conv",
        "Int8ConvRelu",
        "Int8FC",
        "NPUQuantize",
        "NPUAntiQuant",
        "NPUAscendQuantV2",
    }
)
"""Operators beyond ONNX that the compiler's sources register, or that another rule reports."""


def _found(view: ModelView, *op_types: str) -> Iterator[Hit]:
    for op_type in op_types:
        for node in view.nodes(op_type):
            yield Hit(f"the operator is {op_type}", view.names[node])


@rule(
    id="foreign-domain",
    severity=ERROR,
    title="Operator of another domain",
    why="An operator is looked up under its domain; the Ascend operators and those of ONNX are registered in the "
    "default domain alone, so that any other is unknown (E16002) unless you registered a plugin for it.",
    source="ge: parser/parser/onnx/onnx_parser.cc",
    remedy="Export without custom operators; Ascend operators belong to the domain ''.",
)
def foreign_domain(view: ModelView) -> Iterator[Hit]:
    """Operators outside the default domain, one finding for each type."""
    functions = {(key[0], key[1]) for key in view.model.functions}
    for (domain, op_type), nodes in view.op_types().items():
        if domain and (domain, op_type) not in functions:
            yield Hit(f"{op_type} of domain '{domain}' ({len(nodes)} nodes)", view.names[nodes[0]])


@rule(
    id="leftover-quantizer",
    severity=ERROR,
    title="ONNX quantization operator",
    why="No plugin is registered for QuantizeLinear, DequantizeLinear, QLinear*, *Integer and "
    "DynamicQuantizeLinear (E16002).",
    source="ops-nn and ge: no registration of these names",
    remedy="Convert the QAT model with `amct_onnx convert`.",
)
def leftover_quantizer(view: ModelView) -> Iterator[Hit]:
    """ONNX quantization operators."""
    yield from _found(view, *LEFTOVERS)


@rule(
    id="no-plugin",
    severity=ERROR,
    title="Operator of the compiler's inside",
    why="The operator exists in GE's graphs but has no ONNX plugin (E16002).",
    source="ops-nn: common/src/framework, quant/",
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


@rule(
    id="unknown-operator",
    severity=WARNING,
    title="Operator unknown to ONNX",
    why="Neither ONNX defines it in this opset nor do the compiler's public sources register it: without a "
    "plugin of your own ATC stops with E16002.",
    source="ONNX operator schemas; ops-nn: common/src/framework",
    remedy="Replace the operator, or register its plugin.",
)
def unknown_operator(view: ModelView) -> Iterator[Hit]:
    """Operators that neither ONNX nor the compiler defines, one finding for each type."""
    version = view.opset
    if version is None:
        return
    version = max(1, min(version, onnx.defs.onnx_opset_version()))
    for (domain, op_type), nodes in view.op_types().items():
        if domain or op_type in WITH_PLUGIN:
            continue
        try:
            known = not onnx.defs.get_schema(op_type, version, "").deprecated
        except onnx.defs.SchemaError:
            known = False
        if not known:
            yield Hit(f"{op_type} ({len(nodes)} nodes) is no operator of opset {version}", view.names[nodes[0]])
