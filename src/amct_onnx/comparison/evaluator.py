"""The user's own metric: a Python file with ``evaluate(outputs, feeds, labels)``."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_onnx.errors import DataError

Array = npt.NDArray[Any]


class Evaluator:
    """Runs the functions that a source text defines.

    ``evaluate(outputs, feeds, labels)`` gets the arrays of one batch by name (labels None without --labels) and returns
    ``{metric: one number per sample}``. A metric is the mean over all samples, or what ``finish(sums, samples)``, when
    the text defines it, makes of the sums: ``{metric: number}``. Sums are exact, so batches may come in any order.

    Raises:
        DataError: The text cannot be run, or does not define ``evaluate``.
    """

    def __init__(self, text: str, label: str = "evaluator") -> None:
        self._label = label
        self._names: dict[str, Any] = {"__name__": "amct_evaluator"}
        try:
            exec(compile(text, label, "exec"), self._names)
        except Exception as error:  # the user's code raises what it likes
            raise DataError(f"{label}: cannot be run ({type(error).__name__}: {error}). Correct the file.") from error
        if not callable(self._names.get("evaluate")):
            raise DataError(f"{label}: defines no function evaluate(outputs, feeds, labels). Add one.")

    def evaluate(
        self, outputs: Mapping[str, Array], feeds: Mapping[str, Array], labels: Array | None, samples: int
    ) -> dict[str, npt.NDArray[np.float64]]:
        """One number per sample and metric.

        Args:
            outputs: of the batch.
            feeds: of the batch.
            labels: of the batch.
            samples: in the batch.

        Raises:
            DataError: The function fails, or gives something else.
        """
        try:
            made = self._names["evaluate"](dict(outputs), dict(feeds), labels)
        except Exception as error:  # the user's code raises what it likes
            raise self._failed("evaluate", error) from error
        if not isinstance(made, Mapping):
            raise DataError(
                f"{self._label}: evaluate() returns {type(made).__name__}. Return a dict of one number per sample for "
                "each metric."
            )
        try:
            numbers = {str(n): np.asarray(v, np.float64).reshape(-1) for n, v in made.items()}
        except (TypeError, ValueError) as error:
            raise self._failed("evaluate", error) from error
        for name, values in numbers.items():
            if values.size != samples:
                raise DataError(
                    f"{self._label}: evaluate() gave {values.size} numbers for '{name}' and {samples} samples. Return "
                    "one number per sample, for example the mean over all axes but the first."
                )
            if not np.all(np.isfinite(values)):
                raise DataError(f"{self._label}: evaluate() gave a '{name}' that is not finite. Return finite numbers.")
        return numbers

    def finish(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        """The metrics of all samples.

        Raises:
            DataError: The function fails, or gives something else.
        """
        if "finish" not in self._names:
            return {n: s / samples for n, s in sums.items()}
        try:
            return {str(n): float(v) for n, v in self._names["finish"](dict(sums), samples).items()}
        except Exception as error:  # the user's code raises what it likes
            raise self._failed("finish", error) from error

    def _failed(self, function: str, error: Exception) -> DataError:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self._label]
        place = f", line {lines[-1]}" if lines else ""
        return DataError(f"{self._label}{place}: {function}() failed ({type(error).__name__}: {error}). Correct it.")


def read_evaluator(path: str | os.PathLike[str]) -> str:
    """The text of an evaluator's file, checked to define what it must.

    Raises:
        DataError: It is missing or unusable.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error}). Give a Python file.") from error
    Evaluator(text, os.fspath(path))
    return text
