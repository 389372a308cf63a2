"""What a user may choose about a conversion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanSettings:
    """Choices that change the plan.

    Attributes:
        grid_weights: take float weights without Q/DQ that lie on an int8 grid.
    """

    grid_weights: bool = True
