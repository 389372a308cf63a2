"""The types and ranges of a state file's fields, and what statistics must be to each other.

What is checked holds for every run: a count of a part is not above that of the whole, no sum of squares is negative,
all models were held against the same elements. So a state that was made up cannot end a run in another way than with
figures that some data could give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from amct_onnx.common.typed_json import ContentError
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.job import FAKE_QUANT, SOURCE, Job
from amct_onnx.verbs.compare.key import INPUT, OUTPUT, Key
from amct_onnx.verbs.compare.measure.accuracy import MAX_FLIPS, TOP, Accuracy, Flip, Flips
from amct_onnx.verbs.compare.measure.batch import Results
from amct_onnx.verbs.compare.measure.evaluator import LONGEST_NAME, METRIC_LIMIT
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from amct_onnx.verbs.compare.measure.input_histogram import BINS, INSIDE, OUTSIDE
from amct_onnx.verbs.compare.measure.records import unpacked
from amct_onnx.verbs.compare.measure.statistics import QuantizerStatistics, TensorStatistics

MAX_ERROR = 1.4e154
"""What float64 can square; larger errors count as not finite."""
FLOAT_SLACK = 2.0**-10
"""Relative: float32 sums of a batch err by 2^-14 at most (``statistics.ROW``)."""

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Samples = Annotated[int, Meta(ge=0, le=1 << 53)]
Sum = Annotated[str, Meta(pattern="^-?0x[0-9a-f]{1,600}$", max_length=603)]
"""An ``ExactSum``: float64 covers 2098 bits, so many numbers as there are some more."""
Label = Annotated[str, Meta(min_length=1, max_length=1 << 10)]
Metric = Annotated[str, Meta(max_length=LONGEST_NAME)]
Sums = Annotated[dict[Metric, Sum], Meta(max_length=METRIC_LIMIT)]
Settings = Annotated[dict[Label, Annotated[str, Meta(max_length=1 << 16)]], Meta(max_length=100)]


class TensorContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``TensorStatistics``."""

    count: Count
    off_by_lsb: Count
    not_finite: Count
    samples: Samples
    same_top1: Samples
    other_size: Samples
    largest: Annotated[float, Meta(ge=0, le=MAX_ERROR)]
    passed_largest: Annotated[float, Meta(ge=0, le=MAX_ERROR)]
    passed: Sum
    absolute: Sum
    square: Sum
    source_square: Sum
    square_of_other: Sum


class QuantizerContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``QuantizerStatistics``."""

    values: Count
    saturated: Count
    ties: Count
    largest_accumulator: Count
    binned: Count
    bins: Annotated[tuple[Count, ...], Meta(max_length=BINS)]


class AccuracyContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``Accuracy``."""

    samples: Samples
    right: Annotated[dict[Metric, Samples], Meta(max_length=METRIC_LIMIT)]
    gained: Samples
    lost: Samples
    sums: Sums
    records: str = ""


class FlipsContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``Flips``: each of the first samples as index, label, answers."""

    count: Samples
    first: Annotated[list[tuple[Samples, Samples, list[Samples]]], Meta(max_length=MAX_FLIPS)]


class StateContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of the file but its checksum."""

    schema_version: Count
    job: Label
    settings: Settings
    data: Annotated[str, Meta(pattern="^[0-9a-f]{32}-[0-9]{1,16}-[0-9]{1,16}$", max_length=66)]
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    batches: Samples
    samples: Samples
    tensors: list[tuple[Label, Label, TensorContent]]
    quantizers: list[tuple[Samples, Label, QuantizerContent]]
    accuracy: list[tuple[Label, AccuracyContent]]
    flips: FlipsContent
    run: Annotated[str, Meta(max_length=1 << 10)] = ""


class Header(msgspec.Struct, frozen=True):
    """What tells whether the rest is as here, and of this run."""

    schema_version: Count
    checksum: str
    job: Label
    settings: Settings
    run: Annotated[str, Meta(max_length=1 << 10)] = ""


def results_of(content: StateContent, job: Job) -> Results:
    """The results of a run of this job.

    Raises:
        ContentError: They cannot be; the text names the field.
    """
    made = Results(content.batches, content.samples)
    if content.data.partition("-")[2] != f"{content.batches}-{content.samples}":
        raise ContentError("$.batches, $.samples: are not the numbers in $.data")
    _only_once("tensors", [(k, m) for k, m, _ in content.tensors])
    _only_once("quantizers", [(i, m) for i, m, _ in content.quantizers])
    _only_once("accuracy", [m for m, _ in content.accuracy])
    for number, (text, model, tensor) in enumerate(content.tensors):
        key = _key(text, f"$.tensors[{number}][0]")
        made.tensors[key, model] = _tensor(tensor, f"$.tensors[{number}][2]", key, made.batches)
    for number, (layer, model, quantizer) in enumerate(content.quantizers):
        made.quantizers[layer, model] = _quantizer(quantizer, f"$.quantizers[{number}][2]")
    for number, (model, accuracy) in enumerate(content.accuracy):
        made.accuracy[model] = _accuracy(accuracy, f"$.accuracy[{number}][1]", made.samples, job)
    _check_models(made, job)
    _check_changes(made.accuracy)
    made.flips = _flips(content.flips, made, job)
    return made


def _only_once(field: str, keys: list[Any]) -> None:
    if len(set(keys)) < len(keys):
        raise ContentError(f"$.{field}: tells of something twice")


def _hold(place: str, conditions: Iterable[tuple[str, bool]]) -> None:
    """Name the first field whose condition does not hold."""
    for field, holds in conditions:
        if not holds:
            raise ContentError(f"{place}.{field}: contradicts the other figures")


def _key(text: str, place: str) -> Key:
    try:
        return Key.from_text(text)
    except ValueError as error:
        raise ContentError(f"{place}: {error}") from error


def _sum(text: str, place: str) -> ExactSum:
    made = ExactSum.from_text(text)
    if not math.isfinite(made.value):
        raise ContentError(f"{place}: is larger than float64 holds")
    return made


SUMS = ("passed", "absolute", "square", "source_square", "square_of_other")
"""Of a ``TensorStatistics``."""


def _tensor(content: TensorContent, place: str, key: Key, batches: int) -> TensorStatistics:
    values = msgspec.structs.asdict(content)
    sums = {n: _sum(values[n], f"{place}.{n}") for n in SUMS}
    made = TensorStatistics(**{**values, **sums})
    compared, top = made.compared, made.largest
    absolute, square = sums["absolute"].value, sums["square"].value
    # of a layer's input the mean alone is taken, unless something was not finite
    mean_alone = key.kind == INPUT and top == square == 0
    more, less = 1 + FLOAT_SLACK, 1 - FLOAT_SLACK
    lengths = [math.sqrt(max(0.0, sums[n].value)) for n in ("square", "source_square", "square_of_other")]
    _hold(
        place,
        (
            *((n, s.units >= 0) for n, s in sums.items()),
            ("not_finite", made.not_finite <= made.count),
            ("off_by_lsb", made.off_by_lsb <= compared and (top > 0 or not made.off_by_lsb)),
            ("passed_largest", made.passed_largest <= top),
            ("passed", sums["passed"].value <= absolute * more),
            ("other_size", made.other_size <= batches and (made.count == 0 or made.other_size < batches)),
            ("samples", made.samples <= made.count),  # rows, which need not be samples
            ("same_top1", made.same_top1 <= made.samples),
            ("absolute", mean_alone or top * less <= absolute <= compared * top * more),
            ("square", mean_alone or top * top * less * less <= square <= compared * top * top * more * more),
            ("absolute", mean_alone or absolute <= math.sqrt(max(0, compared)) * lengths[0] * more),
            # of |b - a|, |a| and |b| none is longer than the two others
            ("square_of_other", mean_alone or 2 * max(lengths) <= sum(lengths) * more),
        ),
    )
    return made


def _quantizer(content: QuantizerContent, place: str) -> QuantizerStatistics:
    made = QuantizerStatistics(**msgspec.structs.asdict(content))
    # what is in no bin is NaN, which saturates
    numbers, inside, kept = sum(made.bins), sum(made.bins[OUTSIDE : OUTSIDE + INSIDE]), made.values - made.saturated
    _hold(
        place,
        (
            ("saturated", made.saturated <= made.values),
            ("ties", made.ties <= made.values),
            ("bins", len(made.bins) in (0, BINS)),
            ("binned", (made.binned > 0) <= bool(made.bins) and numbers <= made.binned <= made.values),
            ("bins", inside <= kept and numbers - inside <= made.saturated),
            ("bins", not made.bins or made.binned < made.values or inside == kept),
        ),
    )
    return made


def _accuracy(content: AccuracyContent, place: str, samples: int, job: Job) -> Accuracy:
    sums = {n: _sum(s, f"{place}.sums.{n}") for n, s in content.sums.items()}
    known = [f"top-{t}" for t in TOP]
    _hold(
        place,
        (
            ("samples", content.samples <= samples),
            ("right", all(n in known and v <= content.samples for n, v in content.right.items())),
            ("right", content.right.get("top-1", 0) <= content.right.get("top-5", content.samples)),
            ("gained", content.gained + content.lost <= content.samples),
            ("sums", bool(job.evaluator.file) or not sums),
        ),
    )
    try:
        records = unpacked(content.records)
    except ValueError as error:
        raise ContentError(f"{place}.records: {error}") from error
    _hold(place, (("records", len(records) in ((0, samples) if job.evaluator.file else (0,))),))
    size = sum(map(len, records)) + len(records)
    return Accuracy(content.samples, dict(content.right), content.gained, content.lost, sums, records, size)


def _flips(content: FlipsContent, made: Results, job: Job) -> Flips:
    indices = [index for index, _, _ in content.first]
    compared = len(job.models)
    changed = [a.gained + a.lost for m, a in made.accuracy.items() if m in job.models]
    classified = any(a.right for a in made.accuracy.values())
    _hold(
        "$.flips",
        (
            ("count", max(changed, default=0) <= content.count <= (made.samples if classified else 0)),
            ("first", len(indices) == min(content.count, MAX_FLIPS)),
            ("first", indices == sorted(set(indices)) and all(i < made.samples for i in indices)),
            ("first", all(len(answers) == len(job.answering) for _, _, answers in content.first)),
            ("first", all(len(set(answers[: compared + 1])) > 1 for _, _, answers in content.first)),
        ),
    )
    return Flips(content.count, [Flip(index, label, tuple(answers)) for index, label, answers in content.first])


def _check_models(made: Results, job: Job) -> None:
    """All that is compared has figures, and nothing else; all models were held against the same elements."""
    wanted = {(t.key, m) for t in job.tracked for m in t.others}
    beside = {(t.key, FLOAT) for t in job.tracked if t.key.kind == OUTPUT and job.float_model is not None}
    if set(made.tensors) - beside != (wanted if made.batches else set()):
        raise ContentError("$.tensors: are not those of the models")
    counts: dict[Key, tuple[int, int]] = {}
    squares: dict[Key, ExactSum] = {}
    for (key, model), tensor in made.tensors.items():
        if tensor.other_size:  # of some batches only
            continue
        if counts.setdefault(key, (tensor.count, tensor.samples)) != (tensor.count, tensor.samples):
            raise ContentError(f"$.tensors: '{key.to_text()}' has another count in '{model}'")
        same = key.kind == INPUT or tensor.not_finite  # of some elements or batches only
        if not same and squares.setdefault(key, tensor.source_square) != tensor.source_square:
            raise ContentError(f"$.tensors: the source's '{key.to_text()}' is another beside '{model}'")
    models = (SOURCE, *job.models)
    known = {SOURCE: {q.layer for q in job.quantizers}}
    known |= {m: set(range(len(job.layer_names))) for m in models[1:]}
    found = {m: {i for i, model in made.quantizers if model == m} for m in {*models, *(m for _, m in made.quantizers)}}
    complete = found[SOURCE] == (known[SOURCE] if made.batches else set())
    alike = len({frozenset(found[m]) for m in models if m not in (SOURCE, FAKE_QUANT)}) <= 1
    complete &= all(found[m] >= found[SOURCE] for m in models if m not in (SOURCE, FAKE_QUANT))
    if not complete or not alike or any(layers - known.get(m, set()) for m, layers in found.items()):
        raise ContentError("$.quantizers: are not those of the models")
    if any(q.ties or q.largest_accumulator for (_, m), q in made.quantizers.items() if m == SOURCE):
        raise ContentError(f"$.quantizers: '{SOURCE}' has ties or accumulators")
    if any(bool(q.bins) != (m == SOURCE) for (_, m), q in made.quantizers.items()):
        raise ContentError(f"$.quantizers: bins are not those of '{SOURCE}' alone")
    if set(made.accuracy) not in (set(), set(job.answering)):
        raise ContentError("$.accuracy: is not that of all models")


def _check_changes(accuracy: Mapping[str, Accuracy]) -> None:
    """Answers that a model alone has right, less those that the source alone has, are the difference of both."""
    source = accuracy.get(SOURCE)
    if source is None:
        return
    before = source.right.get("top-1", 0)
    for model, found in accuracy.items():
        alike = (found.samples, found.right.keys(), found.sums.keys(), len(found.records))
        if alike != (source.samples, source.right.keys(), source.sums.keys(), len(source.records)):
            raise ContentError(f"$.accuracy: '{model}' has other metrics or samples than '{SOURCE}'")
        changed = found.gained <= found.samples - before and found.lost <= before
        if not changed or found.right.get("top-1", 0) - before != found.gained - found.lost:
            raise ContentError(f"$.accuracy: 'gained' or 'lost' of '{model}' contradicts its right answers")
