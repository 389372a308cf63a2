"""Nodes that are quantizers by their names, and not by any definition that is known here."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.graph.refused import noted_form

FACTS = {
    "MatMulNBits": "multiplies floats by weights of few bits, with one scale per block",
    "MatMulBnb4": "multiplies floats by weights of 4 bits, with one scale per block",
    "GatherBlockQuantized": "takes rows of a table of few bits, with one scale per block",
    "QMoE": "multiplies floats by weights of experts, of few bits",
    "QuantizeBFP": "quantizes to block floating point",
    "DequantizeBFP": "reads block floating point",
    "QuantizeWithOrder": "quantizes to int8 in the layout of a GPU",
    "DequantizeWithOrder": "reads int8 in the layout of a GPU",
}
"""Operators of com.microsoft that quantize, and have no int8 form on Ascend: what they do."""
MAX_NAMED = 3
"""Nodes that a sentence names of each type."""
EXPORT_QDQ = "Export the model in QDQ format (QuantizeLinear and DequantizeLinear nodes)."


GPU = "computes with int8 in the layout of a GPU"


def fact_of(node: ir.Node) -> str:
    """What is known of an operator of com.microsoft that quantizes and has no int8 form; empty for any other."""
    if node.domain != "com.microsoft":
        return ""
    return GPU if node.op_type.startswith("QOrdered") else FACTS.get(node.op_type, "")


def unknown_quantizers(nodes: Iterable[ir.Node]) -> str:
    """Operators outside of the specification with "quant" in type, domain or name: counted and named by type."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        if is_op(node, QUANTIZE, DEQUANTIZE) or noted_form(node) or fact_of(node):
            continue
        if node.domain == "" and onnx.defs.has(node.op_type):
            continue
        if any("quant" in text.lower() for text in (node.op_type, node.domain, node.name or "")):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            found.setdefault(kind, []).append(node.name or "")
    return _listed(found)


def no_quantizer(nodes: Iterable[ir.Node]) -> str:
    """What to tell of a model without QuantizeLinear and DequantizeLinear: what it holds in their place, if anything.

    Operators outside of the specification are listed where none has "quant" in its name: one may be a quantizer.
    """
    nodes = list(nodes)
    text = "The model holds no QuantizeLinear or DequantizeLinear node"
    known = [n for n in nodes if fact_of(n)]
    if known:
        facts = {f"{n.domain}::{n.op_type}": fact_of(n) for n in known}
        named = {kind: [n.name or "" for n in known if kind.endswith(f"::{n.op_type}")] for kind in facts}
        told = "; ".join(f"{_listed({kind: named[kind]})}, which {fact}" for kind, fact in facts.items())
        return f"{text}. It holds {told}. No int8 layer of Ascend can be made of that. {EXPORT_QDQ}"
    unknown = unknown_quantizers(nodes)
    if unknown:
        return f"{text}. It holds {unknown}, which are not known here. {EXPORT_QDQ}"
    foreign: dict[str, list[str]] = {}
    for node in nodes:
        if node.domain or not onnx.defs.has(node.op_type):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            foreign.setdefault(kind, []).append(node.name or "")
    if foreign:
        return f"{text}. It holds {_listed(foreign)}, which may quantize and are not known here. {EXPORT_QDQ}"
    rounds = [n.name or "" for n in nodes if n.op_type == "Round"]
    if rounds:
        return f"{text}, and its {_listed({'Round': rounds})} are not fake quantization by constants. {EXPORT_QDQ}"
    return f"{text}. Give a QAT model exported with its quantizers."


def _listed(found: dict[str, list[str]]) -> str:
    parts = []
    for kind, names in found.items():
        named = ", ".join(f"'{n}'" for n in names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
        parts.append(f"{len(names)} x {kind} ({named})")
    return ", ".join(parts)
