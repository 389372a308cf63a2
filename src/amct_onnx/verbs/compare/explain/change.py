"""One place where an output model is not what the conversion writes, and what the places are called."""

from __future__ import annotations

from dataclasses import dataclass

from amct_onnx.verbs.compare.causes import FaultCause

MISSING: FaultCause = "node-missing"
ADDED: FaultCause = "node-added"
REPLACED: FaultCause = "node-replaced"
ATTRIBUTE: FaultCause = "attribute-changed"
WIRING: FaultCause = "wiring-changed"
TYPE: FaultCause = "type-changed"
DECLARATION: FaultCause = "declaration-changed"
UNREADABLE: FaultCause = "file-unreadable"
OTHER_MODEL: FaultCause = "other-model"
LEDGER: FaultCause = "ledger-contradiction"
SCALE: FaultCause = "scale-fault"
ZERO_POINT: FaultCause = "zero-point-fault"
BIAS: FaultCause = "bias-fault"
WEIGHT: FaultCause = "weight-fault"
SIGN: FaultCause = "sign-fault"
CONSTANT: FaultCause = "constant-changed"
OF_FILES = frozenset({UNREADABLE, OTHER_MODEL})
"""Causes of a whole file."""
CHANGES = OF_FILES | {MISSING, ADDED, REPLACED, ATTRIBUTE, WIRING, TYPE, DECLARATION, SIGN, CONSTANT, LEDGER}
"""Causes that only this comparison gives."""


@dataclass(frozen=True)
class Change:
    """One place where a model is not what the conversion writes.

    Attributes:
        node: its name.
        op_type: of it.
        cause: one of the constants above.
        text: one sentence, without a model's name in front.
        beside: names of nodes beside it in the converted model: the readers of a node that is missing.
    """

    node: str
    op_type: str
    cause: FaultCause
    text: str
    beside: tuple[str, ...] = ()
