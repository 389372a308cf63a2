"""All rules, in the order of their findings and of docs/check.md."""

from amct_onnx.verbs.check.rule import Rule, rules_of
from amct_onnx.verbs.check.rules import (
    ascend_attributes,
    attributes,
    chain,
    container,
    deq_scale,
    layer_shapes,
    operators,
    quantizer_arithmetic,
    weights,
)

RULES: tuple[Rule, ...] = (
    *rules_of(container),
    *rules_of(operators),
    *rules_of(ascend_attributes),
    *rules_of(deq_scale),
    *rules_of(quantizer_arithmetic),
    *rules_of(attributes),
    *rules_of(weights),
    *rules_of(chain),
    *rules_of(layer_shapes),
)
