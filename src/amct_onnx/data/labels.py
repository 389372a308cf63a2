"""Labels of samples: an array file, a text or CSV file, or the names of folders."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.loaded_array import load_file, loaded_array
from amct_onnx.errors import DataError

AnyLabels = str | os.PathLike[str] | Array | Sequence[int]
"""Labels as ``read_labels`` takes them."""
LABEL_NAMES = ("labels", "label", "y", "targets", "target")
"""Names under which an .npz may hold labels beside other arrays."""
MAX_DIGITS = 18
"""Digits of a label: int64 holds each such number."""
MAX_TEXT_BYTES = 256 << 20
"""Bytes of a text file: some 10 million lines with names."""
TEXT_SUFFIXES = (".txt", ".csv", ".tsv")
REMEDY = "Give .npy, .npz, or a text file with one label, or 'file name,label', in each line."


def read_labels(labels: AnyLabels, names: Sequence[str] | None = None) -> Array:
    """One label per sample, in the order of the samples.

    Args:
        labels: an array or a sequence of numbers, or a file: .npy; .npz with an array called labels, label, y, targets
            or target, or with one array; .txt, .csv or .tsv with a whole number in each line, or with a file name and a
            whole number, in any order of lines.
        names: file names of the samples, relative to the data folder, when the data are files.

    Raises:
        DataError: It cannot be read, lacks a sample, or holds several arrays of which none is named as labels.
    """
    if not isinstance(labels, (str, os.PathLike)):
        return _checked(np.asarray(labels), labels_origin(labels))
    file = Path(labels)
    if not file.is_file():
        raise DataError(f"{file}: no such file. {REMEDY}")
    if file.suffix.lower() in TEXT_SUFFIXES:
        return _from_text(file, names)
    try:
        loaded = load_file(file)
        if isinstance(loaded, np.ndarray):
            array: Array = loaded
        else:
            with loaded as archive:
                array_names = list(archive.files)
                name = next(
                    (n for n in LABEL_NAMES if n in array_names), array_names[0] if len(array_names) == 1 else ""
                )
                if not name:
                    raise DataError(
                        f"{file}: holds {', '.join(array_names) or 'nothing'}. Name the labels '{LABEL_NAMES[0]}'."
                    )
                array = loaded_array(archive[name])
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many classes on malformed files
        raise DataError(f"{file}: cannot be read as labels ({error}). {REMEDY}") from error
    return _checked(array, file)


def _checked(array: Array, origin: object) -> Array:
    """Numbers, one or more per sample; whole ones as int64."""
    if array.dtype.kind not in "iufb":
        raise DataError(f"{origin}: holds {array.dtype}, not numbers. {REMEDY}")
    if array.ndim == 0:
        raise DataError(f"{origin}: holds a single number. Give one label per sample.")
    if array.dtype.kind == "f" and array.ndim == 1 and array.size and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int64)
    return array


def labels_origin(labels: AnyLabels | None) -> str:
    """Where labels come from, for messages."""
    return os.fspath(labels) if isinstance(labels, (str, os.PathLike)) else "labels"


def _from_text(file: Path, names: Sequence[str] | None) -> Array:
    try:
        if file.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(f"{file}: has more than {MAX_TEXT_BYTES:,} bytes. Give the labels as .npy.")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error}). {REMEDY}") from error
    separator = next((s for s in "\t,;" if s in text), " ")
    try:
        rows = [[c.strip() for c in row if c.strip()] for row in csv.reader(text.splitlines(), delimiter=separator)]
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as text ({error}). {REMEDY}") from error
    rows = [row for row in rows if row]
    if len(rows) > 1 and not _is_whole(rows[0][-1]) and _is_whole(rows[1][-1]):
        rows = rows[1:]  # a header
    for row in rows:
        if len(row) not in (1, 2) or len(row) != len(rows[0]) or not _is_whole(row[-1]):
            raise DataError(f"{file}: the line '{' '.join(row)[:80]}' is not a label. {REMEDY}")
    if not rows:
        raise DataError(f"{file}: holds no labels. {REMEDY}")
    if len(rows[0]) == 1:
        return np.array([int(row[0]) for row in rows], np.int64)
    if names is None:
        raise DataError(f"{file}: names files, but the data are not image files. Give one label in each line.")
    known = {name: int(label) for name, label in rows}
    by_base = {os.path.basename(name): label for name, label in known.items()}
    values = [known.get(n, by_base.get(os.path.basename(n))) for n in names]
    missing = [n for n, label in zip(names, values, strict=True) if label is None]
    if missing:
        raise DataError(f"{file}: holds no label for '{missing[0]}' ({len(missing)} such files). Add them.")
    return np.array(values, np.int64)


def labels_of_folders(folders: Sequence[str]) -> Array:
    """The label of each sample from its folder's name: the number itself, or the position among the sorted names."""
    classes = sorted(set(folders))
    if all(_is_whole(c) for c in classes):
        return np.array([int(f) for f in folders], np.int64)
    position = {c: i for i, c in enumerate(classes)}
    return np.array([position[f] for f in folders], np.int64)


def _is_whole(text: str) -> bool:
    """A number that int64 holds."""
    return len(text) <= MAX_DIGITS and text.removeprefix("-").isdecimal()
