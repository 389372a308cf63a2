"""Whether the source itself guesses, before any model is blamed."""

from __future__ import annotations

from amct_onnx.verbs.compare.explain.chance import at_least
from amct_onnx.verbs.compare.job import SOURCE, Job
from amct_onnx.verbs.compare.key import OUTPUT
from amct_onnx.verbs.compare.measure.batch import Results

MIN_SAMPLES = 20
"""Below this number, right answers at chance say nothing."""
LIKELY = 0.05
"""Probability of as many right answers by chance, from which on the source is said to guess."""
GUESSES = "The source itself is no better than guessing"


def guesses(job: Job, results: Results) -> str:
    """A sentence when the source has no more answers right than chance gives, else "".

    Args:
        job: see ``make_job``.
        results: of all batches.
    """
    found = results.accuracy.get(SOURCE)
    if found is None or "top-1" not in found.right or found.samples < MIN_SAMPLES:
        return ""
    classes = class_count(job, results)
    right = found.right["top-1"]
    if classes < 2 or at_least(right, found.samples, 1 / classes) < LIKELY:
        return ""
    return (
        f"{right} of {found.samples} right among {classes} classes: {GUESSES[0].lower()}{GUESSES[1:]}. Are the "
        "labels in the order of the samples and of this model's classes, and is the preprocessing that of training?"
    )


def class_count(job: Job, results: Results) -> int:
    """Classes of the output that answers; 0 when none holds a row of scores for each sample, or no model is beside."""
    outputs = [results.tensors[t.key, m] for t in job.tracked if t.key.kind == OUTPUT for m in job.models[:1]]
    return next((o.count // o.samples for o in outputs if o.samples == results.samples), 0)
