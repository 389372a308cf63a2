"""A Python file as data: its function ``feeds()`` yields feeds, or (feeds, labels)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.source import Labelled, Repeatable
from amct_onnx.data.user_code import read_code, run_code, user_code
from amct_onnx.errors import DataError

FUNCTION = "feeds"
END = object()
"""Marks the end of the feeds."""


class PythonFeeds(Repeatable):
    """The feeds of a user's file; the file is run once, its function again for each iteration."""

    def __init__(self, path: Path, inputs: Sequence[InputSpec]) -> None:
        """Run the file.

        Raises:
            DataError: It cannot be run, or defines no function ``feeds``.
        """
        self._path, self._inputs = path, inputs
        self._function = run_code(read_code(path), str(path), "amct_onnx_feeds").get(FUNCTION)
        if not callable(self._function):
            raise DataError(f"{path}: defines no function {FUNCTION}(). Add one that yields arrays by input name.")

    def _all(self) -> Iterator[Labelled]:
        assert self._function is not None
        with user_code(str(self._path), f"{FUNCTION}() fails"):
            returned = self._function()
            items = iter(returned) if isinstance(returned, Iterable) else None
        if items is None:
            raise DataError(f"{self._path}: {FUNCTION}() returns {_kind(returned)}. Let it yield arrays by input name.")
        number = 0
        while True:
            with user_code(str(self._path), f"{FUNCTION}() fails at feed {number}"):
                item = next(items, END)
            if item is END:
                break
            yield self._checked(item, number)
            number += 1
        if not number:
            raise DataError(f"{self._path}: {FUNCTION}() yields nothing. Let it yield at least one feed.")

    def _checked(self, item: Any, number: int) -> Labelled:
        where = f"{self._path}: feed {number}"
        feed, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(feed, dict):
            raise DataError(f"{where} is {_kind(item)}. Yield a dict of arrays by input name, or (dict, labels).")
        names = [i.name for i in self._inputs]
        for name in feed:
            if name not in names:
                raise DataError(
                    f"{where} holds '{name}', which is not an input of the model. Use the names {', '.join(names)}."
                )
        arrays = {}
        for spec in self._inputs:
            if spec.name not in feed:
                raise DataError(f"{where} holds no '{spec.name}', an input of the model. Add it.")
            arrays[spec.name] = _array(feed[spec.name], f"{where}: input '{spec.name}'", spec)
        if labels is None:
            return arrays, None
        known = _plain(labels, f"{where}: its labels")
        rows = next((a.shape[0] for a in arrays.values() if a.ndim), 1)
        if known.ndim == 0 or known.shape[0] != rows:
            raise DataError(f"{where} holds {rows} samples and labels of shape {list(known.shape)}. Yield one each.")
        return arrays, known


def _array(value: Any, where: str, spec: InputSpec) -> Array:
    array = _plain(value, where)
    if array.dtype != spec.dtype:
        raise DataError(f"{where} is {array.dtype}, the model takes {spec.dtype}. Yield it as {spec.dtype}.")
    if not spec.fits(array.shape):
        raise DataError(f"{where} has shape {list(array.shape)}, the model takes {spec.shape_text}. Reshape it.")
    return array


def _plain(value: Any, where: str) -> Array:
    try:
        array = np.asarray(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # __array__ is the user's
        raise DataError(f"{where} is not an array ({type(error).__name__}). Yield numpy arrays.") from error
    if array.dtype.hasobject:
        raise DataError(f"{where} is {_kind(value)}, not an array of numbers. Yield numpy arrays.")
    return array


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"
