"""Tell what kind of data a path holds, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amct_onnx.common.counted import counted
from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.data.aipp_source import open_behind_aipp
from amct_onnx.data.array_feeds import feeds_of_arrays
from amct_onnx.data.images import ImageFolder, ImageOptions, image_files
from amct_onnx.data.input_spec import InputSpec, specs_of
from amct_onnx.data.labels import AnyLabels, labels_origin, read_labels
from amct_onnx.data.python_feeds import PythonFeeds
from amct_onnx.data.read_feeds import SUFFIXES, parse_input_type, read_feeds
from amct_onnx.data.sample_axis import sample_axes, samples_of
from amct_onnx.data.source import IN_MEMORY, AnyData, DataSource, Feed, Labelled, Repeatable
from amct_onnx.errors import DataError

DATA_HELP = "an .npz, .npy, .bin file or a folder of them, a folder of images, or a Python file with feeds()"


def open_data(
    data: AnyData,
    inputs: Sequence[InputSpec] | Any,
    *,
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    labels: AnyLabels | None = None,
    aipp: str | os.PathLike[str] | None = None,
) -> DataSource:
    """Open any data that the commands take; docs/data.md describes them.

    Args:
        data: path of a file or folder; or arrays in memory: one for a model with one input, a dict by input name, or a
            sequence of such dicts, one after the other.
        inputs: a session of the model (onnxruntime's or a DeploySession), or its inputs as ``specs_of`` tells them.
        input_shape: shape of one feed, ``"input:1,3,224,224;mask:1,5"``.
        input_type: numbers in a .bin, ``"input:uint8"``.
        images: how images become numbers.
        labels: one label per sample, in a file or an array, see ``read_labels``.
        aipp: ATC's AIPP configuration: the data are what a board is fed, and its preprocessing is applied to them.

    Raises:
        DataError: There is no such data, or it does not fit the model. Some data is only read, and refused, while it
            is iterated. The configuration cannot be read or applied.
    """
    if not isinstance(inputs, Sequence):
        inputs = specs_of(inputs)
    if aipp is None:
        return _opened(data, inputs, input_shape, input_type, images, labels)

    def fed(specs: Sequence[InputSpec], shapes: str, options: ImageOptions | None) -> DataSource:
        return _opened(data, specs, shapes, input_type, options, labels)

    of_images = isinstance(data, (str, os.PathLike)) and _holds_images(Path(data))
    return open_behind_aipp(aipp, inputs, input_shape, images, of_images=of_images, opened=fed)


def _opened(
    data: AnyData,
    inputs: Sequence[InputSpec],
    input_shape: str,
    input_type: str,
    images: ImageOptions | None,
    labels: AnyLabels | None,
) -> DataSource:
    shapes, types = parse_input_shape(input_shape, DataError), parse_input_type(input_type)
    if not isinstance(data, (str, os.PathLike)):
        return _Arrays(partial(feeds_of_arrays, data, inputs, shapes), IN_MEMORY, labels, inputs)
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give {DATA_HELP}.")
    if path.suffix == ".py" and path.is_file():
        if labels is not None:
            raise DataError(f"{labels}: with a Python file the labels come from it. Yield (feeds, labels).")
        return PythonFeeds(path, inputs)
    if _holds_images(path):
        return ImageFolder(path, inputs, images or ImageOptions(), labels)
    return _Arrays(partial(read_feeds, path, inputs, shapes, types), path, labels, inputs)


def _holds_images(path: Path) -> bool:
    """The content decides: a folder per input may be named like a folder of images."""
    return path.is_dir() and not any(f.suffix in SUFFIXES for f in path.iterdir()) and bool(image_files(path))


class _Arrays(Repeatable):
    """Arrays of files or in memory, with the labels cut as the feeds are."""

    def __init__(
        self,
        feeds: Callable[[], Iterator[Feed]],
        origin: object,
        labels: AnyLabels | None,
        inputs: Sequence[InputSpec],
    ) -> None:
        self._feeds, self._origin, self._axes = feeds, origin, sample_axes(inputs)
        self._labels_origin = labels_origin(labels)
        self._labels = None if labels is None else read_labels(labels)

    def _all(self) -> Iterator[Labelled]:
        start = 0
        for feed in self._feeds():
            if self._labels is None:
                yield feed, None
                continue
            counts = set(samples_of(feed, self._axes).values())
            end = start + (counts.pop() if len(counts) == 1 else 1)
            if end > len(self._labels):
                raise self._other_number("more")
            yield feed, np.asarray(self._labels[start:end])
            start = end
        if self._labels is not None and start != len(self._labels):
            raise self._other_number(str(start))

    def _other_number(self, samples: str) -> DataError:
        assert self._labels is not None
        return DataError(
            f"{self._labels_origin}: holds {counted(len(self._labels), 'label')}, {self._origin} {samples} samples. "
            "Give one for each."
        )
