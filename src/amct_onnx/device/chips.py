"""The chips: the names that users know, their arithmetic, and what ATC does for each; facts as data, with sources."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from amct_onnx.device.profiles import PROFILES, REFERENCE, Profile
from amct_onnx.errors import SettingError
from amct_onnx.graph.layers import LAYER_KINDS

LAYERS = tuple(LAYER_KINDS)
"""Operators that most products' documentation names as quantized layers."""
CHECKED, OLD_COMPILERS, SKIPPED = "checked", "older compilers only", "skipped"


@dataclass(frozen=True)
class Chip:
    """One line of chips, with equal facts.

    Attributes:
        name: short name, as used in findings.
        profile: profile of its arithmetic, see ``device.profiles``.
        other_names: further short names that users know.
        isa: architecture that GE's pass switches name.
        soc_versions: values of ATC's ``--soc_version``, examples first.
        pattern: regular expression of all values, matched whole and without regard to case.
        deq_scale_shape: whether the compiler checks that deq_scale is a 1-D constant (CHECKED, OLD_COMPILERS, SKIPPED).
        float16_deq_scale: True when deq_scale is turned into float16 (square root when below 2^-14).
        vector_dequant: True when a uint64 deq_scale must come without sqrt_mode.
        uint64_deq_scale_only: True when a float16 deq_scale is not taken.
        requant_fusion: what the default build does to AscendDequant -> AscendQuant; "" for nothing.
        small_channel_rollback: True when a Conv of at most 16 input channels was seen rolled back to float.
        conv3d: True when an int8 3-D convolution is listed.
        first_layer: True when the compiler can keep a first layer of few channels int8 (AIPP in front of it).
        switched_off: fusion passes that the documentation wants off before dumps are compared layer by layer.
        int8_layers: operators that the documentation names as quantized layers.
        activation_products: True when the documentation says that an int8 MatMul of two activations gains there.
        int4: what is known of int4; "" for nothing.
        source: where the facts come from.
    """

    name: str
    profile: str
    other_names: tuple[str, ...]
    isa: str
    soc_versions: tuple[str, ...]
    pattern: str
    deq_scale_shape: str
    float16_deq_scale: bool
    vector_dequant: bool
    uint64_deq_scale_only: bool
    requant_fusion: str
    small_channel_rollback: bool
    conv3d: bool
    first_layer: bool
    int4: str
    switched_off: tuple[str, ...]
    source: str
    int8_layers: tuple[str, ...] = LAYERS
    activation_products: bool = False

    @property
    def float16_chain(self) -> bool:
        """True when AscendQuant and AscendAntiQuant compute in float16, False for float32."""
        return PROFILES[self.profile].half


_COMMON_PASSES = (
    "ConvConcatFusionPass",
    "SplitConvConcatFusionPass",
    "TbeEltwiseQuantFusionPass",
    "TbeConvDequantVaddReluQuantFusionPass",
    "TbeConvDequantVaddReluFusionPass",
    "TbeConvDequantQuantFusionPass",
    "TbeDepthwiseConvDequantFusionPass",
    "TbeFullyconnectionElemwiseDequantFusionPass",
    "TbeConv2DAddMulQuantPass",
    "TbePool2dQuantFusionPass",
    "TbeCommonRules0FusionPass",
    "TbeCommonRules2FusionPass",
)
"""ge: docs/zh/user_guides/atc_tools/CLI_options/--fusion_switch_file.md, the lists for models that AMCT quantized."""
_V100_PASSES = ("V100RequantFusionPass", *_COMMON_PASSES)
_V200_PASSES = ("V200RequantFusionPass", *_COMMON_PASSES)
_GE_FUSION = "ge: nn_engine/.../graph_fusion.cc (JudgeQuantMode), quant_pass/quant_host_cpu_op_common.cc"
_V100_FUSION = "the following quantizer's scale is multiplied into deq_scale (V100RequantFusionPass)"

CHIPS = (
    Chip(
        name="310",
        profile="310",
        other_names=(),
        isa="V100",
        soc_versions=("Ascend310",),
        pattern=r"Ascend310",
        deq_scale_shape=OLD_COMPILERS,
        float16_deq_scale=True,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion=_V100_FUSION,
        small_channel_rollback=True,
        conv3d=False,
        first_layer=False,
        int4="",
        switched_off=_V100_PASSES,
        source=f"{_GE_FUSION}; dump of a compiled ResNet-50 in ge: tests/engines/nn_engine",
    ),
    Chip(
        name="910",
        profile="310",
        other_names=("910A",),
        isa="V100",
        soc_versions=("Ascend910A", "Ascend910B", "Ascend910ProA", "Ascend910ProB", "Ascend910PremiumA"),
        # Ascend910B without a digit is a 910 of the first generation, not a 910B
        pattern=r"Ascend910(A|B|ProA|ProB|PremiumA)?",
        deq_scale_shape=OLD_COMPILERS,
        float16_deq_scale=True,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion=_V100_FUSION,
        small_channel_rollback=True,
        conv3d=False,
        first_layer=False,
        int4="",
        switched_off=_V100_PASSES,
        source=f"{_GE_FUSION}; torch_npu's table of SoC versions",
    ),
    Chip(
        name="310P",
        profile="310p",
        other_names=(),
        isa="V200",
        soc_versions=("Ascend310P3", "Ascend310P1", "Ascend310P5", "Ascend310P7", "Ascend310P3Vir01"),
        pattern=r"Ascend310P([1-57](Vir0[1248])?)?",
        deq_scale_shape=CHECKED,
        float16_deq_scale=False,
        vector_dequant=True,
        uint64_deq_scale_only=True,
        requant_fusion="AscendDequant and AscendQuant become one AscendRequant (V200RequantFusionPass)",
        small_channel_rollback=False,
        conv3d=False,
        first_layer=True,
        int4="handled as on V100; unproven",
        switched_off=_V200_PASSES,
        source=_GE_FUSION,
    ),
    Chip(
        name="310B",
        profile="a2",
        other_names=(),
        isa="V300",
        soc_versions=("Ascend310B1", "Ascend310B2", "Ascend310B3", "Ascend310B4"),
        pattern=r"Ascend310B[1-4]?",
        deq_scale_shape=SKIPPED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=False,
        first_layer=True,
        int4="",
        switched_off=_COMMON_PASSES,
        source=f"{_GE_FUSION}; asc-devkit: in-path quantisation",
        activation_products=True,
    ),
    Chip(
        name="910B",
        profile="a2",
        other_names=("A2",),
        isa="V220",
        soc_versions=("Ascend910B1", "Ascend910B2", "Ascend910B2C", "Ascend910B3", "Ascend910B4", "Ascend910B4-1"),
        pattern=r"Ascend910B([134]|2C?|4-1)",
        deq_scale_shape=CHECKED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=True,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=True,
        first_layer=False,
        int4="formats NC1HWC0 and FRACTAL_NZ only, static shapes",
        switched_off=_COMMON_PASSES,
        source="ge: tests/.../aic-ascend910b-ops-info-legacy.json, graph_fusion.cc (JudgeQuantMode)",
        activation_products=True,
    ),
    Chip(
        name="A3",
        profile="a2",
        other_names=("910C", "910_93"),
        isa="V220",
        soc_versions=(
            "Ascend910_9391",
            "Ascend910_9392",
            "Ascend910_9381",
            "Ascend910_9382",
            "Ascend910_9372",
            "Ascend910_9362",
        ),
        pattern=r"Ascend910_93[6-9][12]",
        deq_scale_shape=CHECKED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=True,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=True,
        first_layer=False,
        int4="formats NC1HWC0 and FRACTAL_NZ only, static shapes",
        switched_off=_COMMON_PASSES,
        source="as 910B, of which it has the architecture",
        activation_products=True,
    ),
    Chip(
        name="950",
        profile="ascend950",
        other_names=("A5", "950PR", "950DT"),
        isa="V300",
        soc_versions=(
            "Ascend950PR_9599",
            "Ascend950PR_9589",
            "Ascend950PR_958b",
            "Ascend950PR_9579",
            "Ascend950PR_957b",
            "Ascend950PR_957c",
            "Ascend950PR_957d",
            "Ascend950PR_950z",
            "Ascend950DT_9591",
            "Ascend950DT_9581",
            "Ascend950DT_9571",
            "Ascend950DT_950x",
            "Ascend950DT_950y",
            "Ascend950DT_95A1",
            "Ascend950DT_95A2",
        ),
        pattern=r"Ascend950((PR|DT)(_95[0-9][0-9a-z]?|_95a[0-9a-z]?)?)?|Ascend910_95[0-9][0-9a-z]",
        deq_scale_shape=SKIPPED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=True,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=True,
        first_layer=False,
        int4="ND as well",
        switched_off=(),
        source="ops-nn: quant/ascend_quant/tests/assets/golden.py, op_kernel/arch35, quant/ascend_dequant/op_host/"
        "ascend_dequant_def.cpp",
    ),
    Chip(
        name="IPV350",
        # of its arithmetic nothing is public; its architecture skips the checks that 310B skips
        profile="a2",
        other_names=(),
        isa="V350",
        soc_versions=("IPV350",),
        pattern=r"(Ascend)?IPV350",
        deq_scale_shape=SKIPPED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=False,
        first_layer=False,
        int4="",
        switched_off=(),
        source="CANN documentation of AMCT (quantized layers); ge: graph_fusion.cc (JudgeQuantMode). Its arithmetic is "
        "not public: that of 310B is assumed",
        int8_layers=("ConvTranspose",),
    ),
)


def find_chip(name: str) -> Chip:
    """The chip of a name that a user knows: ``Ascend310P3``, ``310P``, ``910B``, ``Ascend910B4``, ``a2``, ``950``.

    Case does not matter. ``Ascend910B`` is a SoC version of the first generation (910); ``910B`` names the line of
    Ascend910B1 to B4.

    Raises:
        SettingError: No chip has this name; the nearest known names are given.
    """
    wanted = name.casefold()
    for chip in CHIPS:
        if wanted in (n.casefold() for n in (chip.name, *chip.other_names)):
            return chip
    for spelled in (name, f"Ascend{name}"):
        for chip in CHIPS:
            if re.fullmatch(chip.pattern, spelled, re.IGNORECASE):
                return chip
    raise SettingError(f"{_unknown(name)}. Use the name that `npu-smi info` shows, with 'Ascend' in front.")


def soc_version_of(name: str) -> str:
    """The value of ATC's ``--soc_version`` for a name that ``find_chip`` takes; a line's name gives its first chip.

    Raises:
        SettingError: No chip has this name.
    """
    chip = find_chip(name)
    for spelled in (name, f"Ascend{name}"):
        known = next((s for s in chip.soc_versions if s.casefold() == spelled.casefold()), None)
        if known is not None:
            return known
        of_line = chip.name.casefold() in (name.casefold(), name.casefold().removeprefix("ascend"))
        if not of_line and re.fullmatch(chip.pattern, spelled, re.IGNORECASE):
            return spelled
    return chip.soc_versions[0]


def find_profile(device: str) -> Profile:
    """The arithmetic of a device: ``reference``, a profile's name, or any name that ``find_chip`` takes.

    Raises:
        SettingError: Nothing has this name; the nearest known names are given.
    """
    if device.casefold() in PROFILES:
        return PROFILES[device.casefold()]
    try:
        return PROFILES[find_chip(device).profile]
    except SettingError:
        raise SettingError(f"{_unknown(device, PROFILES)}. Use one of them, or '{REFERENCE}'.") from None


def _unknown(name: str, profiles: Iterable[str] = ()) -> str:
    names = [*(n for c in CHIPS for n in (c.name, *c.other_names)), *profiles]
    short = [n for i, n in enumerate(names) if n.casefold() not in (m.casefold() for m in names[:i])]
    known = [*short, *(s for c in CHIPS for s in c.soc_versions)]
    spelled = {n.casefold(): n for n in reversed(known)}
    near = [spelled[n] for n in get_close_matches(name.casefold(), spelled, n=4, cutoff=0.7)]
    return f"Unknown chip '{name}'; " + (
        f"the nearest are {', '.join(near)}" if near else f"known are {', '.join(short)}"
    )
