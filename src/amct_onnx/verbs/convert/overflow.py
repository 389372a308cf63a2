"""Which int8 layers of a plan may leave int32: the fake-quant model's float32 sums go on there, a device's do not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from amct_onnx.common.arithmetic import INT8_MIN, INT32_MAX
from amct_onnx.device.facts import bias_bound, weight_sums, worst_accumulator
from amct_onnx.plan.factors import Plan, Site


def overflow_warnings(plan: Plan) -> tuple[str, ...]:
    """One sentence for each layer whose accumulator can exceed 2^31 - 1 for some input."""
    kinds = {entry.name: entry.op_type for entry in plan.entries}
    found = []
    for site in plan.sites:
        worst = _worst(site, kinds)
        if worst > INT32_MAX:
            found.append(
                f"Layer '{site.node}': its accumulator may reach {worst}, beyond 2^31 - 1. The fake-quant model adds "
                "in float32 and goes on; what a device then does is not public, and DeploySession's int32 wraps. Use "
                "a larger scale for its weight or input, or a smaller bias."
            )
    return tuple(found)


def _worst(site: Site, kinds: Mapping[str, str]) -> int:
    """Bound of |accumulator| over all inputs; that of the weights' sizes alone where it shows that int32 holds it."""
    bias = np.zeros(1, np.int32) if site.bias is None else site.bias
    offset = site.quantizer.offset_d
    size = int(np.abs(bias.astype(np.int64)).max(initial=0))
    shape = site.weight.shape
    most = math.prod(shape) // max(1, min(shape, default=1)) * -INT8_MIN * (abs(offset) - INT8_MIN) + size
    if most <= INT32_MAX:
        return most  # no weight is read
    attributes = {a.name: a.value for a in site.attributes}
    sums = weight_sums(
        kinds[site.node], site.weight.integers(), int(attributes.get("group", 1)), bool(attributes.get("transB", 0))
    )
    return worst_accumulator(sums, offset, bias_bound(bias, sums))
