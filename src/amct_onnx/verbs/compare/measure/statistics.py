"""Statistics of the difference of two tensors: one pass per batch, merged without rounding.

A batch's figures depend on the batch alone, sums of batches are exact: whatever the number of workers and the order in
which their parts arrive, the result is the same to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.text_codes import without_texts
from amct_onnx.plan.next_quantizers import Passage
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from amct_onnx.verbs.compare.report import Difference

ROW = 1024
"""Numbers whose squares are added in float32 before float64 takes over: at most 2^-14 relative, and no bias."""
LARGEST = 1e150
"""What float64 can square; anything larger counts as infinite."""
LSB_SLACK = 1 - 2.0**-12
"""A difference of exactly one step may come out a little smaller: both tensors are products rounded to float32."""


CLIPPED_FROM = 16
"""Steps: in a batch without a larger difference nothing is clipped, which would cost a twentieth of a healthy run."""


@dataclass
class TensorStatistics:
    """Of one tensor of one model against the source's.

    Attributes:
        count, off_by_lsb, not_finite: elements; ``not_finite`` ones are left out of all else but ``count``.
        other_size: batches in which there were more or fewer than in the source: all else leaves them out.
        largest: largest absolute difference.
        passed_largest, passed: largest absolute difference and sum of them, as far as the next quantizer lets them
            through, from ``CLIPPED_FROM`` on; ``off_by_lsb`` counts those.
        absolute, square: sums of |b - a| and (b - a)^2.
        source_square, square_of_other: sums of a^2 and b^2.
        samples, same_top1: rows compared, and with their largest element at the same place (two-axis tensors).
    """

    count: int = 0
    off_by_lsb: int = 0
    not_finite: int = 0
    samples: int = 0
    same_top1: int = 0
    other_size: int = 0
    largest: float = 0.0
    passed_largest: float = 0.0
    passed: ExactSum = field(default_factory=ExactSum)
    absolute: ExactSum = field(default_factory=ExactSum)
    square: ExactSum = field(default_factory=ExactSum)
    source_square: ExactSum = field(default_factory=ExactSum)
    square_of_other: ExactSum = field(default_factory=ExactSum)

    def merge(self, other: TensorStatistics) -> None:
        """Add the statistics of other batches."""
        self.count += other.count
        self.off_by_lsb += other.off_by_lsb
        self.not_finite += other.not_finite
        self.samples += other.samples
        self.same_top1 += other.same_top1
        self.other_size += other.other_size
        self.largest = max(self.largest, other.largest)
        self.passed_largest = max(self.passed_largest, other.passed_largest)
        self.passed.merge(other.passed)
        self.absolute.merge(other.absolute)
        self.square.merge(other.square)
        self.source_square.merge(other.source_square)
        self.square_of_other.merge(other.square_of_other)

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference."""
        return self.absolute.value / self.compared if self.compared else 0.0

    @property
    def rms(self) -> float:
        """Root of the mean squared difference."""
        return math.sqrt(self.square.value / self.compared) if self.compared else 0.0

    @property
    def source_rms(self) -> float:
        """Root of the mean square of the source's tensor."""
        return math.sqrt(self.source_square.value / self.compared) if self.compared else 0.0

    @property
    def exact(self) -> bool:
        """Whether no element differs, in number or value."""
        return self.largest == 0 and self.not_finite == 0 and not self.other_size

    @property
    def compared(self) -> int:
        """Elements that are finite in both."""
        return self.count - self.not_finite

    def difference(self, model: str, lsb: float | None) -> Difference:
        """The figures for people."""
        a, b, d = (s.value for s in (self.source_square, self.square_of_other, self.square))
        cosine = None
        if a > 0 and b > 0:
            # 1 - cos = (|a - b|^2 - (|a| - |b|)^2) / (2 |a| |b|) keeps its digits where the two are nearly parallel
            lengths = math.sqrt(a) * math.sqrt(b)
            cosine = max(-1.0, min(1.0, 1 - (d - (math.sqrt(a) - math.sqrt(b)) ** 2) / (2 * lengths)))
        some = self.compared > 0
        step = lsb if lsb and some else None
        return Difference(
            model=model,
            count=self.count,
            max_abs=self.largest if some else None,
            mean_abs=self.mean_abs if some else None,
            max_lsb=self.passed_largest / step if step else None,
            mean_lsb=self.passed.value / self.compared / step if step else None,
            share_lsb=self.off_by_lsb / self.compared if step else None,
            cosine=cosine,
            sqnr_db=10 * math.log10(a / d) if a > 0 and d > 0 else None,
            exact=self.exact,
            not_finite=self.not_finite,
            other_size=self.other_size,
            top1_agreement=self.same_top1 / self.samples if self.samples else None,
        )


def sum_of_squares(values: Array) -> float:
    """Of a contiguous float array; float32 within rows of ``ROW`` numbers, float64 beyond.

    A BLAS splits long sums between its threads, which changes their order; ``ROW`` numbers it leaves to one.
    """
    flat = values.reshape(-1)
    whole = flat.size // ROW * ROW
    rows, rest = flat[:whole].reshape(-1, ROW), flat[whole:]
    result = 0.0
    if whole:
        result = float(np.matmul(rows[:, None, :], rows[:, :, None]).sum(dtype=np.float64))
    if rest.size:
        result += float(np.dot(rest, rest))
    if math.isfinite(result) and result > 0:
        return result
    wide = flat.astype(np.float64)  # float32 squares leave their range beyond 1.8e19 and below 1e-19
    return float(np.einsum("i,i->", wide, wide))


def _sum(values: Array) -> float:
    """Pairwise in the numbers' own precision: 2^-24 * log2(size) relative at most."""
    return float(values.sum(dtype=values.dtype))


def as_float(values: Array) -> Array:
    """Contiguous float32, or float64 for what float32 does not hold (int32, int64, double); texts as their codes."""
    values = without_texts(values)
    kind = np.float32 if values.dtype in (np.float32, np.float16, np.int8, np.uint8, np.bool_) else np.float64
    return np.ascontiguousarray(values, kind)


class Scratch:
    """Memory for differences, used again and again: fresh pages cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def take(self, size: int, dtype: type[np.floating[Any]]) -> Array:
        """So many numbers of any content; what was taken before is overwritten."""
        needed = size * np.dtype(dtype).itemsize
        if needed > self._bytes.size:
            self._bytes = np.empty(needed, np.uint8)
        return self._bytes[:needed].view(dtype)


class SourceTensor:
    """One tensor of the source, with what every comparison with it needs."""

    def __init__(self, values: Array, scratch: Scratch | None = None) -> None:
        self._scratch = scratch or Scratch()
        self._kept: Array | None = None
        self.values = as_float(values)

    @cached_property
    def square(self) -> float:
        """Sum of squares."""
        return sum_of_squares(self.values)

    @cached_property
    def top1(self) -> Array | None:
        """Place of the largest element of each row of a two-axis tensor."""
        return self.values.argmax(axis=1) if self.values.ndim == 2 and self.values.shape[1] > 1 else None

    def compare_mean(self, values: Array) -> TensorStatistics:
        """Of another model's tensor, the mean absolute difference alone: a third of the work."""
        d = self._difference(as_float(values))
        np.abs(d, out=d)
        total = _sum(d)
        if not math.isfinite(total):
            return self.compare(values, None)
        made = TensorStatistics(count=d.size)
        made.absolute.add(total)
        return made

    @cached_property
    def _extent(self) -> tuple[float, float]:
        return float(self.values.min()), float(self.values.max())

    def _within(self, passage: Passage, largest: float) -> bool:
        """Whether all of it passes: no value of the other tensor is farther away."""
        low, high = self._extent
        return largest <= passage.width and passage.low <= low - largest and high + largest <= passage.high

    def _clipped(self, passage: Passage) -> Array:
        """Once for all models: a tensor has one passage."""
        if self._kept is None:
            self._kept = np.clip(self.values.reshape(-1), passage.low, passage.high)
        return self._kept

    def _difference(self, other: Array) -> Array:
        """Overwritten by the next one."""
        wide = np.float64 if np.float64 in (self.values.dtype, other.dtype) else np.float32
        out = self._scratch.take(other.size, wide)
        with np.errstate(invalid="ignore"):  # of two infinities; they are counted apart
            return np.subtract(other.reshape(-1), self.values.reshape(-1), out=out, dtype=wide)

    def compare(
        self, values: Array, lsb: float | None, *, output: bool = False, passage: Passage | None = None
    ) -> TensorStatistics:
        """Statistics of another model's tensor of as many elements.

        Args:
            values: of the other model; any shape of as many elements.
            lsb: unit in which ``off_by_lsb`` counts.
            output: also count equal places of the largest element of each row.
            passage: what the next quantizer lets through; None for all of it.
        """
        a, b = self.values, as_float(values)
        if output:
            b = b.reshape(a.shape)
        d = self._difference(b)
        kept_a, kept_b = a.reshape(-1), b.reshape(-1)
        squares = sum_of_squares(d)
        made = TensorStatistics(count=a.size)
        source_square, square_of_other = self.square, sum_of_squares(b)
        if not all(map(math.isfinite, (squares, source_square, square_of_other))):
            flat_a, flat_b = (v.reshape(-1).astype(np.float64) for v in (a, b))
            both = (np.abs(flat_a) < LARGEST) & (np.abs(flat_b) < LARGEST)
            alike = ~both & ((flat_a == flat_b) | (np.isnan(flat_a) & np.isnan(flat_b)))
            made.not_finite = int(np.count_nonzero(~both & ~alike))
            kept_a, kept_b = (np.where(both, v, 0) for v in (flat_a, flat_b))
            d = kept_b - kept_a
            squares, source_square, square_of_other = (sum_of_squares(v) for v in (d, kept_a, kept_b))
        if squares > 0:
            np.abs(d, out=d)
            made.largest = float(d.max())
            absolute = _sum(d)
            made.absolute.add(absolute)
            made.square.add(squares)
            made.passed_largest = made.largest
            if (
                passage is not None
                and made.largest > CLIPPED_FROM * (lsb or 0.0)
                and not self._within(passage, made.largest)
            ):
                own = np.clip(kept_a, passage.low, passage.high) if made.not_finite else self._clipped(passage)
                d = _passed(passage, own, kept_b, d)
                absolute = _sum(d)
                made.passed_largest = min(float(d.max()), passage.width)  # float32 rounds the bounds
            made.passed.add(absolute)
            if lsb and made.passed_largest >= lsb * LSB_SLACK:
                made.off_by_lsb = int(np.count_nonzero(d >= d.dtype.type(lsb * LSB_SLACK)))
        made.source_square.add(source_square)
        made.square_of_other.add(square_of_other)
        if output and self.top1 is not None:
            made.samples = len(self.top1)
            made.same_top1 = int(np.count_nonzero(b.argmax(axis=1) == self.top1))
        return made


def passed_difference(passage: Passage, a: Array, b: Array) -> Array:
    """The absolute differences that pass."""
    return _passed(passage, np.clip(a, passage.low, passage.high), b, np.empty_like(b))


def _passed(passage: Passage, clipped: Array, other: Array, out: Array) -> Array:
    """Those of a tensor that is clipped already."""
    np.clip(other, passage.low, passage.high, out=out)
    np.subtract(out, clipped, out=out)
    np.abs(out, out=out)
    if passage.high - passage.low > passage.width:
        np.minimum(out, passage.width, out=out)
    return out


@dataclass
class QuantizerStatistics:
    """What a quantizer met: elements, clipped ones, exact ties, the largest accumulator behind it.

    ``bins`` are those of ``input_bins``, of the ``binned`` elements among ``values``. The tuple is replaced, never
    changed: quantizers of one tensor share their first batch's.
    """

    values: int = 0
    saturated: int = 0
    ties: int = 0
    largest_accumulator: int = 0
    binned: int = 0
    bins: tuple[int, ...] = ()

    def merge(self, other: QuantizerStatistics) -> None:
        """Add other batches."""
        self.values += other.values
        self.saturated += other.saturated
        self.ties += other.ties
        self.largest_accumulator = max(self.largest_accumulator, other.largest_accumulator)
        self.binned += other.binned
        if self.bins and other.bins:
            self.bins = tuple(a + b for a, b in zip(self.bins, other.bins, strict=True))
        else:
            self.bins = self.bins or other.bins
