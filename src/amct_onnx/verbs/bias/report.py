"""The bias report: what became of each layer's bias in the adapted source model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from amct_onnx.common.shown_report import ShownReport
from amct_onnx.plan.ledger import BiasError

BiasAction = Literal["rounded", "exact", "no-bias", "float", "unreachable"]
ROUNDED, EXACT, NO_BIAS, FLOAT, UNREACHABLE = get_args(BiasAction)
MEANINGS: dict[BiasAction, str] = {
    ROUNDED: "written as multiples of scale_d * scale_w",
    EXACT: "was a multiple of scale_d * scale_w already",
    NO_BIAS: "the layer has none that becomes an integer",
    FLOAT: "the layer stays float, so that nothing rounds its bias",
    UNREACHABLE: "not changed: it has no place of its own in the file",
}


@dataclass(frozen=True)
class BiasEntry:
    """One candidate layer.

    Attributes:
        name, op_type: name and operator of the layer.
        action: a key of MEANINGS.
        tensor: name of the tensor in the written model that holds the rounded bias; "" when nothing was changed.
        before: error of rounding the source's bias; None without an int8 bias.
        after: the same in the written model; not 0 where the bias's float type holds no multiple exactly.
        detail: further text for the user, with the remedy.
    """

    name: str
    op_type: str
    action: BiasAction
    tensor: str = ""
    before: BiasError | None = None
    after: BiasError | None = None
    detail: str = ""


@dataclass(frozen=True, repr=False)
class BiasReport(ShownReport):
    """The result of ``quantize_bias``.

    Attributes:
        model_file: path of the source.
        output_file: path of the model that was written.
        layers: one entry for each candidate layer, in graph order.
    """

    SCHEMA_VERSION = 1
    SCREEN = "amct_onnx.verbs.bias.screen"
    JSON_ALSO = ("summary",)

    model_file: str
    output_file: str
    layers: tuple[BiasEntry, ...]

    @property
    def unreachable(self) -> tuple[BiasEntry, ...]:
        """Layers whose bias is rounded by a conversion but could not be rounded in the source."""
        return tuple(e for e in self.layers if e.action == UNREACHABLE)

    def summary(self) -> str:
        """One line: how many biases were rounded, and what became of the others."""
        counts = Counter(e.action for e in self.layers)
        text = f"{counts[ROUNDED]} of {len(self.layers)} candidate layers have rounded biases now"
        others = [f"{counts[a]} x {a}" for a in MEANINGS if a != ROUNDED and counts[a]]
        return text + ("; others: " + ", ".join(others) if others else "") + "."
