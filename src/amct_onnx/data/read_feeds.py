"""Read a data set as an iterator of feeds dictionaries: npz, npy, raw .bin, or a folder of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.array_feeds import check_dtype, cut_feeds
from amct_onnx.data.input_spec import DTYPES, InputSpec
from amct_onnx.data.labels import LABEL_NAMES
from amct_onnx.data.loaded_array import load_file, loaded_array
from amct_onnx.errors import DataError

SUFFIXES = (".npz", ".npy", ".bin")


def parse_input_type(text: str) -> dict[str, np.dtype[Any]]:
    """Types of the numbers in raw files, ``"input:uint8;mask:int64"``.

    Raises:
        DataError: Anything else.
    """
    known = {np.dtype(t).name: np.dtype(t) for t in DTYPES.values()}
    types = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, _, kind = part.rpartition(":")
        if not name or kind.strip() not in known:
            raise DataError(
                f"--input_type: '{part}' is not of the form name:type. Use one of the types {', '.join(known)}."
            )
        types[name.strip()] = known[kind.strip()]
    return types


def read_feeds(
    data: str | os.PathLike[str],
    inputs: Sequence[InputSpec],
    input_shape: dict[str, tuple[int, ...]] | None = None,
    input_type: dict[str, np.dtype[Any]] | None = None,
) -> Iterator[dict[str, Array]]:
    """The feeds of a data set, one after the other; files are read when their turn comes.

    Args:
        data: one of
            an .npz file with one array per input (others are ignored); for a model with one input its only array
            that is not called like labels, whatever its name,
            an .npy or .bin file, for a model with one input,
            a folder of such files, each with its feeds, in the order of their names,
            a folder with one folder per input ("/" in its name written "_"), files of equal names belonging together.
        inputs: inputs of the model, see ``specs_of``.
        input_shape: shape of one feed per input, needed for .bin when the model leaves dimensions free.
        input_type: dtype of the numbers in a .bin per input, when it is narrower than the model's.

    An array whose first dimension is a multiple of the model's fixed one gives several feeds. Arrays must have the
    input's dtype; a .bin holds numbers in the machine's byte order.

    Raises:
        DataError: A file is missing, unreadable, or does not fit the input; pickled arrays are never read.
    """
    path = Path(data)
    shapes, types = input_shape or {}, input_type or {}
    for option, given in (("shape", shapes), ("type", types)):
        unknown = set(given) - {i.name for i in inputs}
        if unknown:
            raise DataError(
                f"--input_{option}: the model has no input '{sorted(unknown)[0]}'. Use one of "
                f"{', '.join(i.name for i in inputs)}."
            )
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give the data as .npz, .npy, .bin or a folder of them.")
    any_feed = False
    for group in _groups(path, inputs):
        arrays = {
            spec.name: _load(group[spec.name], spec, shapes.get(spec.name), types.get(spec.name), len(inputs))
            for spec in inputs
        }
        for feeds in cut_feeds(arrays, inputs, shapes, group):
            any_feed = True
            yield feeds
    if not any_feed:
        raise DataError(f"{path}: holds no {', '.join(SUFFIXES)} data. Give a folder with data files.")


def _groups(path: Path, inputs: Sequence[InputSpec]) -> Iterator[dict[str, Path]]:
    """The file of each input, feed by feed."""
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(
                f"{path}: the name ends in none of {', '.join(SUFFIXES)}. Give a file of one of these kinds."
            )
        if path.suffix != ".npz" and len(inputs) > 1:
            raise DataError(
                f"{path}: the model has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}). Give an .npz or a "
                "folder with one folder per input."
            )
        yield {i.name: path for i in inputs}
        return
    if not path.is_dir():
        raise DataError(f"{path}: is a pipe or device. Give a file or a folder of files.")
    folders = {i.name: path / i.name.replace("/", "_") for i in inputs}
    if not all(f.is_dir() for f in folders.values()):
        for file in _files(path):
            yield from _groups(file, inputs)
        return
    files = {name: _files(folder) for name, folder in folders.items()}
    first = files[inputs[0].name]
    for name, others in files.items():
        if [f.stem for f in others] != [f.stem for f in first]:
            raise DataError(
                f"{folders[name]}: its files are not named as those in {folders[inputs[0].name]}. "
                "Give files that belong together equal names."
            )
    for row in zip(*files.values(), strict=True):
        yield dict(zip(files, row, strict=True))


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES)


def _load(path: Path, spec: InputSpec, shape: tuple[int, ...] | None, kind: np.dtype[Any] | None, inputs: int) -> Array:
    if path.suffix == ".bin":
        return _load_raw(path, spec, shape, kind or spec.dtype)
    try:
        # a large .npy is read as far as its feeds go, not at once; numpy cannot map an .npz
        loaded = load_file(path)
        if path.suffix == ".npz":
            with loaded as archive:
                names = list(archive.files)
                named = [n for n in names if n == spec.name]
                if inputs == 1 and not named:
                    named = [n for n in names if n not in LABEL_NAMES]
                if len(named) != 1:
                    raise DataError(
                        f"{path}: holds {', '.join(names)} but no '{spec.name}', an input of the model. "
                        "Name the array so."
                    )
                array: Array = loaded_array(archive[named[0]])
        else:
            array = loaded_array(loaded)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many classes on malformed files
        raise DataError(
            f"{path}: cannot be read as an array ({error}). Save it with numpy.save, without objects."
        ) from error
    check_dtype(array, spec, path)
    return array


def _load_raw(path: Path, spec: InputSpec, shape: tuple[int, ...] | None, kind: np.dtype[Any]) -> Array:
    if not np.can_cast(kind, spec.dtype, "safe"):
        raise DataError(
            f"--input_type: input '{spec.name}' takes {spec.dtype}, which does not hold every {kind}. Store it as "
            f"{spec.dtype}."
        )
    if shape is None:
        if not all(isinstance(n, int) for n in spec.shape):
            raise DataError(
                f"{path}: the model leaves dimensions of '{spec.name}' free ({spec.shape_text}). Give "
                f'--input_shape "{spec.name}:..." for raw data.'
            )
        shape = spec.shape
    if not spec.fits(shape):
        raise DataError(
            f"--input_shape: {list(shape)} does not fit input '{spec.name}' of shape {spec.shape_text}. Correct it."
        )
    one = math.prod(shape) * kind.itemsize
    if not path.is_file():  # a pipe would block
        raise DataError(f"{path}: is not a regular file. Give a file of numbers.")
    try:
        size = path.stat().st_size
        array = np.memmap(path, kind, "r") if size and not size % one else np.empty(0, kind)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions.") from error
    if size == 0 or size % one:
        raise DataError(
            f"{path}: {size} bytes are not a multiple of {one}, the size of '{spec.name}' as {kind}{list(shape)}. "
            "Give whole feeds, or the right --input_shape and --input_type."
        )
    rows = shape[0] if shape else 1
    return array.reshape((size // one * rows, *shape[1:])) if shape else array.reshape(())
