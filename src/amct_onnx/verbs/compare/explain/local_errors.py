"""What each piece of a model adds of its own, on one batch: measured against the cut source, and what explains it.

A converted layer reads the same numbers in both. What may differ is, per output channel: the rounding of the bias; a
step of the input wherever it lies so near a tie that dividing by the scale and multiplying by its reciprocal round
differently, times sum |w|; float32 sums in another order. What stands between two layers consists of the same
operators, so that it differs by ties of the quantizers in it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from amct_onnx.common.arithmetic import INT8_MAX, INT8_MIN
from amct_onnx.common.arrays import Array, Bool, Float64
from amct_onnx.common.text_codes import without_texts
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.plan.ledger import CONVERTED, LayerEntry
from amct_onnx.verbs.compare.explain.noise import FLOAT32_NOISE, HALF_ULP16
from amct_onnx.verbs.compare.explain.source_grids import NEAR_TIE, NEAR_TIE16, Grid
from amct_onnx.verbs.compare.job import Job, Tracked, input_keys
from amct_onnx.verbs.compare.key import INPUT, LAYER, NODE, OUTPUT
from amct_onnx.verbs.compare.pairing import Paired

BEFORE = "before"
MARGIN = 2.0
"""The bounds take ties to be spread evenly over a channel's positions; real ones lie unevenly."""
NOTICEABLE = 2.0**-14
"""Relative to the RMS of the tensor: an unexplained error below this changes nothing that anybody measures."""
NODE_ROUNDING, NODE_ROUNDING16 = 2.0**-14, 2.0**-9
"""Of the largest number that a node gives: what two orders of its float32 or float16 arithmetic may differ by."""
BETWEEN_STEPS = 0.25
"""Of the next quantizer, on average, that ties of the quantizers between two layers may cost."""
BETWEEN_SHARE = 2.0**-7
"""Of the RMS, the same where no quantizer follows: a quarter of a step, of 127 that hold the largest value, which is
some times the RMS."""


@dataclass(frozen=True)
class Piece:
    """One compared tensor: what the source makes of the other model's numbers, and what the other model made.

    Attributes:
        kind: the output of a ``layer``, what stands ``before`` a layer's quantizer, or a graph ``output``.
        index: of the layer; of the output for the last kind.
        tracked: names.
        own: of the source, float64.
        other: of the model, the same shape.
        axis: of the channels; None when the whole tensor counts.
        lsb: unit of the figures, or None.
        explained: mean absolute error that quantization explains, per channel or [1].
        allowed: of each element, the error that quantization explains; None where only means are bounded.
        position: of the node that makes it, in the source.
    """

    kind: str
    index: int
    tracked: Tracked
    own: Float64
    other: Float64
    axis: int | None
    lsb: float | None
    explained: Float64 = field(default_factory=lambda: np.zeros(1))
    allowed: Float64 | None = None
    position: int = 0

    @cached_property
    def finite(self) -> Bool:
        """Where both hold numbers."""
        return np.isfinite(self.own) & np.isfinite(self.other)

    @cached_property
    def not_finite(self) -> int:
        """Elements that are NaN or infinite in one alone."""
        alike = (self.own == self.other) | (np.isnan(self.own) & np.isnan(self.other))
        return int(np.count_nonzero(~self.finite & ~alike))

    @cached_property
    def measured(self) -> Float64:
        """Mean absolute error per channel, or [1]."""
        with np.errstate(invalid="ignore"):
            error = np.where(self.finite, np.abs(self.other - self.own), 0.0)
        if self.axis is None or not error.size:
            return np.asarray([error.mean() if error.size else 0.0])
        return np.asarray(np.moveaxis(error, self.axis, 0).reshape(error.shape[self.axis], -1).mean(axis=1))

    @cached_property
    def wrong(self) -> Bool:
        """Channels that err by more than is explained."""
        if self.allowed is not None:
            with np.errstate(invalid="ignore"):
                beyond = self.finite & (np.abs(self.other - self.own) > self.allowed)
            return np.asarray([bool(beyond.any())], np.bool_)
        values = self.own[self.finite]
        rms = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
        return np.asarray((self.measured > MARGIN * self.explained) & (self.measured > NOTICEABLE * rms), np.bool_)

    @property
    def faulty(self) -> bool:
        """Whether anything is wrong here."""
        return self.not_finite > 0 or bool(self.wrong.any())

    @property
    def order(self) -> tuple[bool, int, bool]:
        """Place in the network: outputs come last, what a layer's quantizer reads before the layer."""
        return self.kind == OUTPUT, self.position, self.kind == LAYER


def pieces(
    job: Job,
    layers: Sequence[Paired],
    gains: Mapping[str, Float64],
    model: str,
    own: Mapping[str, Array],
    other: Mapping[str, Array],
    grids: Mapping[str, Grid],
    positions: Mapping[str, int],
) -> list[Piece]:
    """Every compared tensor of a model, in network order.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        gains: see ``noise.gains``.
        model: key.
        own: what the cut source makes, by name in the source.
        other: the model's tensors, by name, and what was fed.
        grids: see ``source_grids``.
        positions: of the node that makes a tensor of the source, by the tensor's name.
    """
    keys = input_keys(job, layers)
    by_key = {t.key: t for t in job.tracked}
    by_source = {t.source: t.others[model] for t in job.tracked}
    made_by_layers = {pair.source.output for pair in layers}
    halves = any(v.dtype == np.float16 for v in own.values())
    found = []
    of_layers: dict[str, float] = {}
    for t in sorted(job.tracked, key=lambda t: t.key.kind == OUTPUT):  # behind the layers that make them
        kind, index = t.key.kind, t.key.index
        a = without_texts(own[t.source])
        place = positions.get(t.source, -1)
        if kind == NODE or (kind == OUTPUT and a.dtype.kind == "f" and t.source not in made_by_layers):
            found.append(_of_node(t, a, other, model, by_source, grids.get(t.source), place, half=halves))
            continue
        b = np.asarray(without_texts(other[t.others[model]]).reshape(a.shape), np.float64)
        half = a.dtype == np.float16
        mine = np.asarray(a, np.float64) - t.shift
        step = t.lsb if t.passage is not None else None  # steps of an accumulator mean nothing to people
        if kind == LAYER and layers[index].entry.verdict == CONVERTED and layers[index].entry.name in gains:
            entry = layers[index].entry
            read = by_key[keys[index]] if index in keys else None
            given = other[read.others[model]] if read is not None else None
            ties = _near_ties(given, entry, half) if given is not None else 0.0
            axis = _channel_axis(entry, a, gains[entry.name].size)
            bound = _of_layer(entry, gains[entry.name], ties, mine, axis, half)
            if half and given is not None:
                bound = bound + _of_float16_factors(gains[entry.name], given, bound.size)
            of_layers[t.source] = float(bound.mean())
            found.append(Piece(LAYER, index, t, mine, b, axis, step, bound, position=place))
            continue
        operands = _operands(layers[index].entry, other, by_source) if kind == LAYER else None
        if operands is not None:
            bound = _of_product(layers[index].entry, operands, mine, half)
            found.append(Piece(LAYER, index, t, mine, b, None, step, bound, position=place))
            continue
        if kind == INPUT:
            entry = layers[index].entry
            if entry.scale_d is None or entry.offset_d is None:
                continue
            # compared as the quantizer reads them: a pair that was left out before it changes nothing behind it
            grid = Grid(entry.scale_d, entry.offset_d, INT8_MIN, INT8_MAX)
            mine, b = (grid.round(v).astype(np.float64) for v in (mine, b))
        values = mine[np.isfinite(mine)]
        rms = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
        allowed = BETWEEN_STEPS * t.lsb if t.lsb else BETWEEN_SHARE * rms
        # an output that a layer makes differs by as much as the layer's result
        allowed = max(allowed, of_layers.get(t.source, 0.0)) if kind == OUTPUT else allowed
        kind = BEFORE if kind == INPUT else kind
        found.append(Piece(kind, index, t, mine, b, None, t.lsb, np.asarray([allowed]), position=place))
    return sorted(found, key=lambda p: p.order)


def _of_node(
    t: Tracked,
    own: Array,
    other: Mapping[str, Array],
    model: str,
    by_source: Mapping[str, str],
    grid: Grid | None,
    position: int,
    *,
    half: bool,
) -> Piece:
    """A node that both models share reads the same numbers in both: the same result, but for ties of its quantizer."""
    values = without_texts(other[t.others[model]]).reshape(own.shape)
    mine = np.asarray(own, np.float64)
    largest = float(np.abs(mine[np.isfinite(mine)]).max(initial=0.0))
    allowed = np.full(own.shape, largest * (NODE_ROUNDING16 if half else NODE_ROUNDING))
    if grid is not None:
        tie = grid.near_ties(values, half=half)
        if grid.read:
            read = other.get(by_source.get(grid.read, ""))
            # what it reads is not shown: any element may lie near a tie
            tie |= grid.near_ties(read.reshape(own.shape), half=half) if read is not None else np.True_
        allowed += tie * (grid.scale * (1 + 2.0**-10))
        if not grid.read:  # the model may have left the pair before it out; where it has it, it has the numbers
            mine, values = np.asarray(grid.round(own), np.float64), grid.round(values)
    step = grid.scale if grid is not None else None
    bound = np.asarray([float(allowed.mean()) if allowed.size else 0.0])
    return Piece(
        t.key.kind, t.key.index, t, mine, np.asarray(values, np.float64), None, step, bound, allowed, position=position
    )


def _channel_axis(entry: LayerEntry, values: Array, channels: int) -> int | None:
    axis = LAYER_KINDS[entry.op_type].result_axis % max(1, values.ndim)
    return axis if 1 < values.ndim and values.shape[axis] == channels and channels > 1 else None


def _of_layer(entry: LayerEntry, gain: Float64, ties: float, values: Float64, axis: int | None, half: bool) -> Float64:
    assert entry.read_scale is not None
    steps = entry.bias_error.max_steps if entry.bias_error is not None else 0.0
    bound = entry.read_scale * (gain * ties + steps * np.asarray(entry.scale_w, np.float64))
    squares = np.where(np.isfinite(values), values, 0.0) ** 2
    if axis is None:
        bound = np.asarray([bound.max(initial=0.0)])
        rms = np.sqrt(squares.mean(keepdims=True).reshape(1)) if squares.size else np.zeros(1)
    else:
        rms = np.sqrt(np.moveaxis(squares, axis, 0).reshape(squares.shape[axis], -1).mean(axis=1))
    return np.asarray(bound + rms * (4 * HALF_ULP16 if half else FLOAT32_NOISE))


def _of_float16_factors(gain: Float64, given: Array, channels: int) -> Float64:
    """What the source rounds that multiplies floats: it dequantizes both factors of each product to float16.

    A result that cancels is small beside its products, and the same in all samples when these are alike.

    Args:
        gain: sum of the absolute weights of each channel.
        given: what the layer's quantizer reads.
        channels: number of bounds, or 1.
    """
    finite = np.abs(given[np.isfinite(given)].astype(np.float64))
    bound = gain * (HALF_ULP16 * float(finite.mean()) if finite.size else 0.0)
    return bound if bound.size == channels else np.asarray([bound.max(initial=0.0)])


def _near_ties(values: Array, entry: LayerEntry, half: bool) -> float:
    """Largest share over the input's channels of values so near a tie that they may round either way."""
    if values.ndim < 2 or not values.size or entry.scale_d is None:
        return 0.0
    axis = LAYER_KINDS[entry.op_type].result_axis % max(1, values.ndim)
    near = _near(values, entry.scale_d, half)
    return float(np.moveaxis(near, axis, 0).reshape(near.shape[axis], -1).mean(axis=1).max())


def _near(values: Array, scale: float, half: bool) -> Bool:
    with np.errstate(invalid="ignore"):
        quotient = np.abs(values.astype(np.float64) / scale)
        near = np.abs(quotient - np.floor(quotient) - 0.5) <= (NEAR_TIE16 if half else NEAR_TIE) * quotient
    return np.asarray(near, np.bool_)


def _operands(
    entry: LayerEntry, other: Mapping[str, Array], by_source: Mapping[str, str]
) -> tuple[Array, Array] | None:
    """What the two quantizers of a MatMul of two activations read; None for other layers, or where it is not shown."""
    if not entry.second_input:
        return None
    first, second = (other.get(by_source.get(name, name)) for name in (entry.source_input, entry.second_input))
    return None if first is None or second is None else (first, second)


def _of_product(entry: LayerEntry, operands: tuple[Array, Array], values: Float64, half: bool) -> Float64:
    """Mean error that ties of either operand explain: a step of the one times the mean of the other, for K products."""
    assert entry.read_scale is not None and entry.scale_d is not None and entry.second_scale_d is not None
    sizes, ties = [], []
    for read, scale in zip(operands, (entry.scale_d, entry.second_scale_d), strict=True):
        numbers = np.minimum(np.abs(read[np.isfinite(read)].astype(np.float64)) / scale, -INT8_MIN)
        sizes.append(float(numbers.mean()) if numbers.size else 0.0)
        ties.append(float(_near(read, scale, half).mean()) if read.size else 0.0)
    products = operands[0].shape[-1] if operands[0].ndim else 1
    integers = products * (ties[0] * sizes[1] + ties[1] * sizes[0])
    finite = values[np.isfinite(values)]
    rms = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    bound = entry.read_scale * entry.scale_w[0] * integers
    return np.asarray([bound + rms * (4 * HALF_ULP16 if half else FLOAT32_NOISE)])
