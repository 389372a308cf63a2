"""All rules, in the order of their findings and of docs/check.md."""

from amct_onnx.verbs.check.rule import Rule, rules_of
from amct_onnx.verbs.check.rules import (
    ascend_attributes,
    attributes,
    chain,
    constants,
    container,
    control_flow,
    conv_axes,
    deq_scale,
    external_data,
    graph_ends,
    layer_shapes,
    operators,
    opsets,
    quantizer_arithmetic,
    weights,
)

RULES: tuple[Rule, ...] = (
    *rules_of(graph_ends),
    *rules_of(opsets),
    *rules_of(container),
    *rules_of(control_flow),
    *rules_of(constants),
    *rules_of(external_data),
    *rules_of(operators),
    *rules_of(ascend_attributes),
    *rules_of(deq_scale),
    *rules_of(quantizer_arithmetic),
    *rules_of(attributes),
    *rules_of(conv_axes),
    *rules_of(weights),
    *rules_of(chain),
    *rules_of(layer_shapes),
)
