"""What the figures say against the data or the source itself, before any model is blamed."""

from __future__ import annotations

from collections.abc import Sequence

from amct_onnx.verbs.compare.explain.chance import at_least
from amct_onnx.verbs.compare.job import SOURCE, Job
from amct_onnx.verbs.compare.key import OUTPUT
from amct_onnx.verbs.compare.measure.batch import Results
from amct_onnx.verbs.compare.pairing import Paired

MIN_SAMPLES = 20
"""Below this number, right answers at chance say nothing."""
LIKELY = 0.05
"""Probability of as many right answers by chance, from which on the source is said to guess."""
GUESSES = "The source itself is no better than guessing"
OUTSIDE = 0.05
"""Share of the input outside the first quantizer's range, from which on the preprocessing is doubted."""


def data_warnings(job: Job, layers: Sequence[Paired], results: Results) -> tuple[str, ...]:
    """The source that guesses, and an input that the first quantizer cuts off.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        results: of all batches.
    """
    return tuple(filter(None, (_guesses(job, results), _outside(job, layers, results))))


def _guesses(job: Job, results: Results) -> str:
    found = results.accuracy.get(SOURCE)
    if found is None or "top-1" not in found.right or found.samples < MIN_SAMPLES:
        return ""
    model = job.models[0]
    outputs = [results.tensors[t.key, model] for t in job.tracked if t.key.kind == OUTPUT]
    classes = next((o.count // o.samples for o in outputs if o.samples == found.samples), 0)
    right = found.right["top-1"]
    if classes < 2 or at_least(right, found.samples, 1 / classes) < LIKELY:
        return ""
    return (
        f"{GUESSES}: {right} of {found.samples} right among {classes} classes. Are "
        "the labels in the order of the samples and of this model's classes, and is the preprocessing that of training?"
    )


def _outside(job: Job, layers: Sequence[Paired], results: Results) -> str:
    first = min(job.quantizers, key=lambda q: q.layer, default=None)
    counts = results.quantizers.get((first.layer, SOURCE)) if first is not None else None
    if first is None or counts is None or not counts.values or counts.saturated < OUTSIDE * counts.values:
        return ""
    share = counts.saturated / counts.values
    return (
        f"{share:.0%} of the input lies outside the range of the first quantizer ({first.low:.4g} to {first.high:.4g}, "
        f"layer '{layers[first.layer].entry.name}'): is the preprocessing (mean, std, range, channel order) that of "
        "training?"
    )
