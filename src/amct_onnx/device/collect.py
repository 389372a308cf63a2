"""Dynamic facts: saturation, ties and largest accumulator of each layer over a data set."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.device.lowering.lowered import Counters


@dataclass(frozen=True)
class LayerCounts:
    """Counts over all runs of a session.

    Attributes:
        name: name of the layer.
        values: elements that its AscendQuant quantized; None when another node makes its int8 input.
        saturated: of them, those that rounding left outside [-128, 127], NaN included.
        ties: of them, those exactly between two integers, where rounding order and reciprocal decide.
        largest_accumulator: largest absolute value of its int32 result.
    """

    name: str
    values: int | None
    saturated: int | None
    ties: int | None
    largest_accumulator: int


class Collector:
    """Adds up the counters of each run; safe to use from several threads."""

    def __init__(self, counters: Sequence[Counters]) -> None:
        self._counters = tuple(counters)
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all runs."""
        with self._lock:
            self._counts = [_nothing(c) for c in self._counters]

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that a run has to deliver."""
        wanted = [n for c in self._counters for n in (c.tie, c.kept, c.highest, c.lowest) if n]
        return tuple(dict.fromkeys(wanted))

    def add(self, results: Mapping[str, Array]) -> None:
        """Add one run's outputs, by name."""
        with self._lock:
            self._counts = [_added(n, c, results) for n, c in zip(self._counts, self._counters, strict=True)]

    def counts(self) -> tuple[LayerCounts, ...]:
        """The sums so far, in graph order."""
        with self._lock:
            return tuple(self._counts)


def _nothing(counters: Counters) -> LayerCounts:
    start = 0 if counters.tie else None
    return LayerCounts(counters.name, start, start, start, 0)


def _added(counts: LayerCounts, names: Counters, results: Mapping[str, Array]) -> LayerCounts:
    # NaN, and the infinities of ReduceMax over nothing, are not accumulators
    extremes = [abs(float(results[n])) for n in (names.highest, names.lowest)]
    largest = max([counts.largest_accumulator, *(int(e) for e in extremes if np.isfinite(e))])
    if counts.values is None or counts.saturated is None or counts.ties is None:
        return replace(counts, largest_accumulator=largest)
    tie, kept = results[names.tie], results[names.kept]
    return LayerCounts(
        counts.name,
        counts.values + kept.size,
        counts.saturated + kept.size - int(np.count_nonzero(kept)),
        counts.ties + int(np.count_nonzero(tie)),
        largest,
    )
