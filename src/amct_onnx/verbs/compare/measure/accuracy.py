"""Right answers of each model, those that changed, and the evaluator's sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from amct_onnx.common.arrays import Array, Int64
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from amct_onnx.verbs.compare.measure.records import MAX_RECORDS

TOP = (1, 5)
MAX_FLIPS = 100
"""Samples with a changed answer that are kept; more tell a reader nothing new."""


@dataclass
class Accuracy:
    """Of one model.

    Attributes:
        samples: measured.
        right: right answers by metric.
        gained, lost: samples that only it, or only the source, has right.
        sums: of the evaluator's metrics.
        records: what the evaluator keeps of each sample, as JSON, in the order of the data.
        size: bytes of them.
    """

    samples: int = 0
    right: dict[str, int] = field(default_factory=dict)
    gained: int = 0
    lost: int = 0
    sums: dict[str, ExactSum] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)
    size: int = 0

    def merge(self, other: Accuracy) -> None:
        """Add the batches that follow.

        Raises:
            DataError: The evaluator gave other metrics there: a mean over all samples needs each for every sample. Or
                its records become too many.
        """
        if self.samples and other.samples and (changed := sorted(self.sums.keys() ^ other.sums.keys())):
            raise DataError(
                f"The evaluator gives a metric '{changed[0]}' for some batches only. Return the same metrics always."
            )
        self.samples += other.samples
        self.gained += other.gained
        self.lost += other.lost
        for name, number in other.right.items():
            self.right[name] = self.right.get(name, 0) + number
        for name, total in other.sums.items():
            self.sums.setdefault(name, ExactSum()).merge(total)
        self.records += other.records
        self.size += sum(map(len, other.records)) + len(other.records)
        if self.size > MAX_RECORDS:
            raise DataError(
                f"The evaluator's collect() gave more than {MAX_RECORDS >> 20} MiB of records. Return less of each "
                "sample, for example the 100 best boxes."
            )


@dataclass(frozen=True)
class Flip:
    """A sample that a model answers otherwise than the source.

    Attributes:
        index: of the sample, from 0.
        label: its class.
        answers: the class of the largest score, in the order of the job's ``answering`` models, the source first.
    """

    index: int
    label: int
    answers: tuple[int, ...]


@dataclass
class Flips:
    """How many samples have a changed answer, and the first ``MAX_FLIPS`` of them in their order."""

    count: int = 0
    first: list[Flip] = field(default_factory=list)

    def merge(self, other: Flips, start: int) -> None:
        """Add the batches that follow; ``start`` is the number of samples so far."""
        self.count += other.count
        free = MAX_FLIPS - len(self.first)
        self.first += [Flip(f.index + start, f.label, f.answers) for f in other.first[:free]]


def find_flips(scores: Mapping[str, Array], labels: Array, compared: int) -> Flips:
    """The samples of one batch with changed answers.

    Args:
        scores: [samples, classes] by model, the source first.
        labels: [samples] integers.
        compared: how many models after the source may change an answer; what follows them is only told.
    """
    answers = np.stack([_ordered(v).argmax(axis=1) for v in scores.values()], axis=1)
    changed = np.flatnonzero((answers[:, 1 : compared + 1] != answers[:, :1]).any(axis=1))
    kept = changed[:MAX_FLIPS].tolist()
    return Flips(len(changed), [Flip(i, int(labels[i]), tuple(answers[i].tolist())) for i in kept])


def _ordered(scores: Array) -> Array:
    """Scores among which NaN is the smallest."""
    if scores.dtype.kind != "f" or not np.isnan(scores.min(initial=np.inf)):  # min keeps a NaN
        return scores
    return np.where(np.isnan(scores), -np.inf, scores)


def ranks(scores: Array, labels: Array) -> Int64:
    """How many classes score above each row's label; of equal scores the first class comes first, NaN comes last.

    Raises:
        DataError: A label is not a class.
    """
    classes = scores.shape[1]
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        counted = " (labels that count from 1 need 1 less)" if wrong == classes and labels.min() > 0 else ""
        raise DataError(f"A label is {wrong}; the output has the classes 0 to {classes - 1}{counted}. Correct it.")
    values = _ordered(scores)
    own = values[np.arange(len(values)), labels][:, None]
    before = np.arange(classes) < labels[:, None]
    return np.asarray(((values > own) | ((values == own) & before)).sum(axis=1), np.int64)


def is_classifier(values: Array, labels: Array | None) -> bool:
    """Whether an output holds one row of scores for each label."""
    if labels is None or labels.dtype.kind not in "iu" or values.ndim != 2:
        return False
    return bool(values.shape[0] == labels.size and values.shape[1] > 1)
