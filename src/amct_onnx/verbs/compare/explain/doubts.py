"""What is doubtful about the source, the data or the ledger: said before any model is blamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amct_onnx.verbs.compare.explain.chance import share_interval
from amct_onnx.verbs.compare.explain.guessing import GUESSES, MIN_SAMPLES, class_count
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.job import SOURCE, Job
from amct_onnx.verbs.compare.measure.batch import Results

FLOAT_SHARE = 0.9
"""Of the float model's right answers: a source that keeps so many is as good as its task allows."""
POOR = 0.25
"""Of the way from chance to all right: hard tasks of many classes end above it, wrong preparation below."""


@dataclass(frozen=True)
class Doubt:
    """A reason to distrust the source's figures: the headline as the end of a sentence, the reason, and what to do."""

    headline: str
    why: str
    todo: str


def edited_ledger(path: Path, told: Sequence[str]) -> Doubt:
    """Of a ledger that is not what its conversion writes: its files are judged by what it should be."""
    more = f", and {len(told) - 1} more of its values are others" if len(told) > 1 else ""
    todo = "Convert the source again, and leave the ledger as it is written."
    return Doubt("the ledger is not the one of this conversion, or was changed", f"{path}: {told[0]}{more}.", todo)


def preparation(hint: str) -> Doubt:
    """Of a hint at another preparation of samples or labels."""
    todo = "Prepare samples and labels as in training, and compare again."
    return Doubt("the data look prepared otherwise than in training", hint, todo)


def clipped_input(told: str) -> Doubt:
    """Of an input that the first quantizer cuts off."""
    todo = "Hold mean, std, range and channel order of the data against training."
    return Doubt("much of the input lies outside the range of the first quantizer", told, todo)


def guessing(told: str) -> Doubt:
    """Of a source that guesses."""
    return Doubt(f"{GUESSES[0].lower()}{GUESSES[1:]}", told, "Check the labels, and how the data are prepared.")


def poor_source(job: Job, results: Results) -> Doubt | None:
    """A source whose right answers are above chance by less than ``POOR``, with 95 % confidence; else None.

    Args:
        job: see ``make_job``.
        results: of all batches.
    """
    found = results.accuracy.get(SOURCE)
    classes = class_count(job, results)
    if found is None or "top-1" not in found.right or found.samples < MIN_SAMPLES or classes < 2:
        return None
    right, (_, high) = found.right["top-1"], share_interval(found.right["top-1"], found.samples)
    limit = 1 / classes + POOR * (1 - 1 / classes)
    held = results.accuracy.get(FLOAT)
    as_float = held is not None and right >= FLOAT_SHARE * held.right.get("top-1", 0)
    if high >= limit or as_float:
        return None
    return Doubt(
        "the source itself answers badly",
        f"{right} of {found.samples} right (top-1): above chance by less than a quarter of what is possible with "
        f"{classes} classes.",
        "Check labels and preparation; if so few are expected, give --max_drop or --float.",
    )
