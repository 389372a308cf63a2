"""The doctor's report: one entry for each setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from amct_onnx.common.shown_report import ShownReport
from amct_onnx.verbs.doctor.cpu import CpuFacts
from amct_onnx.verbs.doctor.settings import Level

SettingVerdict = Literal["equal", "rounding", "edges", "wrong", "refused"]
VERDICTS: tuple[SettingVerdict, ...] = get_args(SettingVerdict)
EQUAL, ROUNDING, EDGES, WRONG, REFUSED = VERDICTS
MEANINGS: dict[SettingVerdict, str] = {
    EQUAL: "every value has the bits of the exact reference",
    ROUNDING: "within float32 rounding of the exact reference",
    EDGES: "values on the edge between two steps of a quantizer fell to the other side",
    WRONG: "off by more than rounding explains: do not use this setting as a reference",
    REFUSED: "ONNX Runtime does not open or run the model under this setting",
}


@dataclass(frozen=True)
class SettingResult:
    """How far the outputs under one setting are from the exact reference, over all data.

    Attributes:
        name: name of the setting.
        level: optimisation level, ``off``, ``basic``, ``extended`` or ``all``.
        entries: session config entries that were set.
        why: what the setting changes.
        verdict: a key of ``MEANINGS``.
        max_error: largest absolute error, in units of the output; None when refused, infinite when a value is finite
            on one side only.
        max_error_share: the same as a share of the largest absolute reference value of that output.
        max_error_steps: the same in steps of the output (its quantizer's scale; for a float output 1/127 of its
            largest absolute value).
        mean_error_steps: mean absolute error in such steps.
        differing: share of values off by more than float32 rounding (1e-5 of the output's largest absolute value).
        worst_output: name of the output with ``max_error``; "" when all values are equal.
        detail: onnxruntime's message when refused, else "".
    """

    name: str
    level: Level
    entries: dict[str, str]
    why: str
    verdict: SettingVerdict
    max_error: float | None = None
    max_error_share: float | None = None
    max_error_steps: float | None = None
    mean_error_steps: float | None = None
    differing: float | None = None
    worst_output: str = ""
    detail: str = ""


@dataclass(frozen=True, repr=False)
class DoctorReport(ShownReport):
    """The result of one examination.

    Attributes:
        model: path, or "built-in" for the built-in u8s8 model.
        data: path, or "random (seed n)".
        feeds: number of feeds that were run.
        values: number of output values compared for each setting.
        cpu: the CPU's facts.
        versions: versions of Python and the libraries.
        exact_layers: how many layers the reference computes in exact integers.
        float_layers: names of the other layers, in float32 in the reference as well.
        can_saturate: names of the layers whose int8 weights saturate 16-bit sums on CPUs without VNNI.
        settings: in the order of the table; the last is the one this package uses for references.
    """

    SCHEMA_VERSION = 1
    SCREEN = "amct_onnx.verbs.doctor.screen"
    JSON_ALSO = ("trusted", "summary")

    model: str
    data: str
    feeds: int
    values: int
    cpu: CpuFacts
    versions: dict[str, str]
    exact_layers: int
    float_layers: tuple[str, ...]
    can_saturate: tuple[str, ...]
    settings: tuple[SettingResult, ...]

    @property
    def wrong(self) -> tuple[SettingResult, ...]:
        """The settings whose results must not be trusted."""
        return tuple(s for s in self.settings if s.verdict == WRONG)

    @property
    def trusted(self) -> bool:
        """Whether no setting is wrong."""
        return not self.wrong

    def summary(self) -> str:
        """One or two sentences: which settings are wrong, and what other CPUs would do."""
        subject = "The built-in u8s8 model" if self.model == "built-in" else self.model
        if self.wrong:
            names = ", ".join(f"'{s.name}' (up to {s.max_error_share:.2%} of the largest value)" for s in self.wrong)
            text = f"{subject}: these settings are wrong on this CPU: {names}."
        else:
            text = f"{subject}: no setting is wrong on this CPU."
        return f"{text} {self._on_other_cpus()}"

    def _on_other_cpus(self) -> str:
        number = len(self.can_saturate)
        layers = f"{number} of {self.exact_layers} quantized layers"
        if self.cpu.saturates:
            return (
                f"It adds pairs of u8s8 products in 16 bits; {layers} have weights that can saturate them."
                if number
                else "It adds pairs of u8s8 products in 16 bits, but no layer has weights that can saturate them."
            )
        if not number:
            return "No layer has weights that can saturate the 16-bit sums of an x86 CPU without VNNI."
        return f"On an x86 CPU without VNNI {layers} can saturate: run the doctor there as well."
