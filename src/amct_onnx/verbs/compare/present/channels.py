"""How each output channel of a layer differs from the source, on the first batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from amct_onnx.common.arrays import Array, Float64
from amct_onnx.common.text_codes import without_texts
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.plan.next_quantizers import Passage
from amct_onnx.verbs.compare.job import SOURCE, Job, step_of
from amct_onnx.verbs.compare.key import LAYER
from amct_onnx.verbs.compare.layer_details import ChannelErrors
from amct_onnx.verbs.compare.measure.statistics import passed_difference
from amct_onnx.verbs.compare.pairing import Paired

MAX_GROUPS = 64
"""Figures of one layer and model: of neighbouring channels the largest counts, so that a report stays small."""


def channel_errors(
    job: Job, layers: Sequence[Paired], tensors: Mapping[str, Mapping[str, Array]]
) -> dict[int, tuple[ChannelErrors, ...]]:
    """By number of the layer, one entry for each model but the source; layers without channels are left out.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        tensors: of the first batch, see ``Runner.tensors``.
    """
    found = {}
    for tracked in job.tracked:
        index = tracked.key.index
        if tracked.key.kind != LAYER or layers[index].entry.op_type not in LAYER_KINDS:
            continue
        own = without_texts(tensors[SOURCE][tracked.source])
        axis = LAYER_KINDS[layers[index].entry.op_type].result_axis
        if own.ndim < 2 or own.shape[axis] < 2 or not own.size:
            continue
        unit = step_of(layers[index]) or 1.0
        found[index] = tuple(
            _grouped(model, _means(own, without_texts(tensors[model][name]), axis, tracked.passage) / unit)
            for model, name in tracked.others.items()
            if tensors[model][name].size == own.size
        )
    return found


def _means(own: Array, other: Array, axis: int, passage: Passage | None) -> Float64:
    """Mean absolute difference of each channel, as far as it passes; NaN where one is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        same = np.asarray(other.reshape(own.shape), np.float64)
        error = np.abs(same - own)
        if passage is not None:
            error = np.where(np.isfinite(error), passed_difference(passage, own, same), error)
        means = np.moveaxis(error, axis, 0).reshape(own.shape[axis], -1).mean(axis=1)
    return np.where(np.isfinite(means), means, np.nan)


def _grouped(model: str, means: Float64) -> ChannelErrors:
    """Neighbours together, so that no more than ``MAX_GROUPS`` figures are left."""
    size = math.ceil(means.size / MAX_GROUPS)
    padded = np.append(means, np.full(-means.size % size, np.nan)).reshape(-1, size)
    numbers = np.where(np.isnan(padded), -1.0, padded)
    largest = tuple(None if n < 0 else float(n) for n in numbers.max(axis=1))
    worst = int(np.argmax(np.where(np.isnan(means), np.inf, means)))
    return ChannelErrors(model, means.size, size, largest, worst)
