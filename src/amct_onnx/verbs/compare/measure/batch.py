"""Run one batch through all models and take its statistics; the unit of work of every way of running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from amct_onnx.common.arrays import Array, Int64
from amct_onnx.device.session import COUNTS, DeploySession
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.job import FAKE_QUANT, SOURCE, Job, deploy_key
from amct_onnx.verbs.compare.key import INPUT, OUTPUT, Key
from amct_onnx.verbs.compare.measure.evaluator import Evaluator
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from amct_onnx.verbs.compare.measure.sessions import open_reference, pinned_options, run_named
from amct_onnx.verbs.compare.measure.statistics import (
    QuantizerStatistics,
    Scratch,
    SourceTensor,
    TensorStatistics,
    as_float,
)

TOP = (1, 5)


@dataclass
class Accuracy:
    """Of one model: right answers, the samples that only it or only the source has right, the evaluator's sums."""

    samples: int = 0
    right: dict[str, int] = field(default_factory=dict)
    gained: int = 0
    lost: int = 0
    sums: dict[str, ExactSum] = field(default_factory=dict)

    def merge(self, other: Accuracy) -> None:
        """Add other batches.

        Raises:
            DataError: The evaluator gave other metrics there: a mean over all samples needs each for every sample.
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


@dataclass
class Results:
    """Statistics of any set of batches.

    Attributes:
        batches: how many.
        samples: in them.
        tensors: by (key of ``Tracked``, model).
        quantizers: by (number of the layer, model); the source's have no ties.
        accuracy: by model.
    """

    batches: int = 0
    samples: int = 0
    tensors: dict[tuple[Key, str], TensorStatistics] = field(default_factory=dict)
    quantizers: dict[tuple[int, str], QuantizerStatistics] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)

    def merge(self, other: Results) -> None:
        """Add other batches."""
        self.batches += other.batches
        self.samples += other.samples
        for key, tensor in other.tensors.items():
            self.tensors.setdefault(key, TensorStatistics()).merge(tensor)
        for place, quantizer in other.quantizers.items():
            self.quantizers.setdefault(place, QuantizerStatistics()).merge(quantizer)
        for model, accuracy in other.accuracy.items():
            self.accuracy.setdefault(model, Accuracy()).merge(accuracy)


@dataclass(frozen=True)
class Batch:
    """A number, feeds, how many samples they hold, and their labels."""

    number: int
    feeds: dict[str, Array]
    samples: int
    labels: Array | None = None


class Runner:
    """Holds the sessions of a job; one for each process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.source = open_reference(job.source, job.threads)
        self.fake_quant = open_reference(job.fake_quant, job.threads)
        options = pinned_options(job.threads)
        self.deploy = {
            deploy_key(d): DeploySession(job.deploy.content, options, device=d, collect=COUNTS) for d in job.devices
        }
        self._evaluator = Evaluator(job.evaluator, job.evaluator_file) if job.evaluator else None
        self._scratch = Scratch()
        self._layers = {name: index for index, name in enumerate(job.layer_names)}

    def tensors(self, batch: Batch) -> dict[str, dict[str, Array]]:
        """Every tracked tensor, by model and name in that model."""
        found = {}
        try:
            found[SOURCE] = run_named(self.source, list(dict.fromkeys(t.source for t in self.job.tracked)), batch.feeds)
            for key in self.job.models:
                session = self.fake_quant if key == FAKE_QUANT else self.deploy[key]
                names = list(dict.fromkeys(t.others[key] for t in self.job.tracked))
                found[key] = run_named(session, names, batch.feeds)
        except Exception as error:  # onnxruntime's classes share no base
            raise _cannot_run(batch, error) from error
        return found

    def classifies(self, batch: Batch) -> bool:
        """Whether an output of the source holds one row of scores for each label of the batch."""
        names = [t.source for t in self.job.tracked if t.key.kind == OUTPUT]
        return any(is_classifier(v, batch) for v in self._outputs(names, batch).values())

    def _outputs(self, names: list[str], batch: Batch) -> dict[str, Array]:
        try:
            return run_named(self.source, names, batch.feeds)
        except Exception as error:  # onnxruntime's classes share no base
            raise _cannot_run(batch, error) from error

    def run(self, batch: Batch) -> Results:
        """The statistics of one batch; nothing else of it is kept."""
        for session in self.deploy.values():
            session.clear_counts()
        found = self.tensors(batch)
        made = Results(1, batch.samples)
        ranges: dict[str, tuple[float, float]] = {}
        for tracked in self.job.tracked:
            values = found[SOURCE][tracked.source]
            if tracked.shift:
                values = values.astype(np.int32) - tracked.shift
            source = SourceTensor(values, self._scratch)
            for key, name in tracked.others.items():
                other = found[key][name]
                if other.size != values.size:
                    raise DataError(
                        f"Tensor '{tracked.source}' has {values.size} elements in the source, '{name}' {other.size} in "
                        f"{key}: the models do not belong together. Convert the source again."
                    )
                if tracked.key.kind == INPUT:
                    made.tensors[tracked.key, key] = source.compare_mean(other)
                    continue
                output = tracked.key.kind == OUTPUT
                made.tensors[tracked.key, key] = source.compare(other, tracked.lsb, output=output)
        for quantizer in self.job.quantizers:
            values = as_float(found[SOURCE][quantizer.tensor])
            if quantizer.tensor not in ranges:
                ranges[quantizer.tensor] = (float(values.min(initial=np.inf)), float(values.max(initial=-np.inf)))
            low, high = ranges[quantizer.tensor]
            clipped = 0
            if not (low >= quantizer.low and high < quantizer.high):  # NaN counts as clipped
                inside = (values >= np.float32(quantizer.low)) & (values < np.float32(quantizer.high))
                clipped = values.size - int(np.count_nonzero(inside))
            made.quantizers[quantizer.layer, SOURCE] = QuantizerStatistics(values.size, clipped)
        for key, session in self.deploy.items():
            for count in session.counts():
                if count.name in self._layers:
                    made.quantizers[self._layers[count.name], key] = QuantizerStatistics(
                        count.values or 0, count.saturated or 0, count.ties or 0, count.largest_accumulator
                    )
        self._measure(batch, found, made)
        return made

    def _measure(self, batch: Batch, found: Mapping[str, Mapping[str, Array]], made: Results) -> None:
        if batch.labels is None and self._evaluator is None:
            return
        outputs = [t for t in self.job.tracked if t.key.kind == OUTPUT]
        answers: dict[str, dict[str, Array]] = {SOURCE: {t.source: found[SOURCE][t.source] for t in outputs}}
        for key in self.job.models:
            answers[key] = {t.source: found[key][t.others[key]] for t in outputs}
        right_source: Array | None = None
        for key, named in answers.items():
            accuracy = made.accuracy.setdefault(key, Accuracy(batch.samples))
            if self._evaluator is not None:
                for name, numbers in self._evaluator.evaluate(named, batch.feeds, batch.labels, batch.samples).items():
                    accuracy.sums[name] = ExactSum()
                    accuracy.sums[name].add_all(numbers.tolist())
            scores = next((v for v in named.values() if is_classifier(v, batch)), None)
            if scores is None or batch.labels is None:
                continue
            rank = ranks(scores, batch.labels.reshape(-1))
            for top in TOP:
                if scores.shape[1] > top:
                    accuracy.right[f"top-{top}"] = int(np.count_nonzero(rank < top))
            right = rank == 0
            if right_source is None:
                right_source = right
            accuracy.gained = int(np.count_nonzero(right & ~right_source))
            accuracy.lost = int(np.count_nonzero(right_source & ~right))


def _cannot_run(batch: Batch, error: Exception) -> DataError:
    return DataError(f"Batch {batch.number} cannot be run ({error}). Check the shapes of the data.")


def ranks(scores: Array, labels: Array) -> Int64:
    """How many classes score above each row's label; of equal scores the first class comes first, NaN comes last.

    Raises:
        DataError: A label is no class.
    """
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= scores.shape[1]:
        wrong = labels[(labels < 0) | (labels >= scores.shape[1])][0]
        raise DataError(f"A label is {wrong}; the output has the classes 0 to {scores.shape[1] - 1}. Correct it.")
    values = np.where(np.isnan(scores), -np.inf, scores) if scores.dtype.kind == "f" else scores
    own = np.take_along_axis(values, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    return np.asarray((values > own).sum(axis=1) + ((values == own) & before).sum(axis=1), np.int64)


def is_classifier(values: Array, batch: Batch) -> bool:
    """Whether an output holds one row of scores for each label."""
    labels = batch.labels
    if labels is None or labels.dtype.kind not in "iu" or values.ndim != 2:
        return False
    return bool(values.shape[0] == labels.size and values.shape[1] > 1)
