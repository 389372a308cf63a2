"""The settings of a conversion that a user may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from amct_onnx.errors import SettingError

GemmPerChannel = Literal["mul", "vector", "refuse"]
AsymmetricWeights = Literal["refuse", "sum"]
ResidualQuantizers = Literal["keep", "drop"]
ActMatMul = Literal["on", "off"]
GEMM_PER_CHANNEL = get_args(GemmPerChannel)
REFUSE, SUM = ASYMMETRIC_WEIGHTS = get_args(AsymmetricWeights)
KEEP, DROP = RESIDUAL_QUANTIZERS = get_args(ResidualQuantizers)
ON, OFF = ACT_MATMUL = get_args(ActMatMul)


@dataclass(frozen=True)
class PlanSettings:
    """Choices that change the plan.

    Attributes:
        grid_weights: convert float weights without Q/DQ whose values lie on an int8 grid.
        gemm_per_channel: what a Gemm or MatMul with a scale per output channel becomes: ``"mul"`` one AscendDequant
            scale and a float Mul, ``"vector"`` a deq_scale of length N, ``"refuse"`` a float layer.
        keep_conv1d: leave 1-D convolutions 1-D in the deploy model.
        asymmetric_weights: what happens to a layer whose weight does not fit int8 after subtracting its zero point.
            ``"refuse"``: it stays float. ``"sum"``: it becomes int8, and the sum of its input, times the shift of the
            weight, is added.
        residual_quantizers: what happens to pairs that feed no int8 layer. ``"keep"``: they round as in the source.
            ``"drop"``: they go; a saturation that stands for a Relu or a Clip stays.
        act_matmul: what a MatMul of two activations with symmetric quantizers becomes: ``"on"`` an int8 layer,
            ``"off"`` a float one.

    Raises:
        SettingError: An unknown gemm_per_channel, asymmetric_weights, residual_quantizers or act_matmul.
    """

    grid_weights: bool = True
    gemm_per_channel: str = "mul"
    keep_conv1d: bool = False
    asymmetric_weights: str = REFUSE
    residual_quantizers: str = KEEP
    act_matmul: str = ON

    def __post_init__(self) -> None:
        """Check what a caller chose."""
        for name, known in (
            ("gemm_per_channel", GEMM_PER_CHANNEL),
            ("asymmetric_weights", ASYMMETRIC_WEIGHTS),
            ("residual_quantizers", RESIDUAL_QUANTIZERS),
            ("act_matmul", ACT_MATMUL),
        ):
            if getattr(self, name) not in known:
                raise SettingError(f"--{name} is '{getattr(self, name)}'. Use one of {', '.join(known)}.")
