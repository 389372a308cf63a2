"""Layers whose accumulator may leave int32: the fake-quant model's float32 sums go on there, a device's do not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from amct_onnx.common.arithmetic import INT8_MIN, INT32_MAX
from amct_onnx.device.facts import bias_bound, weight_sums, worst_accumulator
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from amct_onnx.plan.factors import Plan, Site


def overflow_warnings(plan: Plan) -> tuple[str, ...]:
    """One sentence for each layer whose accumulator can exceed 2^31 - 1 for some input."""
    kinds = {entry.name: entry.op_type for entry in plan.entries}
    sentences = []
    for site in plan.sites:
        worst = _worst(site, kinds)
        if worst > INT32_MAX:
            sentences.append(
                f"Layer '{site.node}': its accumulator may reach {worst}, beyond 2^31 - 1. The fake-quant model adds "
                "in float32 and goes on; what a device then does is not public, and DeploySession's int32 wraps. Use "
                "a larger scale for its weight or input, or a smaller bias."
            )
    return tuple(sentences)


def _worst(site: Site, kinds: Mapping[str, str]) -> int:
    """Bound of |accumulator| over all inputs; that of the weights' number alone where it shows that int32 holds it."""
    group = next((a.as_int() for a in site.attributes if a.name == "group"), 1)
    layout = Layout(LAYER_KINDS[kinds[site.node]], group)
    if site.weight is None:
        return (site.terms or 0) * INT8_MIN**2
    bias = np.zeros(1, np.int32) if site.bias is None else site.bias
    offset = site.quantizer.offset_d
    size = int(np.abs(bias.astype(np.int64)).max(initial=0))
    most = layout.terms(site.weight.shape) * -INT8_MIN * (abs(offset) - INT8_MIN) + size
    if most <= INT32_MAX:
        return most  # no weight is read
    sums = weight_sums(layout, site.weight.integers())
    return worst_accumulator(sums, offset, bias_bound(bias, sums))
