"""The user's own metric: a Python file with ``evaluate(outputs, feeds, labels)``, or ``collect`` and ``score``."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array, Float64
from amct_onnx.common.counted import counted
from amct_onnx.data.user_code import read_code, run_code, user_code
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.measure.records import record_text, records_of

METRIC_LIMIT = 1_000
"""Metrics of one evaluator: a table with more columns shows nothing."""
LONGEST_NAME = 1_000
"""Characters of a metric's name."""


class Evaluator:
    """Runs the functions that a source text defines.

    ``evaluate(outputs, feeds, labels)`` gets the arrays of one batch by name (labels None without --labels) and returns
    ``{metric: one number per sample}``. A metric is the mean over all samples, or what ``finish(sums, samples)``, when
    the text defines it, makes of the sums: ``{metric: number}``. Sums are exact, so batches may come in any order.

    ``collect(outputs, feeds, labels)`` gets the same and returns one record per sample, which JSON holds;
    ``score(records)`` makes ``{metric: number}`` of those of all samples, in the order of the data.

    Raises:
        DataError: The text cannot be run, or defines neither ``evaluate`` nor ``collect`` and ``score``.
    """

    def __init__(self, text: str, file: str, own: object = None) -> None:
        """Run the text, or take the functions of an object of the caller's own."""
        self._file = file
        self._names = run_code(text, file, "amct_evaluator") if own is None else _functions_of(own)
        defined = {n for n in ("evaluate", "collect", "score") if callable(self._names.get(n))}
        if ("collect" in defined) != ("score" in defined):
            there, missing = ("collect", "score") if "collect" in defined else ("score", "collect")
            raise DataError(f"{file}: defines {there}() without {missing}(). Add the other.")
        if not defined:
            raise DataError(f"{file}: defines no function evaluate(outputs, feeds, labels). Add one.")
        self.sums, self.collects = "evaluate" in defined, "collect" in defined

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
        if not self.sums:
            return {}
        made = self._called("evaluate", outputs, feeds, labels)
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
                    f"{self._file}: evaluate() gave {counted(values.size, 'number')} for '{name}' and "
                    f"{counted(samples, 'sample')}. Return one number per sample, for example the mean over all "
                    "axes but the first."
                )
            if not np.all(np.isfinite(values)):
                raise DataError(f"{self._file}: evaluate() gave a '{name}' that is not finite. Return finite numbers.")
        return numbers

    def _called(
        self, function: str, outputs: Mapping[str, Array], feeds: Mapping[str, Array], labels: Array | None
    ) -> Any:
        # what else compares these arrays must not see what the function makes of them
        arrays = [{n: _read_only(v) for n, v in given.items()} for given in (outputs, feeds)]
        with user_code(self._file, f"{function}() failed"):
            return self._names[function](*arrays, None if labels is None else _read_only(labels))

    def collect(
        self, outputs: Mapping[str, Array], feeds: Mapping[str, Array], labels: Array | None, samples: int
    ) -> list[str]:
        """One record per sample as JSON; none without ``collect`` in the text. Arguments as of ``evaluate``.

        Raises:
            DataError: The function fails, or gives something else.
        """
        if not self.collects:
            return []
        made = self._called("collect", outputs, feeds, labels)
        with user_code(self._file, "collect() returns something else than records that JSON holds"):
            texts = [record_text(record) for record in made]
        if len(texts) != samples:
            raise DataError(
                f"{self._file}: collect() gave {counted(len(texts), 'record')} for {counted(samples, 'sample')}. "
                "Return one per sample."
            )
        return texts

    def score(self, records: Sequence[str], samples: int) -> dict[str, float]:
        """The metrics of the records of all samples; none without ``score`` in the text.

        Raises:
            DataError: The function fails, or gives something else.
        """
        if not self.collects:
            return {}
        if len(records) != samples:
            raise DataError(
                f"{self._file}: there are {len(records)} records of {samples} samples, so that the state was changed. "
                "Run without --resume."
            )
        with user_code(self._file, "score() failed"):
            made = {_name(n): float(v) for n, v in self._names["score"](records_of(records)).items()}
        return self._finite(made, "score")

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
        return self._finite(made, "finish")

    def _finite(self, made: dict[str, float], function: str) -> dict[str, float]:
        self._check_count(len(made))
        for name, value in made.items():
            if not math.isfinite(value):
                raise DataError(
                    f"{self._file}: {function}() gave a '{name}' that is not finite. Return finite numbers."
                )
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


AnyEvaluator = str | os.PathLike[str] | Callable[..., Mapping[str, Any]] | object
"""A Python file; a function like ``evaluate``; or an object with the methods that a file would define as functions."""


@dataclass(frozen=True)
class EvaluatorCode:
    """An evaluator as a job holds it.

    Attributes:
        text: source text; of an object what is known of its own. "" without an evaluator.
        file: its path, or what the object is, for messages.
        own: the object; it stays in this process.
    """

    text: str = ""
    file: str = ""
    own: object = None

    def open(self) -> Evaluator | None:
        """The evaluator, or None."""
        return Evaluator(self.text, self.file, self.own) if self.file else None


def read_evaluator(given: AnyEvaluator | None) -> EvaluatorCode:
    """An evaluator, checked to define what it must.

    Raises:
        DataError: It is missing or unusable.
    """
    if given is None:
        return EvaluatorCode()
    if isinstance(given, (str, os.PathLike)):
        code = EvaluatorCode(read_code(given), os.fspath(given))
    else:
        kind = given if inspect.isroutine(given) else type(given)
        name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', 'evaluator')}"
        try:
            text = inspect.getsource(kind)
        except (OSError, TypeError):  # typed into an interpreter
            text = name
        code = EvaluatorCode(text, name, given)
    code.open()
    return code


def _functions_of(own: object) -> dict[str, Any]:
    found = {n: getattr(own, n) for n in ("evaluate", "finish", "collect", "score") if hasattr(own, n)}
    return {"evaluate": own, **found} if callable(own) else found
