"""Why a layer stays float while the rest of the model converts: raised by the plan, or noted on the node before it."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.marks import marks_of
from amct_onnx.graph.reasons import Reason

KEY = "amct_onnx.refused"
FORM = "amct_onnx.form"


class Refusal(Exception):
    """A layer cannot become int8.

    Attributes:
        reason: reason code, see docs/reasons.md.
        detail: what is at fault.
        remedy: what would help.
    """

    def __init__(self, reason: Reason, detail: str, remedy: str) -> None:
        super().__init__(reason, detail, remedy)
        self.reason, self.detail, self.remedy = reason, detail, remedy


def note_refusal(node: ir.Node, reason: Reason, detail: str, remedy: str) -> None:
    """Note on a layer that it stays float; the first note wins."""
    node.meta.setdefault(KEY, Refusal(reason, detail, remedy))


def note_form(node: ir.Node, why: str) -> None:
    """Note on an operator that is known why it could not be written out; whether it matters, the plan decides."""
    node.meta[FORM] = why


def noted_form(node: ir.Node) -> str:
    """What a rule has noted on the form of an operator; empty for one that is not known."""
    why: str = marks_of(node).get(FORM, "")
    return why


def noted_refusal(node: ir.Node) -> Refusal | None:
    """What a rule has noted on a layer."""
    noted: Refusal | None = marks_of(node).get(KEY)
    return noted


def check_not_refused(node: ir.Node) -> None:
    """Let the plan refuse what a rule has noted.

    Raises:
        Refusal: The one that was noted.
    """
    noted = noted_refusal(node)
    if noted is not None:
        raise Refusal(*noted.args)  # a new one: the traceback of one that is kept would keep the frames alive
