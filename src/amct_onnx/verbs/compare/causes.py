"""What the places where a model leaves its source are called, and why it does."""

from __future__ import annotations

from typing import Literal, get_args

FaultCause = Literal[
    "not-finite",
    "accumulator-overflow",
    "saturation",
    "zero-point-fault",
    "bias-fault",
    "scale-fault",
    "sign-fault",
    "weight-fault",
    "fault-between-layers",
    "ledger-contradiction",
    "node-missing",
    "node-added",
    "node-replaced",
    "attribute-changed",
    "wiring-changed",
    "type-changed",
    "constant-changed",
    "declaration-changed",
    "file-unreadable",
    "other-model",
]
NoiseCause = Literal["bias-rounding", "ties", "device-arithmetic", "refused-layer", "inherited"]
Cause = Literal[FaultCause, NoiseCause]
NOISE_CAUSES: frozenset[Cause] = frozenset(get_args(NoiseCause))
"""Causes of a ``Divergence`` that quantization explains; every other cause is a fault."""
Side = Literal["at", "before", "behind"]
AT, BEFORE, BEHIND = get_args(Side)
