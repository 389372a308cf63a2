"""A rule's note for the planner, kept on the node, that a layer stays float."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

KEY = "amct_onnx.refused"


class Note(NamedTuple):
    """Why a layer stays float: reason code, what is at fault, what would help."""

    reason: str
    detail: str
    remedy: str


def note_refusal(node: ir.Node, reason: str, detail: str, remedy: str) -> None:
    """Note on a layer that it stays float; the first note wins."""
    node.meta.setdefault(KEY, Note(reason, detail, remedy))


def noted_refusal(node: ir.Node) -> Note | None:
    """The note on a node, if any."""
    note: Note | None = node.meta.get(KEY)
    return note
