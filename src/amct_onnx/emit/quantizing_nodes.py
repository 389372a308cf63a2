"""Nodes that an output model quantizes with outside of its int8 layers: what they cost is counted from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir


@dataclass(frozen=True)
class QuantizingNodes:
    """Those of one model.

    Attributes:
        pairs: output of a pair -> the nodes that would go with it. What it shares with a layer, or with a pair before
            it, is not among them.
        clips: the Clips in front of quantizers whose range is narrower than int8, those of layers too.
    """

    pairs: dict[str, tuple[ir.Node, ...]] = field(default_factory=dict)
    clips: list[ir.Node] = field(default_factory=list)
