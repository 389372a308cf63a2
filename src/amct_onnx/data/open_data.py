"""Tell what kind of data a path holds, and open it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.data.images import ImageFolder, ImageOptions, image_files
from amct_onnx.data.labels import read_labels
from amct_onnx.data.python_feeds import PythonFeeds
from amct_onnx.data.read_feeds import SUFFIXES, InputSpec, parse_input_type, read_feeds, specs_of
from amct_onnx.data.source import DataSource, Labelled, Repeatable
from amct_onnx.errors import DataError

DATA_HELP = "an .npz, .npy, .bin file or a folder of them, a folder of images, or a Python file with feeds()"


def open_data(
    data: str | os.PathLike[str],
    inputs: Sequence[InputSpec] | Any,
    *,
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> DataSource:
    """Open any data that the commands take; docs/data.md describes them.

    Args:
        data: path of a file or folder.
        inputs: a session of the model (onnxruntime's or a DeploySession), or its inputs as ``specs_of`` tells them.
        input_shape: shape of one feed, ``"input:1,3,224,224;mask:1,5"``.
        input_type: numbers in a .bin, ``"input:uint8"``.
        images: how images become numbers.
        labels: file with one label per sample, see ``read_labels``.

    Raises:
        DataError: There is no such data, or it does not fit the model. Some data is only read, and refused, while it
            is iterated.
    """
    if not isinstance(inputs, Sequence):
        inputs = specs_of(inputs)
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give {DATA_HELP}.")
    if path.suffix == ".py" and path.is_file():
        if labels is not None:
            raise DataError(f"{labels}: with a Python file the labels come from it. Yield (feeds, labels).")
        return PythonFeeds(path, inputs)
    # the content decides: a folder per input may be named like a folder of images
    if path.is_dir() and not _holds_arrays(path) and image_files(path):
        return ImageFolder(path, inputs, images or ImageOptions(), labels)
    return _ArrayFiles(path, inputs, input_shape, input_type, labels)


def _holds_arrays(folder: Path) -> bool:
    return any(f.suffix in SUFFIXES for f in folder.iterdir())


class _ArrayFiles(Repeatable):
    """Arrays in files, with the labels of a file cut as the feeds are."""

    def __init__(
        self,
        path: Path,
        inputs: Sequence[InputSpec],
        input_shape: str,
        input_type: str,
        labels: str | os.PathLike[str] | None,
    ) -> None:
        self._path, self._inputs, self._labels_file = path, inputs, labels
        self._shapes, self._types = parse_input_shape(input_shape, DataError), parse_input_type(input_type)
        self._labels = None if labels is None else read_labels(labels)

    def _all(self) -> Iterator[Labelled]:
        start = 0
        for feed in read_feeds(self._path, self._inputs, self._shapes, self._types):
            if self._labels is None:
                yield feed, None
                continue
            end = start + next((a.shape[0] for a in feed.values() if a.ndim), 1)
            if end > len(self._labels):
                raise self._other_number("more")
            yield feed, np.asarray(self._labels[start:end])
            start = end
        if self._labels is not None and start != len(self._labels):
            raise self._other_number(str(start))

    def _other_number(self, samples: str) -> DataError:
        assert self._labels is not None
        return DataError(
            f"{self._labels_file}: holds {len(self._labels)} labels, {self._path} {samples} samples. Give one for each."
        )
