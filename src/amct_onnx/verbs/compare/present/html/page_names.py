"""Names on the page of a comparison: long ones lose their middle, and no two look alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from amct_onnx.common.short_names import LIMIT, distinct, middle_out, pieces

MAX_LAYERS = 1_000
"""Of longer networks the names of the layers alone are held against each other: of all nodes it would take seconds."""


class PageNames:
    """Those of one page.

    Args:
        names: of layers, nodes and tensors.
    """

    def __init__(self, names: Iterable[str]) -> None:
        known = list(dict.fromkeys(names))
        self._distinct = cache(lambda limit: distinct(known, limit))

    def short(self, name: str, limit: int) -> str:
        """A name in so many characters, or a few more where it looks like another else."""
        return self._distinct(limit).get(name) or middle_out(name, limit)

    def pieces(self, text: str, limit: int = LIMIT) -> list[tuple[str, str]]:
        """See ``short_names.pieces``."""
        return pieces(text, limit, self.short)


def names_of(report: Mapping[str, Any]) -> PageNames:
    """The names in a report."""
    layers = report["layers"]

    def all_of_them() -> Iterator[str]:
        for layer in layers:
            yield layer["name"]
            for node in (*layer["source_nodes"], *layer["deploy_nodes"]) if len(layers) <= MAX_LAYERS else ():
                yield node["name"]
        for output in report["outputs"]:
            yield output["name"]
        for residual in report["residuals"]:
            yield residual["tensor"]
        for divergence in report["divergences"]:
            yield divergence["node"]

    return PageNames(all_of_them())
