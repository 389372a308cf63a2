"""What a user may choose about a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from amct_onnx.errors import SettingError

GEMM_PER_CHANNEL = ("mul", "vector", "refuse")


@dataclass(frozen=True)
class PlanSettings:
    """Choices that change the plan.

    Attributes:
        grid_weights: take float weights without Q/DQ that lie on an int8 grid.
        gemm_per_channel: what a Gemm or MatMul with a scale per output channel becomes: ``"mul"`` one AscendDequant
            scale and a float Mul, ``"vector"`` a deq_scale of length N, ``"refuse"`` a float layer.
        keep_conv1d: leave 1-D convolutions 1-D in the deploy model.

    Raises:
        SettingError: An unknown gemm_per_channel.
    """

    grid_weights: bool = True
    gemm_per_channel: str = "mul"
    keep_conv1d: bool = False

    def __post_init__(self) -> None:
        """Check what a caller chose."""
        if self.gemm_per_channel not in GEMM_PER_CHANNEL:
            raise SettingError(
                f"gemm_per_channel is {self.gemm_per_channel!r}. Use one of {', '.join(GEMM_PER_CHANNEL)}."
            )
