"""All rules, in the order of their findings and of docs/check.md."""

from amct_onnx.acceptance.rule import Rule
from amct_onnx.acceptance.rules import ascend_nodes, attributes, container, layers, operators

RULES: tuple[Rule, ...] = (
    *container.RULES,
    *operators.RULES,
    *ascend_nodes.RULES,
    *attributes.RULES,
    *layers.RULES,
)
