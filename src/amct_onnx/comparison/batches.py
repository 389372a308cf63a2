"""Numbered batches out of any iterator of feeds: samples cut and joined along the first axis, labels beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_onnx.comparison.batch import Batch
from amct_onnx.data.read_feeds import InputSpec
from amct_onnx.errors import DataError

Array = npt.NDArray[Any]
LABEL_NAMES = ("labels", "label", "y", "targets", "target")
"""Names under which an .npz may hold labels beside other arrays."""


def cut_batches(
    feeds: Iterable[Mapping[str, Array]], inputs: Sequence[InputSpec], size: int, labels: Array | None = None
) -> Iterator[Batch]:
    """Batches of ``size`` samples, the last one smaller; which samples a batch holds depends on the data alone.

    Args:
        feeds: arrays by input; any number of samples in each.
        inputs: of the model. When one of them fixes its first dimension, each feed is a batch as it is.
        size: samples in a batch; 0 leaves every feed as it is.
        labels: [samples, ...] in the order of the feeds.

    Raises:
        DataError: The inputs of a feed, or data and labels, hold different numbers of samples.
    """
    free = size > 0 and all(i.shape and i.batch is None for i in inputs)
    pieces = _rejoin(feeds, size) if free else feeds
    start = 0
    for number, feed in enumerate(pieces):
        rows = _rows(feed)
        end = start + rows
        if labels is not None and end > len(labels):
            raise DataError(f"There are {len(labels)} labels for more samples than that. Give one label per sample.")
        yield Batch(number, dict(feed), rows, None if labels is None else np.asarray(labels[start:end]))
        start = end
    if labels is not None and start != len(labels):
        raise DataError(f"There are {len(labels)} labels for {start} samples. Give one label per sample.")


def _rejoin(feeds: Iterable[Mapping[str, Array]], size: int) -> Iterator[dict[str, Array]]:
    """Every feed's rows, in pieces of ``size``; rows of different shapes (a free width, say) are not joined."""
    held: list[dict[str, Array]] = []
    count = 0
    for feed in feeds:
        rows, start = _rows(feed), 0
        if held and any(held[0][n].shape[1:] != v.shape[1:] for n, v in feed.items()):
            yield _joined(held)
            held, count = [], 0
        while start < rows:
            taken = min(size - count, rows - start)
            held.append({n: v[start : start + taken] for n, v in feed.items()})
            start, count = start + taken, count + taken
            if count == size:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _joined(pieces: Sequence[dict[str, Array]]) -> dict[str, Array]:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}


def _rows(feed: Mapping[str, Array]) -> int:
    counts = {n: v.shape[0] for n, v in feed.items() if v.ndim}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{c} in '{n}'" for n, c in counts.items())
        raise DataError(f"The inputs of a feed hold different numbers of samples ({text}). Give as many of each.")
    return next(iter(counts.values()), 1)


def read_labels(path: str | os.PathLike[str]) -> Array:
    """One label per sample: an .npy file, or the array of an .npz that is called labels or y, or is the only one.

    Raises:
        DataError: It cannot be read, or which of its arrays holds the labels cannot be told.
    """
    file = Path(path)
    try:
        loaded = np.load(file, allow_pickle=False, mmap_mode="r" if file.suffix == ".npy" else None)
        if isinstance(loaded, np.ndarray):
            array: Array = loaded
        else:
            with loaded as archive:
                names = list(archive.files)
                name = next((n for n in LABEL_NAMES if n in names), names[0] if len(names) == 1 else "")
                if not name:
                    raise DataError(
                        f"{file}: holds {', '.join(names) or 'nothing'}; name the labels '{LABEL_NAMES[0]}'."
                    )
                array = archive[name]
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file. Give the labels as .npy or .npz.") from error
    except Exception as error:  # zipfile, zlib and numpy raise many classes on malformed files
        raise DataError(f"{file}: cannot be read as labels ({error}). Give the labels as .npy or .npz.") from error
    if array.ndim == 0:
        raise DataError(f"{file}: holds a single number. Give one label per sample.")
    if array.dtype.kind == "f" and array.ndim == 1 and array.size and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int64)
    return array


def samples_in(data: str | os.PathLike[str], inputs: Sequence[InputSpec]) -> int | None:
    """How many samples one .npz or .npy file holds, from its header; None when it cannot be told beforehand."""
    file = Path(data)
    try:
        if file.suffix == ".npy":
            shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
        elif file.suffix == ".npz":
            shape = _shape_in_archive(file, inputs[0].name)
        else:
            return None
        return int(shape[0]) if shape else None
    except Exception:  # the reader says what is wrong with the file
        return None


def _shape_in_archive(file: Path, name: str) -> tuple[int, ...]:
    import zipfile

    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return tuple(read(member)[0])
