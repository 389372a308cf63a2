"""Whether samples or labels look as if they were prepared in another way than the source takes them.

Ranges tell without labels: the input's against that of the first quantizer. With labels the source itself is asked:
some samples are fed as another preparation would give them, and only what chance does not explain is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.explain.chance import by_chance
from amct_onnx.verbs.compare.explain.input_range import BRIGHT, PIXELS, first_quantizer, outside, range_hint
from amct_onnx.verbs.compare.job import SOURCE, Job
from amct_onnx.verbs.compare.key import OUTPUT
from amct_onnx.verbs.compare.measure.accuracy import is_classifier, ranks
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.measure.sessions import run_named
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.figures import figure

ROUGHER = 1.5
"""Neighbours that differ so many times more than in the other layout are no neighbours."""
MOST_SAMPLES = 128
FEWEST_SAMPLES = 32
PART = 8
"""Samples tried: one in so many, within these bounds, so that the trial costs little beside the run."""
MOST_BYTES = 256 << 20
"""Memory of the samples tried."""
SIGNIFICANT = 1e-4
"""Probability by chance below which a trial counts; of ten trials, one in a thousand data sets then shows one."""
FEWEST_CHANGES = 15
"""Changed answers below which no split has so small a probability."""
NEAR = 0.01
"""Rounding of a normalisation, in units of white."""
UNTRIED = "Whether the data were prepared in another way was not tried"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, the usual ones of images (RGB)."""


@dataclass(frozen=True)
class Hints:
    """What looks wrong about the data.

    Attributes:
        prepared: signs of another preparation.
        outside: what the first quantizer cuts off, or "".
        untried: why other preparations were not tried, or "".
    """

    prepared: tuple[str, ...]
    outside: str
    untried: str = ""


def preprocessing_hints(
    job: Job,
    layers: Sequence[Paired],
    results: Results,
    runner: Runner,
    first: Batch,
    batches: Callable[[], Iterable[Batch]],
) -> Hints:
    """What looks wrong, with its figures; nothing for healthy data.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        results: of all batches.
        runner: with the source's session.
        first: the first batch, of which ranges are taken.
        batches: gives the data once more from their beginning; called only when the source errs often enough.
    """
    tried = untried = ""
    accuracy = results.accuracy.get(SOURCE)
    if accuracy is not None and "top-1" in accuracy.right:
        samples = min(MOST_SAMPLES, max(FEWEST_SAMPLES, accuracy.samples // PART))
        wrong = 1 - accuracy.right["top-1"] / accuracy.samples
        if wrong * min(samples, accuracy.samples) >= FEWEST_CHANGES:
            tried, untried = _read_and_tried(job, runner, batches, samples)
    quantizer = first_quantizer(job, runner, first)
    said = [tried] if tried else [range_hint(quantizer, first.samples), _layout_hint(first)]
    return Hints(tuple(filter(None, said)), outside(quantizer, layers, results), untried)


def _read_and_tried(job: Job, runner: Runner, batches: Callable[[], Iterable[Batch]], samples: int) -> tuple[str, str]:
    """What was found, and why nothing was tried; data that can be read once only cost the trial, not the report."""
    try:
        some = _some(batches(), samples)
    except DataError as error:
        return "", f"{UNTRIED}: they cannot be read again ({error})"
    return (_tried(job, runner, some), "") if some else ("", f"{UNTRIED}: read again, they hold no samples.")


def _layout_hint(batch: Batch) -> str:
    """Images whose numbers were reshaped where they had to be transposed, told by neighbours that are none."""
    found = _image(batch)
    if found is None or batch.samples * found[1].shape[0] == 0:
        return ""
    name, values = found
    axis = _channels(values)
    if axis is None or not np.isfinite(values).all():
        return ""
    as_fed, other = (_roughness(v, axis) for v in (values, _other_layout(values, axis)))
    rougher = np.count_nonzero(as_fed > ROUGHER * other)
    if np.median(as_fed) <= ROUGHER * np.median(other) or rougher < 0.9 * len(values) or len(values) < 4:
        return ""
    mine, theirs = ("NCHW", "NHWC") if axis == 1 else ("NHWC", "NCHW")
    return (
        f"Images of input '{name}' look like {theirs} that was reshaped to {mine}: neighbouring pixels differ by "
        f"{figure(float(np.median(as_fed)), 3)}, read as {theirs} by {figure(float(np.median(other)), 3)} (medians of "
        f"{counted(len(values), 'image')}). Transpose the axes instead."
    )


def _roughness(values: Array, axis: int) -> Array:
    """Mean absolute difference of neighbours along height and width, for each image."""
    wide = np.moveaxis(values, axis, 1).astype(np.float32)
    parts = [np.abs(np.diff(wide, axis=a)).mean(axis=(1, 2, 3)) for a in (2, 3)]
    return np.asarray(sum(parts) / 2)


def _image(batch: Batch) -> tuple[str, Array] | None:
    """The only float input of four axes."""
    found = [(n, v) for n, v in batch.feeds.items() if v.dtype.kind == "f" and v.ndim == 4]
    return found[0] if len(found) == 1 and min(found[0][1].shape) > 0 else None


def _channels(values: Array) -> int | None:
    """The axis of three channels: the second, else the last."""
    if min(values.shape[1:]) < 3:
        return None
    return next((a for a in (1, 3) if values.shape[a] == 3 and values.shape[4 - a] > 3), None)


def _other_layout(values: Array, axis: int) -> Array:
    """The numbers in their order, read as the other layout and transposed into this one."""
    if axis == 1:
        n, c, h, w = values.shape
        return np.moveaxis(values.reshape(n, h, w, c), 3, 1)
    n, h, w, c = values.shape
    return np.moveaxis(values.reshape(n, c, h, w), 1, 3)


@dataclass
class _Trial:
    """One other preparation: what it makes of the images or the labels, and how many answers it changes."""

    text: str
    images: Callable[[Array], Array] | None = None
    labels: int = 0
    right: int = 0
    gained: int = 0
    lost: int = 0
    given_up: bool = False


def _tried(job: Job, runner: Runner, batches: Sequence[Batch]) -> str:
    """The preparation with the most right answers, when chance does not explain them; else ""."""
    trials = [
        _Trial("with labels less 1: do the labels count from 1?", labels=-1),
        _Trial("with labels plus 1: does the model have one more class in front (background)?", labels=1),
        *_of_images(batches[0]),
    ]
    names = [t.source for t in job.tracked if t.key.kind == OUTPUT]
    before = samples = 0
    for batch in batches:
        labels = batch.labels
        scores = _scores(runner, names, batch)
        if labels is None or scores is None:
            return ""
        labels = labels.reshape(-1)
        own = ranks(scores, labels) == 0
        before, samples = before + int(own.sum()), samples + len(own)
        for trial in trials:
            if not trial.given_up:
                _try(trial, runner, names, batch, scores, own)
                trial.given_up |= samples >= FEWEST_SAMPLES and trial.gained <= trial.lost
    best = max(trials, key=lambda t: 0 if t.given_up else t.right)
    chance = by_chance(best.lost, best.gained)
    if best.given_up or best.gained <= best.lost or chance >= SIGNIFICANT:
        return ""
    how, _, question = best.text.partition(": ")
    figures = f"{best.right} {'is' if best.right == 1 else 'are'} right {how}, {before} as they are (p = {chance:.1g})"
    return f"Of the first {counted(samples, 'sample')} {figures}: {question}"


def _try(trial: _Trial, runner: Runner, names: list[str], batch: Batch, scores: Array, own: Array) -> None:
    labels = np.asarray(batch.labels).reshape(-1).astype(np.int64) + trial.labels
    found: Array | None = scores
    if trial.images is not None:
        name, values = _image(batch) or ("", np.empty(0))
        changed = np.ascontiguousarray(trial.images(values), values.dtype)
        found = _scores(runner, names, Batch(batch.number, {**batch.feeds, name: changed}, batch.samples, batch.labels))
    if found is None:
        trial.given_up = True
        return
    inside = (labels >= 0) & (labels < found.shape[1])
    right = inside & (ranks(found, np.where(inside, labels, 0)) == 0)
    trial.right += int(right.sum())
    trial.gained += int((right & ~own).sum())
    trial.lost += int((own & ~right).sum())


def _of_images(batch: Batch) -> list[_Trial]:
    """The preparations that the first batch leaves possible."""
    found = _image(batch)
    if found is None:
        return []
    low, high = float(found[1].min()), float(found[1].max())
    axis = _channels(found[1])
    trials = []
    if 1 < high <= PIXELS and low >= 0:
        limit = PIXELS if high >= BRIGHT else high
        what = "pixels" if high >= BRIGHT else f"numbers of 0 to {limit:g}"
        trials.append(_Trial(f"divided by {limit:g}: were {what} not scaled (--image_scale)?", lambda v: v / limit))
    if high <= 1 and low >= 0:
        trials.append(_Trial("times 255: does the model take pixels of 0 to 255?", lambda v: v * PIXELS))
        trials.append(
            _Trial(
                "as (pixel - 0.5) / 0.5: was the normalisation left out (--image_mean, --image_std)?",
                lambda v: (v - 0.5) / 0.5,
            )
        )
    if low < 0:
        trials += _taken_back(found[1], axis)
    if axis is not None:
        shape = [3 if a == axis else 1 for a in range(4)]
        mean, std = (np.array(x, np.float32).reshape(shape) for x in (MEAN, STD))
        if high <= PIXELS and low >= 0:
            scale = 1.0 if high <= 1 else PIXELS
            trials.append(
                _Trial(
                    "normalised with the mean and std of ImageNet: was the normalisation left out (--image_mean, "
                    "--image_std)?",
                    lambda v: (v / scale - mean) / std,
                )
            )
        trials.append(
            _Trial(
                "with the channels in the other order: is it BGR for RGB (--image_color)?", lambda v: np.flip(v, axis)
            )
        )
        trials.append(
            _Trial(
                "with the numbers read in the other layout: were the axes of NHWC and NCHW reshaped, not transposed?",
                lambda v: _other_layout(v, axis),
            )
        )
    return trials


def _taken_back(images: Array, axis: int | None) -> list[_Trial]:
    """Usual normalisations without which the images would be numbers of 0 to 1."""
    half = np.array(0.5, np.float32)
    usual = [("(pixel - 0.5) / 0.5", half, half)]
    if axis is not None:
        shape = [3 if a == axis else 1 for a in range(4)]
        mean, std = (np.array(x, np.float32).reshape(shape) for x in (MEAN, STD))
        usual.append(("the mean and std of ImageNet", mean, std))
    trials = []
    for name, mean, std in usual:
        before = images * std + mean
        if -NEAR < before.min() and before.max() < 1 + NEAR:
            text = f"with {name} taken back: does the model take 0 to 1 (--image_mean, --image_std)?"
            trials.append(_Trial(text, partial(_undone, mean=mean, std=std)))
    return trials


def _undone(images: Array, mean: Array, std: Array) -> Array:
    return np.asarray(images * std + mean)


def _scores(runner: Runner, names: list[str], batch: Batch) -> Array | None:
    """What classifies the batch; None when nothing does, or the source does not take it."""
    try:
        found = run_named(runner.source, names, batch.feeds)
    except Exception:  # onnxruntime's classes share no base; of the data as they are, the run has told
        return None
    return next((v for v in found.values() if is_classifier(v, batch.labels)), None)


def _some(batches: Iterable[Batch], samples: int) -> list[Batch]:
    """The first batches, until they hold so many samples or bytes."""
    kept: list[Batch] = []
    count = size = 0
    for batch in batches:
        kept.append(batch)
        count += batch.samples
        size += sum(v.itemsize * prod(v.shape) for v in batch.feeds.values())
        if count >= samples or size >= MOST_BYTES:
            break
    return kept
