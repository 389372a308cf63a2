"""Arithmetic profiles: which rules of ``arithmetic`` a chip follows, and what no public source decides about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amct_onnx.common.arrays import Float32
from amct_onnx.device import ascend_arithmetic as rules


@dataclass(frozen=True)
class Profile:
    """One arithmetic profile.

    Attributes:
        name: name of the profile.
        chips: the chips that compute so, as text for people.
        quantize, dequantize, antiquantize: functions of ``arithmetic``.
        half: whether AscendQuant and AscendAntiQuant compute in float16, else in float32.
        exact_dequantize: whether AscendDequant rounds once, from the exact product to float32.
        undecided: what no public source decides, one sentence each.
    """

    name: str
    chips: str
    quantize: Callable[..., Float32]
    dequantize: Callable[..., Float32]
    antiquantize: Callable[..., Float32]
    half: bool
    exact_dequantize: bool = False
    undecided: tuple[str, ...] = ()


REFERENCE = "reference"

_EVERY_CHIP = (
    "What AscendQuant makes of a NaN; the simulation lets it through.",
    "What the int32 accumulator does beyond 2^31 - 1.",
    "The code that folds the activation's offset into the bias is closed; its formula is inferred.",
)
_HALF = "Whether an input beyond 65504 becomes infinity or 65504 before AscendQuant multiplies; simulated as infinity."
_FIXPIPE = "The order of the roundings for accumulators beyond 2^24: simulated as int32 -> float32 -> product."
_FUSION = "AscendDequant and AscendQuant are fused by a default ATC build; simulated node by node."

PROFILES = {
    p.name: p
    for p in (
        Profile(
            REFERENCE,
            "no chip: what the fake-quant model computes",
            rules.quantize_float32,
            rules.dequantize_float32,
            rules.antiquantize_float32,
            half=False,
            exact_dequantize=True,
        ),
        Profile(
            "ascend950",
            "Ascend 950",
            rules.quantize_float32_offset_first,
            rules.dequantize_fixpipe,
            rules.antiquantize_float32,
            half=False,
            undecided=(
                *_EVERY_CHIP,
                _FIXPIPE,
                "AscendQuant where |x * scale + offset| exceeds 32767: the kernel's int16 step does not saturate.",
            ),
        ),
        Profile(
            "a2",
            "Ascend 910B, A3, 310B",
            rules.quantize_float16,
            rules.dequantize_fixpipe,
            rules.antiquantize_float16,
            half=True,
            undecided=(*_EVERY_CHIP, _HALF, _FIXPIPE),
        ),
        Profile(
            "310p",
            "Ascend 310P",
            rules.quantize_float16,
            rules.dequantize_vector,
            rules.antiquantize_float16,
            half=True,
            undecided=(
                *_EVERY_CHIP,
                _HALF,
                "Whether the vector dequant drops the 13 low bits of the scale; simulated as keeping them.",
                _FUSION,
            ),
        ),
        Profile(
            "310",
            "Ascend 310, 910",
            rules.quantize_float16,
            rules.dequantize_half_scale,
            rules.antiquantize_float16,
            half=True,
            undecided=(
                *_EVERY_CHIP,
                _HALF,
                "Where the product with the float16 scale is rounded (1 unit in the last place); simulated once, last.",
                "Whether one scale below 2^-14 sends all channels into sqrt_mode; simulated so.",
                _FUSION,
            ),
        ),
    )
}

"""Name -> profile; ``device.chips`` resolves the names that users know."""
