"""How much a layer's int32 bias differs from the source's."""

from __future__ import annotations

import numpy as np

from amct_onnx.plan.factors import Site
from amct_onnx.plan.ledger import BiasError


def bias_error_of(site: Site) -> BiasError | None:
    """The error in accumulator steps and in units of the layer's output scale; None without a bias."""
    if site.bias_error is None:
        return None
    error = np.abs(site.bias_error)
    steps = error / site.deq_scale.astype(np.float64)
    if site.output_scale is None:
        return BiasError(float(steps.max()), None, None, int(steps.argmax()))
    in_lsb = error / site.output_scale
    return BiasError(float(steps.max()), float(in_lsb.max()), float(in_lsb.mean()), int(error.argmax()))
