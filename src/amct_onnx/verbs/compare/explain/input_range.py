"""The range of the input against that of the first quantizer: scale, normalisation, saturation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.verbs.compare.job import SOURCE, Job, Quantized
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.measure.sessions import run_named
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.figures import figure, percent

OUTSIDE = 0.05
"""Share of the input outside the first quantizer's range, from which on the preprocessing is doubted."""
PIXELS = 255.0
"""The largest 8-bit pixel."""
BRIGHT = 128.0
"""Many 8-bit pictures without one pixel so bright are rare: numbers that end below have another range."""
BEYOND = 8.0
"""Pixels this many times above the first quantizer's range were not scaled; a bright image is not."""
FEWEST_STEPS = 8
"""An input that covers fewer steps of the first quantizer shows it no picture."""
NORMALISED = (-1.5, 2.1, 8.0)
"""A quantizer calibrated on (pixel - mean) / std reaches below the first, and to between the second and the third: with
a scale that is a power of two, pixels up to 1 give 1.98 at most."""
EQUAL = 2.0**-10
"""Of a step: float32 sums of some million numbers."""


@dataclass(frozen=True)
class FirstQuantizer:
    """The first quantizer, when it reads an input, maybe in other places or behind a quantizer of its own.

    Attributes:
        quantizer: as the source has it.
        name: of the input.
        fed: the input in the first batch.
        raw: whether what the quantizer reads was not clipped before.
    """

    quantizer: Quantized
    name: str
    fed: Array
    raw: bool

    @property
    def covered(self) -> tuple[float, float]:
        """Its range."""
        low, high = sorted((self.quantizer.low, self.quantizer.high))
        return low, high


def first_quantizer(job: Job, runner: Runner, batch: Batch) -> FirstQuantizer | None:
    """The first quantizer; None when it reads anything else than an input."""
    quantizer = min(job.quantizers, key=lambda q: q.layer, default=None)
    if quantizer is None:
        return None
    read = run_named(runner.source, [quantizer.tensor], batch.feeds)[quantizer.tensor]
    low, high = sorted((quantizer.low, quantizer.high))
    for name, fed in batch.feeds.items():
        if fed.dtype.kind == read.dtype.kind == "f" and fed.size == read.size > 0:
            if _same_numbers(fed, read, abs(quantizer.scale) * EQUAL):
                return FirstQuantizer(quantizer, name, fed, True)
            if _same_numbers(np.clip(fed, low, high), read, abs(quantizer.scale)):
                return FirstQuantizer(quantizer, name, fed, False)
    return None


def outside(first: FirstQuantizer | None, layers: Sequence[Paired], results: Results) -> str:
    """Input that the first quantizer cuts off."""
    if first is None:
        return ""
    (low, high), step = first.covered, abs(first.quantizer.scale)
    if low - step <= first.fed.min() and first.fed.max() < high + step:
        return ""  # 1.0 in 128 steps of 1/128 is clipped to 127: that is rounding
    counts = results.quantizers.get((first.quantizer.layer, SOURCE))
    share = float(np.mean((first.fed < low) | (first.fed >= high)))
    if first.raw and counts is not None and counts.values:
        share = counts.saturated / counts.values
    if share < OUTSIDE:
        return ""
    infinite = ", some of it infinite," if np.isinf(first.fed).any() else ""
    return (
        f"{percent(share)} of the input{infinite} lies outside the range of the first quantizer ({low:.4g} to "
        f"{high:.4g}, layer '{layers[first.quantizer.layer].entry.name}'): is the preprocessing (mean, std, range, "
        "channel order) that of training?"
    )


def range_hint(first: FirstQuantizer | None, samples: int) -> str:
    """Scale and normalisation, by the range of the input and that of the first quantizer."""
    if first is None:
        return ""
    least, most = first.covered
    low, high = float(first.fed.min()), float(first.fed.max())
    ranges = (
        f"Input '{first.name}' goes from {figure(low, 3)} to {figure(high, 3)}, the first quantizer covers "
        f"{figure(least, 3)} to {figure(most, 3)} (first {counted(samples, 'sample')})"
    )
    if low >= 0 and BEYOND * most < high <= PIXELS:
        if high < BRIGHT:
            beyond = figure(high / most, 3)
            return f"{ranges}: is the scale that of training? The largest number is {beyond} times what it covers."
        return f"{ranges}: were pixels of 0 to 255 not scaled as in training (--image_scale, else divide by 255)?"
    steps = (high - low) / (most - least) * 256
    if 0 < steps < FEWEST_STEPS:
        return (
            f"{ranges}, so that it fills {steps:.1f} of 256 steps: was it divided by 255 or normalised, though the "
            "model takes it as it is?"
        )
    bottom, top, limit = NORMALISED
    if low >= 0 and 0.5 < high <= 1 and least <= bottom and top <= most <= limit:
        return f"{ranges}, as after (pixel - mean) / std: was the normalisation left out (--image_mean, --image_std)?"
    return ""


def _same_numbers(fed: Array, read: Array, slack: float) -> bool:
    """Whether two tensors hold the same numbers in other places, as far as range and mean tell.

    A number that was clipped and rounded is off by half a step, the ends of the range by half a step more. Infinite
    ones are counted.
    """
    if any(np.count_nonzero(fed == limit) != np.count_nonzero(read == limit) for limit in (np.inf, -np.inf)):
        return False
    one, other = (v[np.isfinite(v)] for v in (fed, read))
    return all(abs(float(f(one)) - float(f(other))) <= slack for f in (np.min, np.max, np.mean) if one.size)
