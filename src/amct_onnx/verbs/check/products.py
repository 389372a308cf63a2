"""What is known of each product as far as acceptance by ATC goes: facts as data, each with its source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amct_onnx.errors import SettingError

CHECKED, OLD_COMPILERS, SKIPPED = "checked", "older compilers only", "skipped"


@dataclass(frozen=True)
class Product:
    """One product line.

    Attributes:
        name: short name, as used in findings.
        isa: architecture that GE's pass switches name.
        soc_versions: values of ATC's ``--soc_version``, examples first; ``pattern`` accepts all of them.
        pattern: regular expression, matched whole and without regard to case.
        float16_chain: True when AscendQuant and AscendAntiQuant compute in float16, False for float32.
        deq_scale_shape: whether the compiler checks that deq_scale is a 1-D constant (CHECKED, OLD_COMPILERS, SKIPPED).
        float16_deq_scale: True when deq_scale is turned into float16 (square root when below 2^-14).
        vector_dequant: True when a uint64 deq_scale must come without sqrt_mode.
        uint64_deq_scale_only: True when the operator list has no float16 deq_scale.
        requant_fusion: what the default build does to AscendDequant -> AscendQuant; "" for nothing.
        small_channel_rollback: True when a Conv of at most 16 input channels was seen rolled back to float.
        conv3d: True when an int8 3-D convolution is listed.
        bfloat16_dequant: True when AscendDequant may write bfloat16.
        int4: what is known of int4; "" for nothing.
        source: where the facts come from.
    """

    name: str
    isa: str
    soc_versions: tuple[str, ...]
    pattern: str
    float16_chain: bool
    deq_scale_shape: str
    float16_deq_scale: bool
    vector_dequant: bool
    uint64_deq_scale_only: bool
    requant_fusion: str
    small_channel_rollback: bool
    conv3d: bool
    bfloat16_dequant: bool
    int4: str
    source: str


_GE_FUSION = "ge: nn_engine/.../graph_fusion.cc (JudgeQuantMode), quant_pass/quant_host_cpu_op_common.cc"
_V100_FUSION = "the following quantizer's scale is multiplied into deq_scale (V100RequantFusionPass)"

PRODUCTS = (
    Product(
        name="310",
        isa="V100",
        soc_versions=("Ascend310",),
        pattern=r"Ascend310",
        float16_chain=True,
        deq_scale_shape=OLD_COMPILERS,
        float16_deq_scale=True,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion=_V100_FUSION,
        small_channel_rollback=True,
        conv3d=False,
        bfloat16_dequant=False,
        int4="",
        source=f"{_GE_FUSION}; dump of a compiled ResNet-50 in ge: tests/engines/nn_engine",
    ),
    Product(
        name="910",
        isa="V100",
        soc_versions=("Ascend910A", "Ascend910B", "Ascend910ProA", "Ascend910ProB", "Ascend910PremiumA"),
        # Ascend910B without a digit is a 910 of the first generation, not a 910B
        pattern=r"Ascend910(A|B|ProA|ProB|PremiumA)?",
        float16_chain=True,
        deq_scale_shape=OLD_COMPILERS,
        float16_deq_scale=True,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion=_V100_FUSION,
        small_channel_rollback=True,
        conv3d=False,
        bfloat16_dequant=False,
        int4="",
        source=f"{_GE_FUSION}; torch_npu's table of SoC versions",
    ),
    Product(
        name="310P",
        isa="V200",
        soc_versions=("Ascend310P3", "Ascend310P1", "Ascend310P5", "Ascend310P7", "Ascend310P3Vir01"),
        pattern=r"Ascend310P\d?(Vir\d+)?",
        float16_chain=True,
        deq_scale_shape=CHECKED,
        float16_deq_scale=False,
        vector_dequant=True,
        uint64_deq_scale_only=False,
        requant_fusion="AscendDequant and AscendQuant become one AscendRequant (V200RequantFusionPass)",
        small_channel_rollback=False,
        conv3d=False,
        bfloat16_dequant=False,
        int4="handled as on V100; unproven",
        source=_GE_FUSION,
    ),
    Product(
        name="310B",
        isa="V300",
        soc_versions=("Ascend310B1", "Ascend310B2", "Ascend310B3", "Ascend310B4"),
        pattern=r"Ascend310B\d?",
        float16_chain=True,
        deq_scale_shape=SKIPPED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=False,
        bfloat16_dequant=False,
        int4="",
        source=f"{_GE_FUSION}; asc-devkit: in-path quantisation",
    ),
    Product(
        name="910B",
        isa="V220",
        soc_versions=("Ascend910B1", "Ascend910B2", "Ascend910B2C", "Ascend910B3", "Ascend910B4", "Ascend910B4-1"),
        pattern=r"Ascend910B\d(C)?([-_]\d)?",
        float16_chain=True,
        deq_scale_shape=CHECKED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=True,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=True,
        bfloat16_dequant=False,
        int4="formats NC1HWC0 and FRACTAL_NZ only, static shapes",
        source="ge: tests/.../aic-ascend910b-ops-info-legacy.json, graph_fusion.cc (JudgeQuantMode)",
    ),
    Product(
        name="A3",
        isa="V220",
        soc_versions=("Ascend910_9391", "Ascend910_9392", "Ascend910_9381", "Ascend910_9382", "Ascend910_9372"),
        pattern=r"Ascend910_93\w\w",
        float16_chain=True,
        deq_scale_shape=CHECKED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=True,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=True,
        bfloat16_dequant=False,
        int4="formats NC1HWC0 and FRACTAL_NZ only, static shapes",
        source="as 910B, of which it has the architecture",
    ),
    Product(
        name="950",
        isa="V300",
        soc_versions=("Ascend950PR_9599", "Ascend950PR_9589", "Ascend950PR_957b", "Ascend950DT_9591"),
        pattern=r"Ascend950((PR|DT)(_\w+)?)?|Ascend910_95\w\w",
        float16_chain=False,
        deq_scale_shape=SKIPPED,
        float16_deq_scale=False,
        vector_dequant=False,
        uint64_deq_scale_only=False,
        requant_fusion="",
        small_channel_rollback=False,
        conv3d=True,
        bfloat16_dequant=True,
        int4="ND as well",
        source="ops-nn: quant/ascend_quant/tests/assets/golden.py, op_kernel/arch35",
    ),
)


def product_of(soc_version: str) -> Product:
    """The product line of a value of ATC's ``--soc_version``.

    Raises:
        SettingError: The value is of no known product.
    """
    for product in PRODUCTS:
        if re.fullmatch(product.pattern, soc_version, re.IGNORECASE):
            return product
    known = ", ".join(f"{p.soc_versions[0]} ({p.name})" for p in PRODUCTS)
    raise SettingError(
        f"soc_version '{soc_version}' is of no known product. Use the name that `npu-smi info` shows with 'Ascend' in "
        f"front, for example {known}."
    )
