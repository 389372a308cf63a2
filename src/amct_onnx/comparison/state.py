"""The state of an unfinished run in a file: written whole or not at all, believed after every field is checked.

It is JSON. Sums are exact integers in it, so a run that was interrupted and resumed gives the figures of one that was
not. The data are held to be the same when a digest of every batch so far is; the models by the job's key.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amct_onnx.comparison.batch import Accuracy, Batch, Results
from amct_onnx.comparison.evaluator import METRIC_LIMIT
from amct_onnx.comparison.exact_sum import ExactSum
from amct_onnx.comparison.job import SOURCE, Job
from amct_onnx.comparison.statistics import QuantizerStatistics, TensorStatistics
from amct_onnx.errors import DataError
from amct_onnx.write import write_texts

STATE_SCHEMA_VERSION = 1
LARGEST_FILE = 256 << 20
"""Bytes; a layer takes some 2 kB for each model."""
SUM = re.compile(r"-?0x[0-9a-f]{1,600}")
"""An ``ExactSum``: float64 covers 2098 bits, so many numbers as there are some more."""
LARGEST_COUNT = 1 << 80


class DataDigest:
    """Of all feeds and labels so far, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, batch: Batch) -> None:
        """Add the next batch."""
        arrays = dict(sorted(batch.feeds.items()))
        if batch.labels is not None:
            arrays["labels of the samples"] = batch.labels
        for name, array in arrays.items():
            self._hash.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            self._hash.update(array.tobytes() if not array.flags.c_contiguous else array.data)

    @property
    def text(self) -> str:
        """So far, in hex."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class State:
    """A run so far: its first ``results.batches`` batches.

    Attributes:
        results: of these batches.
        data: digest of them.
        seconds: that running them took.
    """

    results: Results
    data: str
    seconds: float


def write_state(
    path: str | os.PathLike[str], job: Job, settings: Mapping[str, str], state: State, *, run: str = ""
) -> None:
    """Replace the file, all of it or nothing; ``run`` is the key by which its run knows it again.

    Raises:
        OutputError: It cannot be written.
    """
    results = state.results
    body = {
        "schema_version": STATE_SCHEMA_VERSION,
        "job": job.key,
        "run": run,
        "settings": dict(settings),
        "data": state.data,
        "seconds": state.seconds,
        "batches": results.batches,
        "samples": results.samples,
        "tensors": [[*key, value.to_dict()] for key, value in results.tensors.items()],
        "quantizers": [[*key, vars(value)] for key, value in results.quantizers.items()],
        "accuracy": [
            [model, {**vars(value), "sums": {n: s.to_text() for n, s in value.sums.items()}}]
            for model, value in results.accuracy.items()
        ],
    }
    text = json.dumps({**body, "checksum": checksum(body)})
    write_texts({path: text + "\n"})


def read_body(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a state file whose checksum is right; of them ``job`` and ``settings`` are checked here.

    Raises:
        DataError: There is none, or it is damaged.
    """
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE} bytes")
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        stated = content.pop("checksum")
        if stated != checksum(content):
            raise ValueError("its checksum is another")
        if content["schema_version"] != STATE_SCHEMA_VERSION:
            raise ValueError(f"version {content['schema_version']!r}")
        content["job"] = str(content["job"])
        content["settings"] = {str(k): str(v) for k, v in content["settings"].items()}
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; there is nothing to resume. Run without --resume.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: no state of an interrupted comparison ({error}). Run without --resume.") from error
    return content


def read_state(path: str | os.PathLike[str], job: Job, settings: Mapping[str, str]) -> State:
    """What ``write_state`` wrote for the same job and settings.

    Raises:
        DataError: There is none, it is damaged or made up, or belongs to another run; which setting differs is named.
    """
    content = read_body(path)
    theirs = content["settings"]
    for name in dict.fromkeys([*settings, *theirs]):
        if settings.get(name) != theirs.get(name):
            raise DataError(
                f"{path}: was made with {name}={theirs.get(name, 'nothing')}, this run has "
                f"{settings.get(name, 'nothing')}. Give the same, or run without --resume."
            )
    if content["job"] != job.key:
        raise DataError(f"{path}: was made with other models. Run without --resume.")
    try:
        return _state(content, job)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error}). Run without --resume.") from error


def checksum(body: Mapping[str, Any]) -> str:
    """Against damage; whoever can write the file can compute it."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _state(content: Mapping[str, Any], job: Job) -> State:
    results = Results(_count(content["batches"]), _count(content["samples"]))
    wanted = {(t.key, m) for t in job.tracked for m in t.others}
    for key, model, values in content["tensors"]:
        results.tensors[key, model] = _tensor(values)
    if set(results.tensors) != (wanted if results.batches else set()):
        raise ValueError("its tensors are not those of the models")
    for index, model, values in content["quantizers"]:
        numbers = {f.name: _count(values[f.name]) for f in fields(QuantizerStatistics)}
        results.quantizers[_count(index), model] = QuantizerStatistics(**numbers)
    models = (SOURCE, *job.models)
    if any(i >= len(job.layer_names) or m not in models for i, m in results.quantizers):
        raise ValueError("its layers are not those of the models")
    for model, values in content["accuracy"]:
        if model not in models:
            raise ValueError(f"it tells of a model '{model}'")
        results.accuracy[model] = _accuracy(values)
    data, seconds = content["data"], content["seconds"]
    if not isinstance(data, str) or not isinstance(seconds, float) or not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError("its digest or time is none")
    return State(results, data, seconds)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST_COUNT:
        raise ValueError(f"{value!r} is no count")
    return value


def _sum(value: Any) -> ExactSum:
    if not isinstance(value, str) or not SUM.fullmatch(value):
        raise ValueError("a sum is no number")
    return ExactSum.from_text(value)


def _tensor(values: Mapping[str, Any]) -> TensorStatistics:
    made = TensorStatistics()
    if set(values) != {f.name for f in fields(TensorStatistics)}:
        raise ValueError("a tensor has other statistics")
    for name, value in values.items():
        if isinstance(getattr(made, name), ExactSum):
            setattr(made, name, _sum(value))
        elif name == "largest":
            if not isinstance(value, float) or not value >= 0:
                raise ValueError(f"{value!r} is no largest error")
            made.largest = value
        else:
            setattr(made, name, _count(value))
    if made.not_finite > made.count:
        raise ValueError("a tensor has more odd values than values")
    return made


def _accuracy(values: Mapping[str, Any]) -> Accuracy:
    if max(len(values["right"]), len(values["sums"])) > METRIC_LIMIT:
        raise ValueError("too many metrics")
    return Accuracy(
        _count(values["samples"]),
        {str(n): _count(v) for n, v in values["right"].items()},
        _count(values["gained"]),
        _count(values["lost"]),
        {str(n): _sum(v) for n, v in values["sums"].items()},
    )
