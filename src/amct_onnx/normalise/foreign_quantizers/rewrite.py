"""Fake-quant nodes of foreign domains become QuantizeLinear (-> Clip) -> DequantizeLinear of the default domain."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.edit import nodes_of
from amct_onnx.normalise.foreign_quantizers import mct, openvino, qonnx, torch_nodes, vitis
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter, Rule


def relabel(_: QuantizerWriter, node: ir.Node) -> None:
    """QuantizeLinear and DequantizeLinear of another domain: the default domain's definition, for more types."""
    node.domain = ""


DOMAINS: dict[str, dict[str, Rule]] = {
    "qonnx.custom_op.general": qonnx.RULES,
    "onnx.brevitas": qonnx.RULES,
    "finn.custom_op.general": qonnx.RULES,
    "org.openvinotoolkit": openvino.RULES,
    "mct_quantizers": mct.RULES,
    "com.microsoft": {"QuantizeLinear": relabel, "DequantizeLinear": relabel},
}
"""Domain -> operator -> the rule that reads it."""
SHARED = ("com.microsoft",)
"""Of these domains, operators without a rule are not quantizers, or are left as they are."""


def rule_for(node: ir.Node) -> Rule | None:
    """The rule that reads a node, if it is a foreign quantizer."""
    own = vitis.RULES.get(node.op_type) if node.domain else None
    return DOMAINS.get(node.domain, {}).get(node.op_type) or own or torch_nodes.rule_for(node)


def only_normalised_runs(node: ir.Node) -> bool:
    """Whether a node is a quantizer of these domains that ONNX Runtime does not know."""
    return node.domain != "com.microsoft" and rule_for(node) is not None


def express_foreign_quantizers(model: ir.Model) -> None:
    """Rewrite every foreign fake-quant node in place.

    Raises:
        UnsupportedModelError: A node of these domains is not an integer quantizer, or not one that Q/DQ can express.
        FactorError: A scale, zero point, range or bit width that is not constant or not usable.
    """
    nodes = nodes_of(model)
    if not any(n.domain in DOMAINS or rule_for(n) for n in nodes):
        return
    writer = QuantizerWriter(model)
    for node in nodes:
        rule = rule_for(node)
        if rule is not None:
            rule(writer, node)
        elif node.domain in DOMAINS and node.domain not in SHARED:
            raise UnsupportedModelError(
                f"Node '{node.name}' is a {node.domain}::{node.op_type}, which is not an integer quantization that "
                "QuantizeLinear can express. Export the model with integer quantizers, in QDQ format."
            )
    left_float = writer.formula.left_float
    if left_float and not any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes_of(model)):
        name, why = left_float[0]
        raise UnsupportedModelError(
            f"Node '{name}' {why}: it cannot become int8, and the same holds for every other quantizer of the model. "
            "Train with quantizers of 8 bits that round half to even and have integer zero points."
        )
