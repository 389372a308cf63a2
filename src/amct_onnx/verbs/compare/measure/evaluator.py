"""The user's own metric: a Python file with ``evaluate(outputs, feeds, labels)``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np

from amct_onnx.common.arrays import Array, Float64
from amct_onnx.data.user_code import read_code, run_code, user_code
from amct_onnx.errors import DataError

METRIC_LIMIT = 1_000
"""Metrics of one evaluator: a table with more columns shows nothing."""
LONGEST_NAME = 1_000
"""Characters of a metric's name."""


class Evaluator:
    """Runs the functions that a source text defines.

    ``evaluate(outputs, feeds, labels)`` gets the arrays of one batch by name (labels None without --labels) and returns
    ``{metric: one number per sample}``. A metric is the mean over all samples, or what ``finish(sums, samples)``, when
    the text defines it, makes of the sums: ``{metric: number}``. Sums are exact, so batches may come in any order.

    Raises:
        DataError: The text cannot be run, or does not define ``evaluate``.
    """

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._names = run_code(text, file, "amct_evaluator")
        if not callable(self._names.get("evaluate")):
            raise DataError(f"{file}: defines no function evaluate(outputs, feeds, labels). Add one.")

    def evaluate(
        self, outputs: Mapping[str, Array], feeds: Mapping[str, Array], labels: Array | None, samples: int
    ) -> dict[str, Float64]:
        """One number per sample and metric.

        Args:
            outputs: of the batch.
            feeds: of the batch.
            labels: of the batch.
            samples: in the batch.

        Raises:
            DataError: The function fails, or gives something else.
        """
        # what else compares these arrays must not see what the function makes of them
        arrays = [{n: _read_only(v) for n, v in given.items()} for given in (outputs, feeds)]
        with user_code(self._file, "evaluate() failed"):
            made = self._names["evaluate"](*arrays, None if labels is None else _read_only(labels))
        if not isinstance(made, Mapping):
            raise DataError(
                f"{self._file}: evaluate() returns {type(made).__name__}. Return a dict of one number per sample for "
                "each metric."
            )
        with user_code(self._file, "evaluate() returns something else than numbers"):
            numbers = {_name(n): np.array(v, np.float64).reshape(-1) for n, v in made.items()}
        self._check_count(len(numbers))
        for name, values in numbers.items():
            if values.size != samples:
                raise DataError(
                    f"{self._file}: evaluate() gave {values.size} numbers for '{name}' and {samples} samples. Return "
                    "one number per sample, for example the mean over all axes but the first."
                )
            if not np.all(np.isfinite(values)):
                raise DataError(f"{self._file}: evaluate() gave a '{name}' that is not finite. Return finite numbers.")
        return numbers

    def finish(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        """The metrics of all samples.

        Raises:
            DataError: The function fails, or gives something else.
        """
        for name, total in sums.items():
            if not math.isfinite(total):
                raise DataError(f"{self._file}: the sum of '{name}' leaves float64. Return smaller numbers.")
        if "finish" not in self._names:
            return {n: s / samples for n, s in sums.items()}
        with user_code(self._file, "finish() failed"):
            made = {_name(n): float(v) for n, v in self._names["finish"](dict(sums), samples).items()}
        self._check_count(len(made))
        for name, value in made.items():
            if not math.isfinite(value):
                raise DataError(f"{self._file}: finish() gave a '{name}' that is not finite. Return finite numbers.")
        return made

    def _check_count(self, metrics: int) -> None:
        if metrics > METRIC_LIMIT:
            raise DataError(f"{self._file}: gives {metrics} metrics. Return {METRIC_LIMIT} at most.")


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _name(name: object) -> str:
    """Of a metric, as it can be written."""
    text = str(name)
    text.encode()  # UnicodeEncodeError
    if len(text) > LONGEST_NAME:
        raise ValueError(f"a metric's name of {len(text):,} characters")
    return text


def read_evaluator(path: str | os.PathLike[str]) -> str:
    """The text of an evaluator's file, checked to define what it must.

    Raises:
        DataError: It is missing or unusable.
    """
    text = read_code(path)
    Evaluator(text, os.fspath(path))
    return text
