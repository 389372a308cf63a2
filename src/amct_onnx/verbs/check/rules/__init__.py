"""All rules, in the order of their findings and of docs/check.md."""

from amct_onnx.verbs.check.rule import Rule
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
    *container.RULES,
    *operators.RULES,
    *ascend_attributes.RULES,
    *deq_scale.RULES,
    *quantizer_arithmetic.RULES,
    *attributes.RULES,
    *weights.RULES,
    *chain.RULES,
    *layer_shapes.RULES,
)
