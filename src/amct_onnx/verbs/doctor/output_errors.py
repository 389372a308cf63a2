"""How far the outputs under one setting are from the exact reference, and what that is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array, Float64
from amct_onnx.common.onnxruntime_session import open_session
from amct_onnx.common.text_codes import without_texts
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.verbs.doctor.report import EDGES, EQUAL, REFUSED, ROUNDING, WRONG, SettingResult, SettingVerdict
from amct_onnx.verbs.doctor.settings import Setting

ROUNDING_SHARE = 1e-5
"""Float32 sums of up to some 10^5 terms stay within this share of the largest value (2^-24 * sqrt(10^5) = 2e-5 is the
statistical growth of a sum as large as its terms; measured sums are ten times below it). An 8-bit step is 400 times
larger."""
EDGE_SHARE = 0.01
"""Share of values that may lie on an edge, even when float32 as written shows none."""
INT8_STEPS = 127
"""A float output counts as 127 steps up to its largest absolute value."""


@dataclass
class OutputErrors:
    """Errors of one output, or of all when merged."""

    output: str = ""
    largest: float = 0.0
    share: float = 0.0
    steps: float = 0.0
    sum_steps: float = 0.0
    differing: int = 0
    unequal: int = 0
    values: int = 0


def measure(
    content: str | bytes,
    setting: Setting,
    names: list[str],
    batches: list[dict[str, Array]],
    expected: list[list[Any]],
    steps: dict[str, float],
) -> OutputErrors | str:
    """The errors under a setting, or why it was refused; one session is open at a time."""
    try:
        session = open_session(content, setting.options())
        got = [session.run(names, feed) for feed in batches]
    except Exception as error:  # onnxruntime's classes share no base
        return str(error)
    merged = OutputErrors()
    for index, name in enumerate(names):
        mine, theirs = ([np.asarray(row[index]) for row in rows] for rows in (got, expected))
        one = _errors_of(name, mine, theirs, steps.get(name))
        if one.steps >= merged.steps:
            merged.output, merged.largest, merged.share, merged.steps = name, one.largest, one.share, one.steps
        merged.sum_steps += one.sum_steps
        merged.differing += one.differing
        merged.unequal += one.unequal
        merged.values += one.values
    return merged


def _errors_of(name: str, got: list[Array], expected: list[Array], step: float | None) -> OutputErrors:
    """Errors of one output over all feeds; a value that is not finite on one side alone is infinitely wrong."""
    magnitudes = [np.abs(e[np.isfinite(e)], dtype=np.float64).max(initial=0.0) for e in map(_numbers, expected)]
    largest = max(magnitudes, default=0.0) or 1.0
    step = step or (1.0 if expected[0].dtype.kind in "iub" else largest / INT8_STEPS)
    result = OutputErrors(output=name)
    for mine, theirs in zip(map(_numbers, got), map(_numbers, expected), strict=True):
        if mine.shape != theirs.shape:
            raise UnsupportedModelError(
                f"Output '{name}' has shape {list(mine.shape)} under one setting and {list(theirs.shape)} under "
                "another, so that values cannot be compared. Give data for which its shape is fixed."
            )
        with np.errstate(invalid="ignore"):
            error = np.abs(mine - theirs)
        same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
        error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
        result.largest = max(result.largest, float(error.max(initial=0.0)))
        result.sum_steps += float(error.sum()) / step
        result.differing += int(np.count_nonzero(error > ROUNDING_SHARE * largest))
        result.unequal += int(np.count_nonzero(~same))
        result.values += error.size
    result.share, result.steps = result.largest / largest, result.largest / step
    return result


def _numbers(array: Array) -> Float64:
    """float64, which holds every float16, float32 and 32-bit integer; texts by ``without_texts``."""
    return without_texts(np.asarray(array)).astype(np.float64)


def result_of(setting: Setting, errors: OutputErrors | str, floor: OutputErrors | str) -> SettingResult:
    """The row of a setting.

    Args:
        setting: that was tried.
        errors: from ``measure``.
        floor: the same of the Q/DQ form with every node computed as written.
    """
    about = (setting.name, setting.level, dict(setting.entries), setting.why)
    if isinstance(errors, str):
        return SettingResult(*about, verdict=REFUSED, detail=errors)
    values = max(1, errors.values)
    return SettingResult(
        *about,
        verdict=_verdict(errors, floor),
        max_error=errors.largest,
        max_error_share=errors.share,
        max_error_steps=errors.steps,
        mean_error_steps=errors.sum_steps / values,
        differing=errors.differing / values,
        worst_output=errors.output if errors.unequal else "",
    )


def _verdict(errors: OutputErrors, floor: OutputErrors | str) -> SettingVerdict:
    """Equal, rounding, edges or wrong.

    A value on the edge between two steps may fall to either side in float32 and then moves what follows. How often and
    how far, is measured: the Q/DQ form with every node computed as written has no other error. Twice that is granted,
    at least one step in one of a hundred values.
    """
    if not errors.unequal:
        return EQUAL
    if errors.share <= ROUNDING_SHARE:
        return ROUNDING
    far, often = (0.0, 0.0) if isinstance(floor, str) else (floor.steps, floor.differing / max(1, floor.values))
    near = errors.steps <= max(1.0, 2 * far) * (1 + ROUNDING_SHARE)
    rare = errors.differing / max(1, errors.values) <= max(EDGE_SHARE, 2 * often)
    return EDGES if near and rare else WRONG
