"""Histograms of a conversion's scales and of how much its quantizers saturate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amct_onnx.verbs.compare.report import Histogram, HistogramKey, LayerResult

SHARES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Edges of shares; the first bin holds "hardly any"."""
MOST_BINS = 16


def histograms(layers: Sequence[LayerResult], model: str) -> tuple[Histogram, ...]:
    """Of activation, weight and dequantization scales, and of the shares of inputs that saturate in a model."""
    converted = [layer for layer in layers if layer.scale_d is not None]
    activations = [s for layer in converted for s in (layer.scale_d, layer.second_scale_d) if s is not None]
    weights = [s for layer in converted for s in layer.scale_w if layer.second_scale_d is None]
    products = [(layer.read_scale or 0.0) * s for layer in converted for s in layer.scale_w]
    shares = [c.saturated / c.values for layer in layers for c in layer.counts if c.model == model and c.values]
    made = [
        _of_scales("scale_d", "Activation scales", "scale_d", activations),
        _of_scales("scale_w", "Weight scales", "scale_w", weights),
        _of_scales("deq_scale", "Dequantization scales", "read_scale * scale_w", products),
    ]
    if shares:
        counts, _ = np.histogram(shares, SHARES)
        title = f"Layers by share of saturated inputs ({model})"
        made.append(Histogram("saturation", title, "share", SHARES, tuple(int(n) for n in counts)))
    return tuple(h for h in made if h.counts)


def _of_scales(key: HistogramKey, title: str, unit: str, values: Sequence[float]) -> Histogram:
    """Edges at powers of two, as few apart as ``MOST_BINS`` allows."""
    positive = [v for v in values if v > 0 and math.isfinite(v)]
    if not positive:
        return Histogram(key, title, unit, (), ())
    low, high = math.floor(math.log2(min(positive))), math.floor(math.log2(max(positive))) + 1
    step = math.ceil((high - low) / MOST_BINS)
    edges = [2.0**p for p in range(low, high + step, step)]
    counts, _ = np.histogram(positive, edges)
    return Histogram(key, title, unit, tuple(edges), tuple(int(n) for n in counts))
