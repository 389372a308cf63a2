"""The first layer that leaves the source by more than quantization noise, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amct_onnx.arithmetic import INT32_MAX
from amct_onnx.comparison.batch import Results
from amct_onnx.comparison.closer_look import Look
from amct_onnx.comparison.job import FAKE_QUANT, SOURCE
from amct_onnx.comparison.noise import Noise, explained
from amct_onnx.comparison.pairing import Paired
from amct_onnx.comparison.report import Divergence
from amct_onnx.report import CONVERTED

MARGIN = 2.0
"""The bound of ``noise`` takes an error to be spread evenly over the input; real ones lie unevenly."""
NOTICEABLE = 2.0**-14
"""Relative to the RMS of the layer: an unexplained error below this changes nothing that anybody measures."""
OWN_NOISE = 1 / math.sqrt(12)
"""RMS in LSB of what the next quantizer's rounding loses anyway."""
SATURATES = 0.002
"""Share of a layer's inputs that saturate beyond those of the source, from which on that is a cause."""
SIMPLE = 0.8
"""Share of the squared error that a constant or factor must explain to be called the fault."""


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


def examine(model: str, layers: Sequence[Paired], results: Results, input_keys: dict[int, str], gain: dict[str, float],
            lsb: Sequence[float | None]) -> list[Examined]:  # fmt: skip
    """Every compared layer of a model, in network order."""
    found = []
    devices = [m for _, m in results.quantizers if m != SOURCE]
    for index, pair in enumerate(layers):
        output = results.tensors.get((f"layer:{index}", model))
        if output is None:
            continue
        noise = None
        extra = 0.0
        entry = pair.entry
        key = input_keys.get(index)
        if entry.verdict == CONVERTED and key is not None and entry.name in gain:
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
                gain[entry.name],
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
    look_at: Callable[[int], Look | None],
) -> tuple[Divergence | None, bool]:
    """The first layer at which a model leaves the source, and whether that is a fault.

    First comes a layer whose error quantization does not explain (a fault); without one, the first whose error exceeds
    what the next quantizer's rounding loses anyway.

    Args:
        model: key.
        layers: see ``examine``.
        examined: what ``examine`` found.
        results: of all batches.
        lsb: unit of each layer.
        look_at: a closer look at a layer's output.
    """
    fault = next((e for e in examined if e.unexplained), None)
    if fault is not None:
        return _fault(model, layers, fault, results, lsb, look_at(fault.index)), True
    refused_input = {i for i, p in enumerate(layers) if p.entry.verdict != CONVERTED}
    for e in examined:
        unit = lsb[e.index]
        if unit and e.rms > OWN_NOISE * unit and e.measured:
            return _noise(model, layers, e, unit, e.index in refused_input, examined), False
    return None, False


def _fault(
    model: str, layers: Sequence[Paired], e: Examined, results: Results, lsb: Sequence[float | None], seen: Look | None
) -> Divergence:
    entry = layers[e.index].entry
    if e.not_finite:
        share = e.not_finite / results.tensors[f"layer:{e.index}", model].count
        text = (
            f"{share:.2%} of the values of '{entry.name}' are NaN or infinite in {model} or in the source, not in both."
        )
        total = e.noise.total if e.noise is not None else 0.0
        return Divergence(model, entry.name, e.index, "not-finite", text, NOT_FINITE_ADVICE, e.measured, total)
    noise = e.noise
    assert noise is not None
    unit = lsb[e.index]
    size = f"{e.measured / unit:.3g} LSB" if unit else f"{e.measured:.3g}"
    explained_text = f"{noise.total / unit:.2g} LSB" if unit else f"{noise.total:.2g}"
    start = f"'{entry.name}' errs by {size} on average in {model}; quantization explains at most {explained_text}."
    counts = results.quantizers.get((e.index, model))
    cause, why, advice = (
        "unknown",
        "Neither its bias nor a factor accounts for it.",
        f"Look at the layer: amct_onnx simulate --dump layers writes its integers ('{entry.name}').",
    )
    if counts is not None and counts.largest_accumulator > INT32_MAX:
        cause = "accumulator-overflow"
        why = f"Its accumulator reaches {counts.largest_accumulator}, beyond 2^31 - 1."
        advice = "Use larger scales in that layer, and calibrate again."
    elif e.extra_saturation > SATURATES:
        cause = "saturation"
        why = f"{e.extra_saturation:.1%} more of its inputs saturate than in the source."
        advice = "Check the factors of the quantizer in front of it, widen it, and convert again."
    elif seen is not None and seen.constant > SIMPLE:
        cause = "bias-fault"
        why = f"{seen.constant:.0%} of the squared error is a constant per channel: its bias is wrong or missing."
        advice = "Check the layer's bias in the deploy model; convert the source again."
    elif seen is not None and seen.linear > SIMPLE:
        cause = "scale-fault"
        why = (
            f"{seen.linear:.0%} of the squared error is a factor: its values are {seen.factor:.4g} times the source's."
        )
        advice = "Check the scales of its AscendQuant and AscendDequant; convert the source again."
    return Divergence(model, entry.name, e.index, cause, f"{start} {why}", advice, e.measured, noise.total)


NOT_FINITE_ADVICE = (
    "float16 ends at 65504 and float32 at 3.4e38: look at the values in front of the layer, and scale them down."
)
ADVICE = {
    "bias-rounding": "Write the source with rounded biases (amct_onnx bias) and compare with that: what stays is "
    "not bias rounding. Train or calibrate with it when the difference matters.",
    "ties": "Nothing is wrong: values exactly between two steps are rounded one way here and the other way there.",
    "device-arithmetic": "This is the device's float16 and S19 arithmetic; one with float32 quantizers differs less.",
    "refused-layer": "The layer is float in both models; look at the layers before it.",
    "inherited": "Look at the layers before it: none of them stands out by itself.",
}


def _noise(
    model: str, layers: Sequence[Paired], e: Examined, unit: float, refused: bool, examined: Sequence[Examined]
) -> Divergence:
    entry = layers[e.index].entry
    parts: dict[str, float] = {}
    # what entered at a layer before it is carried by "inherited": ask those layers as well
    for earlier in examined:
        if earlier.index <= e.index and earlier.noise is not None:
            step = layers[earlier.index].entry.output_scale or unit
            for cause, size in (
                ("bias-rounding", earlier.noise.bias),
                ("ties", earlier.noise.ties),
                ("device-arithmetic", earlier.noise.device),
            ):
                parts[cause] = parts.get(cause, 0.0) + size / step
    cause = max(parts, key=lambda c: parts[c]) if parts and max(parts.values()) > 0 else "inherited"
    if refused and not any(parts.values()):
        cause = "refused-layer"
    figures = ", ".join(f"{c} {s:.2g}" for c, s in sorted(parts.items(), key=lambda i: -i[1]) if s > 0)
    text = (
        f"From '{entry.name}' on, {model} differs by more than the rounding of the next quantizer: RMS "
        f"{e.rms / unit:.2g}, mean {e.measured / unit:.2g} LSB, which quantization explains."
        + (f" Sources up to here, in LSB where they arise (later weights amplify them): {figures}." if figures else "")
    )
    total = e.noise.total if e.noise is not None else e.measured
    return Divergence(model, entry.name, e.index, cause, text, ADVICE[cause], e.measured, total)
