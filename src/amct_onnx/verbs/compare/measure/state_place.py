"""Where the state of a run lies, and whose it is.

A run is known by its key: the models, the settings, and what can be told of the data before they are read. The key is
in the name of the file, so runs that differ in any of these do not meet, and in the file, so one that a user named is
recognised. ``--resume`` looks by content instead: data that were moved, or mended, still are those of their run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from amct_onnx.common.log import get_logger
from amct_onnx.data.labels import AnyLabels
from amct_onnx.data.source import IN_MEMORY, AnyData, DataSource
from amct_onnx.errors import DataError, OutputError
from amct_onnx.verbs.compare.job import Job
from amct_onnx.verbs.compare.measure.batch import Batch
from amct_onnx.verbs.compare.measure.state_file import DataDigest, State, read_body, read_state

MAX_REASONS = 5
"""Other states of which an error tells why they are not taken."""


def run_key(
    job: Job,
    settings: Mapping[str, str],
    read: Sequence[AnyData | AnyLabels | DataSource | None],
    total: int | None,
    first: Batch,
) -> str:
    """Sixteen hex digits.

    Args:
        job: the models, devices and evaluator.
        settings: that decide figures, or how the data become numbers.
        read: data and labels: of files their names, sizes and times count, of a source of one's own its class.
        total: samples in the data, or None.
        first: the first batch.
    """
    digest = hashlib.blake2b(digest_size=8)
    data = DataDigest()
    data.add(first)
    parts = [job.key, *(f"{name}={settings[name]}" for name in sorted(settings)), str(total), data.text]
    for source in read:
        parts += _signature(source)
    for part in parts:
        digest.update(part.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def _signature(source: AnyData | AnyLabels | DataSource | None) -> list[str]:
    """What tells data from others without reading them."""
    if source is None:
        return ["none"]
    if isinstance(source, DataSource):
        return [f"{type(source).__module__}.{type(source).__qualname__}"]
    if not isinstance(source, (str, os.PathLike)):
        return [IN_MEMORY, *_arrays_signature(source)]
    path = os.path.realpath(source)
    found = [path]
    for folder, folders, files in os.walk(path):
        folders.sort()
        found += [_file_signature(os.path.join(folder, name)) for name in sorted(files)]
    return found if os.path.isdir(path) else [path, _file_signature(path)]


def _arrays_signature(source: object) -> list[str]:
    """Names, types and shapes: the content shows when the state is read."""
    if isinstance(source, Mapping):
        return [text for name, array in source.items() for text in (str(name), *_arrays_signature(array))]
    if isinstance(source, Sequence) and source and isinstance(source[0], Mapping):
        return [str(len(source)), *_arrays_signature(source[0])]
    array = np.asarray(source)
    return [f"{array.dtype}{array.shape}"]


def _file_signature(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:  # a link to nothing, say; the reader tells what is wrong
        return f"{path} cannot be looked at"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def default_path(ledger: Path, key: str) -> Path:
    """Beside the ledger, named by the run."""
    return ledger.with_name(f"{_stem(ledger)}_{key}.json")


def _stem(ledger: Path) -> str:
    return ledger.name.removesuffix("quant.json") + "compare_state"


def check_free(path: Path, job: Job, settings: Mapping[str, str], key: str) -> None:
    """A run that begins takes no file but its own.

    Raises:
        OutputError: The file holds another run's state, or no state at all.
    """
    if not os.path.lexists(path):
        return
    try:
        body = read_body(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").partition(". ")[0]
        raise OutputError(
            f"{path}: exists, and is not the state of this run ({reason}). Choose another path with --state_file, or "
            "remove it."
        ) from error
    other = _difference(body, job, settings, key)
    if other:
        raise OutputError(
            f"{path}: holds the state of another interrupted run ({other}). --resume with that run's arguments "
            "continues it. Choose another path with --state_file, or remove it."
        )
    get_logger("Compare").warning(
        "%s: this run was interrupted before, and begins again. --resume would continue it.", path
    )


def _difference(body: Mapping[str, object], job: Job, settings: Mapping[str, str], key: str) -> str:
    """How a state's run differs from one that begins; "" when it is the same."""
    if body.get("run") == key:
        return ""
    theirs = body["settings"]
    assert isinstance(theirs, Mapping)
    for name in dict.fromkeys([*settings, *theirs]):
        if settings.get(name) != theirs.get(name):
            return f"{name}={theirs.get(name, 'nothing')}, this run has {settings.get(name, 'nothing')}"
    return "other models or evaluator" if body["job"] != job.key else "other data or labels"


def run_of(path: Path) -> str | None:
    """The key in a file; None when there is no file, "" when it has none."""
    if not os.path.lexists(path):
        return None
    try:
        return str(read_body(path).get("run", ""))
    except DataError:
        return ""


def find_state(
    ledger: Path, job: Job, settings: Mapping[str, str], key: str, batches: Callable[[], Iterable[Batch]]
) -> tuple[Path, State]:
    """The state that ``--resume`` continues: of this very run, or one of the same models, settings and data.

    Args:
        ledger: of the conversion, beside which states lie.
        job: of the run.
        settings: of the run.
        key: of the run.
        batches: gives its data from the beginning; asked when several states might be the run's.

    Raises:
        DataError: There is none; why the others are not taken.
    """
    own = default_path(ledger, key)
    found: list[tuple[Path, State]] = []
    reasons = []
    for path in _states(ledger, own):
        try:
            found.append((path, read_state(path, job, settings)))
        except DataError as error:
            reasons.append(error)
            continue
        if path == own:
            return found[0]
    if len(found) > 1:
        return _of_these_data(found, batches())
    if found:
        return found[0]
    if len(reasons) == 1:
        raise reasons[0]
    if not reasons:
        raise DataError(f"{own}: no such file; there is nothing to resume. Run without --resume.")
    more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
    told = "; ".join(str(r).partition(". ")[0] for r in reasons[:MAX_REASONS])
    raise DataError(
        f"{ledger.parent}: none of the {len(reasons)} states there is of this run. {told}{more}. Give the arguments of "
        "the run that was interrupted, or run without --resume."
    )


def _states(ledger: Path, own: Path) -> list[Path]:
    """Files that are named as states beside the ledger, the run's own first."""
    stem = _stem(ledger)
    try:
        names = [n for n in os.listdir(ledger.parent) if n.startswith(stem) and n.endswith(".json")]
    except OSError as error:
        raise DataError(
            f"{ledger.parent}: cannot be listed ({error.strerror}). Name the state with --state_file."
        ) from error
    return sorted((ledger.with_name(n) for n in names), key=lambda p: (p != own, p.name))


def _of_these_data(found: Sequence[tuple[Path, State]], batches: Iterable[Batch]) -> tuple[Path, State]:
    """The longest one whose digest is that of the data."""
    digest = DataDigest()
    last = max(state.results.batches for _, state in found)
    best = None
    for number, batch in enumerate(batches, 1):
        if number > last:
            break
        digest.add(batch)
        best = next((f for f in found if f[1].results.batches == number and f[1].data == digest.text), best)
    if best is None:
        names = ", ".join(str(path) for path, _ in found[:MAX_REASONS])
        raise DataError(f"{names}: were made with other data or labels. Give the same, or run without --resume.")
    return best
