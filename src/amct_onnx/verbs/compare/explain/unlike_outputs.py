"""Outputs that do not resemble the source's, though no layer is wrong by itself: a source that multiplies rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amct_onnx.common.arrays import Array
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.report import OutputEntry

UNLIKE_DB = 10.0
"""SQNR below which the error is more than a third of the RMS. The models of tests/data lie at 27 dB and more."""


@dataclass(frozen=True)
class Unlike:
    """The worst output of one model, and its SQNR in dB."""

    model: str
    output: str
    sqnr_db: float


def unlike_outputs(outputs: Sequence[OutputEntry], source: Mapping[str, Array]) -> tuple[Unlike, ...]:
    """At most one for each model.

    Integers without a scale are left out: between two classes or places, a difference says nothing. So is an output
    whose error is below its own step.

    Args:
        outputs: of the report.
        source: of the first batch, by name.
    """
    worst: dict[str, Unlike] = {}
    for output in outputs:
        if source[output.name].dtype.kind != "f" and output.lsb is None:
            continue
        for d in output.differences:
            below = d.mean_lsb is not None and d.mean_lsb < 1
            if d.model == FLOAT or d.sqnr_db is None or d.sqnr_db >= UNLIKE_DB or below:
                continue
            if d.model not in worst or d.sqnr_db < worst[d.model].sqnr_db:
                worst[d.model] = Unlike(d.model, output.name, d.sqnr_db)
    return tuple(worst.values())
