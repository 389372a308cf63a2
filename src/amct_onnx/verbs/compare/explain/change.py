"""One place where an output model is not what the conversion writes, and what the places are called."""

from __future__ import annotations

from dataclasses import dataclass

MISSING, ADDED, REPLACED = "node-missing", "node-added", "node-replaced"
ATTRIBUTE, WIRING, TYPE = "attribute-changed", "wiring-changed", "type-changed"
DECLARATION = "declaration-changed"
UNREADABLE, OTHER_MODEL, LEDGER = "file-unreadable", "other-model", "ledger-contradiction"
SCALE, ZERO_POINT, BIAS, WEIGHT, SIGN, CONSTANT = (
    "scale-fault",
    "zero-point-fault",
    "bias-fault",
    "weight-fault",
    "sign-fault",
    "constant-changed",
)
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
    cause: str
    text: str
    beside: tuple[str, ...] = ()
