"""The state of an unfinished run in a file: written whole or not at all, believed after every field is checked.

It is JSON. Sums are exact integers in it, so a run that was interrupted and resumed gives the figures of one that was
not. The data are held to be the same when a digest of every batch so far is; the models by the job's key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amct_onnx.common.json_values import fields_of, plain
from amct_onnx.common.plain_text import shown
from amct_onnx.common.typed_json import ContentError, convert, decode, read_bounded
from amct_onnx.errors import DataError
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.compare.job import Job
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.measure.batch import Batch, Results
from amct_onnx.verbs.compare.measure.records import packed
from amct_onnx.verbs.compare.measure.state_schema import Header, StateContent, results_of

STATE_SCHEMA_VERSION = 5


class DataDigest:
    """Of all feeds and labels so far, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._batches = self._samples = 0

    def add(self, batch: Batch) -> None:
        """Add the next batch."""
        self._batches += 1
        self._samples += batch.samples
        arrays = dict(sorted(batch.feeds.items()))
        if batch.labels is not None:
            arrays["labels of the samples"] = batch.labels
        for name, array in arrays.items():
            self._hash.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            self._hash.update(array.tobytes() if not array.flags.c_contiguous else array.data)

    @property
    def text(self) -> str:
        """So far: in hex, and how many batches and samples it covers, which a state cannot claim otherwise."""
        return f"{self._hash.hexdigest()}-{self._batches}-{self._samples}"


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
    content = {
        "schema_version": STATE_SCHEMA_VERSION,
        "job": job.key,
        "run": run,
        "settings": dict(settings),
        "data": state.data,
        "seconds": state.seconds,
        "batches": results.batches,
        "samples": results.samples,
        "tensors": [[key, model, value] for (key, model), value in results.tensors.items()],
        "quantizers": [[layer, model, value] for (layer, model), value in results.quantizers.items()],
        "accuracy": [[model, _accuracy(value)] for model, value in results.accuracy.items()],
        "flips": {"count": results.flips.count, "first": [[f.index, f.label, f.answers] for f in results.flips.first]},
    }
    body = plain(content)
    text = json.dumps({**body, "checksum": checksum(body)})
    write_texts({path: text + "\n"})


def _accuracy(value: Accuracy) -> dict[str, Any]:
    """Its fields; the records as one text, which JSON need not look through."""
    kept = fields_of(replace(value, records=[]))
    del kept["size"]
    return {**kept, "records": packed(value.records)}


def read_body(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a state file whose checksum is right; of them ``job``, ``run`` and ``settings`` are checked here.

    Raises:
        DataError: There is none, or it is damaged.
    """
    file = Path(path)
    try:
        content: dict[str, Any] = decode(read_bounded(file), dict[str, Any])
        header = convert(content, Header)
        if header.schema_version != STATE_SCHEMA_VERSION:
            raise ContentError(f"$.schema_version: {header.schema_version}")
        if content.pop("checksum") != checksum(content):
            raise ContentError("$.checksum: does not match the content")
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; there is nothing to resume. Run without --resume.") from error
    except (OSError, ContentError, RecursionError) as error:
        text = shown(str(error))
        raise DataError(f"{file}: no state of an interrupted comparison ({text}). Run without --resume.") from error
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
        body = convert(content, StateContent)
        return State(results_of(body, job), body.data, body.seconds)
    except ContentError as error:
        raise DataError(f"{path}: is damaged ({shown(str(error))}). Run without --resume.") from error


def checksum(body: Mapping[str, Any]) -> str:
    """Against damage; whoever can write the file can compute it."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
