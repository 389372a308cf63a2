"""Names of a compiled model's operators, and of the dumps of a board: the layer that each stands for.

ATC's parser writes a ConvTranspose, a Gemm with a bias and a 1-D Conv as a small graph of their own, whose operators
are called ``PartitionedCall_<layer>_<operator>_<n>`` afterwards (ge: parser/parser/common/parser_utils.cc). In the
names of dump files all but letters, digits, _ and - is an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EXPANDED = re.compile(r"PartitionedCall_(?P<rest>.+)_(?P<operator>[A-Za-z0-9]+)_(?P<number>\d+)", re.DOTALL)
_REPLACED = re.compile(r"[^A-Za-z0-9_-]")


class CompiledNames:
    """Finds layers by names of the compiled model.

    Args:
        layers: names of the layers in the deploy model.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        self._exact = {name: name for name in layers}
        written: dict[str, str | None] = {}
        for name in self._exact:  # two layers that one file name stands for are neither of them
            flat = flattened(name)
            written[flat] = None if flat in written else name
        self._flat = {flat: name for flat, name in written.items() if name is not None}

    def layer(self, name: str) -> str | None:
        """The layer of an operator's name, or of its form in a file name; None when no layer has it."""
        return self.part(name)[0]

    def part(self, name: str) -> tuple[str | None, str]:
        """The layer, and which operator of its small graph the name is; "" where the layer is one operator."""
        found = self._known(name)
        expanded = EXPANDED.fullmatch(name) if found is None else None
        return (found, "") if expanded is None else (self._known(expanded["rest"]), expanded["operator"])

    def _known(self, name: str) -> str | None:
        return self._exact.get(name) or self._flat.get(flattened(name))


def flattened(name: str) -> str:
    """A name as it stands in the name of a dump file."""
    return _REPLACED.sub("_", name)
