"""Numbered batches out of any iterator of feeds: samples cut and joined along the first axis, labels beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.loaded_array import load_file, loaded_array
from amct_onnx.data.sample_axis import sample_axes, samples_of
from amct_onnx.data.source import Labelled
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.measure.batch import Batch


def cut_batches(feeds: Iterable[Labelled], inputs: Sequence[InputSpec], size: int) -> Iterator[Batch]:
    """Batches of ``size`` samples, the last one smaller; which samples a batch holds depends on the data alone.

    Args:
        feeds: arrays by input, any number of samples in each, and their labels or None.
        inputs: of the model. Where they have no common free axis of samples, each feed is a batch as it is.
        size: samples in a batch; 0 leaves every feed as it is. A feed is then one sample when the first axes of its
            inputs differ.

    Raises:
        DataError: The inputs of a feed, or a feed and its labels, hold different numbers of samples.
    """
    axes = sample_axes(inputs)
    pieces = _rejoin(feeds, size, axes) if size > 0 and axes is not None else feeds
    for number, (feed, labels) in enumerate(pieces):
        yield Batch(number, dict(feed), _rows(feed, labels, axes, whole=size == 0), labels)


def _rejoin(feeds: Iterable[Labelled], size: int, axes: Mapping[str, int]) -> Iterator[Labelled]:
    """Every feed's samples, in pieces of ``size``; those of different shapes (a free width, say) are not joined."""
    held: list[Labelled] = []
    count = 0
    for feed, labels in feeds:
        rows, start = _rows(feed, labels, axes, whole=False), 0
        if held and not _alike(held[0], (feed, labels), axes):
            yield _joined(held, axes)
            held, count = [], 0
        while start < rows:
            taken = slice(start, start + min(size - count, rows - start))
            held.append(
                (
                    {n: v[(slice(None),) * axes[n] + (taken,)] for n, v in feed.items()},
                    None if labels is None else labels[taken],
                )
            )
            start, count = taken.stop, count + taken.stop - taken.start
            if count == size:
                yield _joined(held, axes)
                held, count = [], 0
    if held:
        yield _joined(held, axes)


def _alike(one: Labelled, other: Labelled, axes: Mapping[str, int]) -> bool:
    """Whether samples of both may stand in one batch."""
    if (one[1] is None) != (other[1] is None):
        return False
    shapes = [{n: (*v.shape[: axes[n]], *v.shape[axes[n] + 1 :]) for n, v in feed.items()} for feed, _ in (one, other)]
    return shapes[0] == shapes[1]


def _joined(pieces: Sequence[Labelled], axes: Mapping[str, int]) -> Labelled:
    if len(pieces) == 1:
        return pieces[0]
    feeds = [feed for feed, _ in pieces]
    labels = [found for _, found in pieces if found is not None]
    joined = {n: np.concatenate([f[n] for f in feeds], axis=axes[n]) for n in feeds[0]}
    return joined, np.concatenate(labels) if labels else None


def _rows(feed: Mapping[str, Array], labels: Array | None, axes: Mapping[str, int] | None, *, whole: bool) -> int:
    """Samples of a feed; 1 when it is taken whole and its inputs do not count samples along the first axis."""
    counts = samples_of(feed, axes)
    if whole and len(set(counts.values())) > 1:
        counts = {"the feed": 1}
    named = {f"'{n}'" if n in feed else n: count for n, count in counts.items()}
    if labels is not None:
        named["the labels"] = len(labels)
    if len(set(named.values())) > 1:
        text = ", ".join(f"{c} in {n}" for n, c in named.items())
        raise DataError(
            f"A feed holds different numbers of samples ({text}). They are counted along the first axis, or along a "
            "free one that has the same name in all inputs. Give as many of each, or --batch_size 0, which takes each "
            "feed as one sample."
        )
    return next(iter(named.values()), 1)


def samples_in(data: str | os.PathLike[str], inputs: Sequence[InputSpec]) -> int | None:
    """How many samples one .npz or .npy file holds, from its header; None when it cannot be told beforehand."""
    file = Path(data)
    try:
        if file.suffix == ".npy":
            shape = loaded_array(load_file(file)).shape
        elif file.suffix == ".npz":
            shape = _shape_in_archive(file, inputs[0].name)
        else:
            return None
        axes = sample_axes(inputs)
        if axes is None and len(inputs) > 1:
            return None  # a feed may be one sample
        return int(shape[axes[inputs[0].name] if axes else 0]) if shape else None
    except Exception:  # the reader says what is wrong with the file
        return None


def _shape_in_archive(file: Path, name: str) -> tuple[int, ...]:
    import zipfile

    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return tuple(read(member)[0])
