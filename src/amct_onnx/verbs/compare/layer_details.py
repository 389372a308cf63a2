"""What a report tells of one layer beyond its figures: input, channels, nodes; values of ``report.LayerResult``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputHistogram:
    """What the quantizer of a layer's input met in the source, in every eighth batch from the first on.

    Attributes:
        low, high: the range beyond which it saturates, as floats.
        values: how many were counted; NaN lies in no bin.
        counts: of 66 bins of width (high - low) / 32: 17 below the range, 32 of it, 17 above. The first and the last
            hold all that lies beyond as well.
    """

    low: float
    high: float
    values: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ChannelErrors:
    """How a model's output channels of one layer differ from the source, on the first batch.

    Attributes:
        model: key of the model.
        channels: of the layer.
        together: neighbouring channels that one figure stands for; the largest of theirs counts.
        errors: at most 64 mean absolute errors, in LSB where the layer's is known; None where they are not finite.
        worst: number of the worst channel, from 0.
    """

    model: str
    channels: int
    together: int
    errors: tuple[float | None, ...]
    worst: int


@dataclass(frozen=True)
class GraphNode:
    """A node in the picture of a layer.

    Attributes:
        name: of the node; of its first output when it has none.
        op_type: operator type.
        own: whether the layer consists of it; else it is a neighbour.
        layer: whether it is the Conv, Gemm, LSTM, ... itself.
        reads: numbers of the nodes in the picture whose outputs it reads.
    """

    name: str
    op_type: str
    own: bool
    layer: bool
    reads: tuple[int, ...]
