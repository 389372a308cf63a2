"""Which of the compared tensors one is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amct_onnx.common.json_values import JsonText

OUTPUT, LAYER, INPUT = "output", "layer", "input"
NODE = "node"
"""What any other node gives: told apart when a fault is looked for, never kept."""
TEXT = re.compile(rf"(?P<kind>{OUTPUT}|{LAYER}|{INPUT}):(?P<index>0|[1-9][0-9]{{0,8}})")


@dataclass(frozen=True)
class Key(JsonText):
    """A compared tensor by its place in the network.

    Attributes:
        kind: a graph ``output``, what a ``layer`` makes, or what a layer's quantizer reads (``input``), or
            what another ``node`` gives.
        index: of the output in the graph, of the node in the source, else of the layer in the ledger.
    """

    kind: str
    index: int

    def to_text(self) -> str:
        """As a state file spells it, for example ``layer:3``."""
        return f"{self.kind}:{self.index}"

    @classmethod
    def from_text(cls, text: str) -> Key:
        """From a state file.

        Raises:
            ValueError: Another text than ``to_text`` gives.
        """
        match = TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' does not name a compared tensor")
        return cls(match["kind"], int(match["index"]))
