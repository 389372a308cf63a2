"""Run one batch through all models and take its statistics; the unit of work of every way of running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.device.session import COUNTS, DeploySession
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.float_model import FLOAT, feeds_of
from amct_onnx.verbs.compare.job import FAKE_QUANT, SOURCE, Job, deploy_key
from amct_onnx.verbs.compare.key import INPUT, OUTPUT, Key
from amct_onnx.verbs.compare.measure.accuracy import TOP, Accuracy, Flips, find_flips, is_classifier, ranks
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from amct_onnx.verbs.compare.measure.input_histogram import EVERY, input_bins, saturated
from amct_onnx.verbs.compare.measure.other_sizes import names_sized_by_numbers
from amct_onnx.verbs.compare.measure.sessions import open_reference, pinned_options, run_named
from amct_onnx.verbs.compare.measure.statistics import (
    QuantizerStatistics,
    Scratch,
    SourceTensor,
    TensorStatistics,
    as_float,
)


@dataclass
class Results:
    """Statistics of any set of batches.

    Attributes:
        batches: how many.
        samples: in them.
        tensors: by (key of ``Tracked``, model).
        quantizers: by (number of the layer, model); the source's have no ties, the others' no bins.
        accuracy: by model.
        flips: samples with changed answers.
    """

    batches: int = 0
    samples: int = 0
    tensors: dict[tuple[Key, str], TensorStatistics] = field(default_factory=dict)
    quantizers: dict[tuple[int, str], QuantizerStatistics] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    flips: Flips = field(default_factory=Flips)

    def merge(self, other: Results) -> None:
        """Add the batches that follow."""
        self.flips.merge(other.flips, self.samples)
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
    """Holds the sessions of a job; one for each process.

    Args:
        job: see ``make_job``.
        stage: is told which model is opened.
    """

    def __init__(self, job: Job, stage: Callable[[str], None] = lambda what: None) -> None:
        self.job = job
        stage(f"opening the {SOURCE}")
        self.source = open_reference(job.source, job.threads)
        stage(f"opening the {FAKE_QUANT} model")
        self.fake_quant = None if job.cannot_run(FAKE_QUANT) else open_reference(job.fake_quant, job.threads)
        self.float_model = open_reference(job.float_model.model, job.threads) if job.float_model is not None else None
        stage("opening the deploy model")
        options = pinned_options(job.threads)
        self.deploy = {
            deploy_key(d): DeploySession(job.deploy.content, options, device=d, collect=COUNTS)
            for d in job.devices
            if not job.cannot_run(deploy_key(d))
        }
        self._evaluator = job.evaluator.open()
        self._scratch = Scratch()
        self._layers = {name: index for index, name in enumerate(job.layer_names)}

    def tensors(self, batch: Batch) -> dict[str, dict[str, Array]]:
        """Every tracked tensor, by model and name in that model."""
        found = {}
        try:
            found[SOURCE] = run_named(self.source, list(dict.fromkeys(t.source for t in self.job.tracked)), batch.feeds)
        except Exception as error:  # onnxruntime's classes share no base
            raise _cannot_run(batch, error) from error
        for key in self.job.models:
            session = self.fake_quant if key == FAKE_QUANT else self.deploy[key]
            names = list(dict.fromkeys(t.others[key] for t in self.job.tracked))
            try:
                found[key] = run_named(session, names, batch.feeds)
            except Exception as error:
                raise _cannot_run(batch, error, key) from error
        return found

    def _of_float_model(self, batch: Batch) -> dict[str, Array]:
        """The float model's outputs under the names of the source's."""
        model = self.job.float_model
        if model is None or self.float_model is None:
            return {}
        try:
            found = run_named(self.float_model, model.outputs, feeds_of(model, batch.feeds))
        except Exception as error:  # onnxruntime's classes share no base
            raise DataError(
                f"{model.model.label}: the float model cannot run batch {batch.number} ({error}). Give one that takes "
                "the source's shapes, or the --batch_size that it takes."
            ) from error
        return {name: found[own] for name, own in zip(self.job.outputs, model.outputs, strict=True)}

    def classifies(self, batch: Batch) -> bool:
        """Whether an output of the source holds one row of scores for each label of the batch."""
        names = [t.source for t in self.job.tracked if t.key.kind == OUTPUT]
        return any(is_classifier(v, batch.labels) for v in self.outputs(names, batch).values())

    def outputs(self, names: list[str], batch: Batch) -> dict[str, Array]:
        """Tensors of the source."""
        try:
            return run_named(self.source, names, batch.feeds)
        except Exception as error:  # onnxruntime's classes share no base
            raise _cannot_run(batch, error) from error

    def run(self, batch: Batch) -> Results:
        """The statistics of one batch; nothing else of it is kept."""
        for session in self.deploy.values():
            session.clear_counts()
        return self.statistics(batch, self.tensors(batch))

    def statistics(self, batch: Batch, tensors: Mapping[str, dict[str, Array]]) -> Results:
        """Of the only batch that was run since the counts were cleared, of which ``tensors`` are known."""
        found = {**tensors, FLOAT: self._of_float_model(batch)}
        made = Results(1, batch.samples)
        for tracked in self.job.tracked:
            values = found[SOURCE][tracked.source]
            if tracked.shift:
                values = values.astype(np.int32) - tracked.shift
            source = SourceTensor(values, self._scratch)
            others = tracked.others
            if tracked.key.kind == OUTPUT and _both_float(values, found[FLOAT].get(tracked.source)):
                others = {**others, FLOAT: tracked.source}
            for key, name in others.items():
                other = found[key][name]
                if other.size != values.size:
                    self._refuse_size(tracked.source, values.size, f"'{name}' {other.size} in {key}")
                    made.tensors[tracked.key, key] = TensorStatistics(other_size=1)
                    continue
                if tracked.key.kind == INPUT:
                    made.tensors[tracked.key, key] = source.compare_mean(other)
                    continue
                output = tracked.key.kind == OUTPUT
                made.tensors[tracked.key, key] = source.compare(
                    other, tracked.lsb, output=output, passage=tracked.passage
                )
        inputs: dict[tuple[str, float, int], QuantizerStatistics] = {}
        for quantizer in self.job.quantizers:
            same = (quantizer.tensor, quantizer.scale, quantizer.offset)
            if same not in inputs:
                values = as_float(found[SOURCE][quantizer.tensor])
                inputs[same] = QuantizerStatistics(values.size, sum(saturated(values, quantizer)))
                if batch.number % EVERY == 0:
                    inputs[same].binned, inputs[same].bins = values.size, input_bins(values, quantizer)
            met = inputs[same]
            made.quantizers[quantizer.layer, SOURCE] = QuantizerStatistics(
                met.values, met.saturated, binned=met.binned, bins=met.bins
            )
        for key, session in self.deploy.items():
            for count in session.counts():
                if count.name in self._layers:
                    made.quantizers[self._layers[count.name], key] = QuantizerStatistics(
                        count.values or 0, count.saturated or 0, count.ties or 0, count.largest_accumulator
                    )
        self._measure(batch, found, made)
        return made

    @cached_property
    def _by_numbers(self) -> set[str]:
        return names_sized_by_numbers(self.job.source)

    def _refuse_size(self, tensor: str, elements: int, other: str) -> None:
        """Where numbers decide how many elements there are, another size does not mean another model."""
        if tensor not in self._by_numbers:
            raise DataError(
                f"Tensor '{tensor}' has {counted(elements, 'element')} in the source, {other}: the models do not "
                "belong together. Convert the source again."
            )

    def _measure(self, batch: Batch, found: Mapping[str, Mapping[str, Array]], made: Results) -> None:
        if batch.labels is None and self._evaluator is None:
            return
        outputs = [t for t in self.job.tracked if t.key.kind == OUTPUT]
        answers: dict[str, dict[str, Array]] = {SOURCE: {t.source: found[SOURCE][t.source] for t in outputs}}
        for key in self.job.models:
            answers[key] = {t.source: found[key][t.others[key]] for t in outputs}
        if self.job.float_model is not None:
            answers[FLOAT] = {t.source: found[FLOAT][t.source] for t in outputs}
        classified: dict[str, Array] = {}
        for key, named in answers.items():
            accuracy = made.accuracy.setdefault(key, Accuracy(batch.samples))
            if self._evaluator is not None:
                for name, numbers in self._evaluator.evaluate(named, batch.feeds, batch.labels, batch.samples).items():
                    accuracy.sums[name] = ExactSum()
                    accuracy.sums[name].add_all(numbers.tolist())
                accuracy.records = self._evaluator.collect(named, batch.feeds, batch.labels, batch.samples)
            scores = next((v for v in named.values() if is_classifier(v, batch.labels)), None)
            if scores is not None:
                classified[key] = scores
        if batch.labels is not None and len(classified) == len(answers):
            self._classify(batch.labels.reshape(-1), classified, made)

    def _classify(self, labels: Array, scores: Mapping[str, Array], made: Results) -> None:
        """Right and changed answers of one batch."""
        right_source: Array | None = None
        for key, values in scores.items():
            rank, accuracy = ranks(values, labels), made.accuracy[key]
            for top in TOP:
                if values.shape[1] > top:
                    accuracy.right[f"top-{top}"] = int(np.count_nonzero(rank < top))
            right = rank == 0
            if right_source is None:
                right_source = right
            accuracy.gained = int(np.count_nonzero(right & ~right_source))
            accuracy.lost = int(np.count_nonzero(right_source & ~right))
        made.flips = find_flips(scores, labels, len(self.job.models))


def _both_float(values: Array, other: Array | None) -> bool:
    """Whether two tensors hold numbers of one kind; a source may give the integers that a quantizer makes."""
    return other is not None and values.dtype.kind == other.dtype.kind == "f"


def _cannot_run(batch: Batch, error: Exception, model: str = "") -> DataError:
    """Of the source; of a model, when the source ran the batch: then the data are not at fault."""
    if model:
        return DataError(
            f"The source runs batch {batch.number}, {model} does not ({error}). Give the --batch_size that this model "
            "fixes, else convert the source again."
        )
    return DataError(
        f"Batch {batch.number} cannot be run ({error}). Check the shapes of the data. "
        "Give the batch size, when the source fixes it."
    )
