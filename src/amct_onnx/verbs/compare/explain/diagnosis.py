"""The first layer that leaves the source by more than quantization noise, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amct_onnx.common.arithmetic import INT32_MAX
from amct_onnx.common.arrays import Float64
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.compare.causes import NoiseCause
from amct_onnx.verbs.compare.explain.faults import SATURATES, not_finite, size, told_by_counts
from amct_onnx.verbs.compare.explain.noise import Noise, explained
from amct_onnx.verbs.compare.job import FAKE_QUANT, SOURCE
from amct_onnx.verbs.compare.key import LAYER, Key
from amct_onnx.verbs.compare.measure.batch import Results
from amct_onnx.verbs.compare.measure.statistics import QuantizerStatistics
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.report import Divergence

MARGIN = 2.0
"""The bound of ``noise`` takes an error to be spread evenly over the input; real ones lie unevenly."""
NOTICEABLE = 2.0**-14
"""Relative to the RMS of the layer: an unexplained error below this changes nothing that anybody measures."""
OWN_NOISE = 1 / math.sqrt(12)
"""RMS in LSB of what the next quantizer's rounding loses anyway."""


@dataclass(frozen=True)
class Examined:
    """One layer in one model: what was measured, what is explained."""

    index: int
    measured: float
    rms: float
    noise: Noise | None
    extra_saturation: float
    not_finite: int

    @property
    def unexplained(self) -> bool:
        """Whether the error is more than quantization noise can be."""
        return self.not_finite > 0 or self.noise is not None and self.measured > MARGIN * self.noise.total


def examine(
    model: str,
    layers: Sequence[Paired],
    results: Results,
    input_keys: Mapping[int, Key],
    gain: Mapping[str, Float64],
    lsb: Sequence[float | None],
) -> list[Examined]:
    """Every compared layer of a model, in network order."""
    found = []
    devices = [m for _, m in results.quantizers if m != SOURCE]
    for index, pair in enumerate(layers):
        output = results.tensors.get((Key(LAYER, index), model))
        if output is None:
            continue
        noise = None
        extra = 0.0
        entry = pair.entry
        key = input_keys.get(index)
        if entry.verdict == CONVERTED and key is not None and entry.name in gain and (key, model) in results.tensors:
            of_device = results.quantizers.get((index, model if model != FAKE_QUANT else (devices or [""])[0]))
            of_source = results.quantizers.get((index, SOURCE))
            ties = of_device.ties / of_device.values if of_device and of_device.values else 0.0
            if of_device and of_source and of_device.values and of_source.values and model != FAKE_QUANT:
                extra = of_device.saturated / of_device.values - of_source.saturated / of_source.values
            bias = entry.bias_error
            unit = lsb[index] or 0.0
            error = (bias.mean_lsb or 0.0) * unit if bias is not None and bias.mean_lsb is not None else 0.0
            if bias is not None and bias.mean_lsb is None:
                error = bias.max_steps * unit  # then the unit is the accumulator's step
            noise = explained(
                entry,
                float(gain[entry.name].mean()),
                model,
                input_error=results.tensors[key, model].mean_abs,
                tie_share=ties,
                output_rms=output.source_rms,
                bias_error=error,
            )
        measured = output.mean_abs if output.compared else 0.0
        if measured <= NOTICEABLE * output.source_rms:
            measured = 0.0
        found.append(Examined(index, measured, output.rms, noise, extra, output.not_finite))
    return found


def diagnose(
    model: str,
    layers: Sequence[Paired],
    examined: Sequence[Examined],
    results: Results,
    lsb: Sequence[float | None],
    found: Divergence | None,
) -> Divergence | None:
    """The first layer at which a model leaves the source.

    First comes a fault; without one, the first layer whose error exceeds what the next quantizer's rounding loses
    anyway.

    Args:
        model: key.
        layers: see ``examine``.
        examined: what ``examine`` found.
        results: of all batches.
        lsb: unit of each layer.
        found: the fault that the first batch showed, or None.
    """
    late = next((e for e in examined if _shows_itself(e, results.quantizers.get((e.index, model)))), None)
    if late is not None and (found is None or late.index < found.index):
        return _late_fault(model, layers[late.index], late, results, lsb[late.index])
    if found is not None:
        return found
    refused = {i for i, p in enumerate(layers) if p.entry.verdict != CONVERTED}
    for e in examined:
        unit = lsb[e.index]
        if unit and e.rms > OWN_NOISE * unit and e.measured:
            return _noise(model, layers, e, unit, e.index in refused, examined)
    return None


def _shows_itself(e: Examined, counts: QuantizerStatistics | None) -> bool:
    """Whether the statistics of all batches tell a fault and its cause; a bound of a sum alone does not."""
    if e.not_finite:
        return True
    overflow = counts is not None and counts.largest_accumulator > INT32_MAX
    return e.unexplained and (overflow or e.extra_saturation > SATURATES)


def _late_fault(model: str, pair: Paired, e: Examined, results: Results, unit: float | None) -> Divergence:
    """A fault that the batches together show."""
    name = pair.entry.name
    total = e.noise.total if e.noise is not None else 0.0
    if e.not_finite:
        count = results.tensors[Key(LAYER, e.index), model].count
        return not_finite(model, f"'{name}'", name, e.index, e.not_finite / count, e.measured)
    told = told_by_counts(results.quantizers.get((e.index, model)), e.extra_saturation)
    assert told is not None  # see _shows_itself
    cause, why, advice = told
    start = (
        f"'{name}' errs by {size(e.measured, unit)} on average in {model}; quantization explains at most "
        f"{size(total, unit)}."
    )
    return Divergence(model, name, e.index, cause, f"{start} {why}", advice, e.measured, total)


ROUNDING: NoiseCause = "bias-rounding"
TIES: NoiseCause = "ties"
DEVICE: NoiseCause = "device-arithmetic"
ADVICE: dict[NoiseCause, str] = {
    ROUNDING: "Write the source with rounded biases (amct_onnx bias) and compare with that: what stays is "
    "not bias rounding. Train or calibrate with it when the difference matters.",
    TIES: "Values exactly between two steps are rounded one way here and the other way there: nothing to do.",
    DEVICE: "This is the device's float16 and S19 arithmetic; one with float32 quantizers differs less.",
    "refused-layer": "The layer is float in both models; look at the layers before it.",
    "inherited": "Look at the layers before it: none of them stands out by itself.",
}


def _noise(
    model: str, layers: Sequence[Paired], e: Examined, unit: float, refused: bool, examined: Sequence[Examined]
) -> Divergence:
    entry = layers[e.index].entry
    in_steps: dict[NoiseCause, float] = {}
    in_units: dict[NoiseCause, float] = {}
    # what entered at a layer before it is carried by "inherited": ask those layers as well
    for earlier in examined:
        if earlier.index <= e.index and earlier.noise is not None:
            step = layers[earlier.index].entry.output_scale
            parts = in_steps if step else in_units
            for part, size in (
                (ROUNDING, earlier.noise.bias),
                (TIES, earlier.noise.ties),
                (DEVICE, earlier.noise.device),
            ):
                if size > 0:
                    parts[part] = parts.get(part, 0.0) + size / (step or 1.0)
    telling = in_steps if entry.output_scale else in_units or in_steps
    cause: NoiseCause = max(telling, key=lambda c: telling[c]) if telling else "inherited"
    if refused and not telling:
        cause = "refused-layer"
    named = []
    if in_steps:
        named.append(f"in LSB where they arise (later weights amplify them): {_sizes(in_steps)}")
    if in_units:
        named.append(f"in the unit of the tensor, where no quantizer follows: {_sizes(in_units)}")
    if entry.output_scale:
        by = (
            f"more than the rounding of the next quantizer: RMS {figure(e.rms / unit, 2)}, mean "
            f"{figure(e.measured / unit, 2)} LSB"
        )
    else:
        by = f"RMS {figure(e.rms, 2)}, mean {figure(e.measured, 2)} (no quantizer follows)"
    text = f"From '{entry.name}' on, {model} differs by {by}, which quantization explains." + (
        f" Sources up to here, {'; '.join(named)}." if named else ""
    )
    total = e.noise.total if e.noise is not None else e.measured
    return Divergence(model, entry.name, e.index, cause, text, ADVICE[cause], e.measured, total)


def _sizes(parts: Mapping[NoiseCause, float]) -> str:
    """The largest first."""
    return ", ".join(f"{c} {figure(s, 2)}" for c, s in sorted(parts.items(), key=lambda i: -i[1]))
