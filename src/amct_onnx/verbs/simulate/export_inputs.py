"""A data set as raw files for ``ais_bench --input``: a folder for each input, a file for each feed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.source import DataSource
from amct_onnx.errors import OutputError
from amct_onnx.files.hidden_folder import flush_folder, write_fully
from amct_onnx.files.transaction import FILE_MODE, FOLDER_MODE, Transaction
from amct_onnx.verbs.simulate.earlier_results import feed_folder

PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


def input_folders(names: Sequence[str]) -> tuple[str, ...]:
    """The folder of each input: its name with / as _, as ``--data`` finds it; input_<number> when it is not plain."""
    spelt = [n.replace("/", "_") for n in names]
    plain = len(set(spelt)) == len(spelt) and all(PLAIN.fullmatch(n) for n in spelt)
    return tuple(spelt) if plain else tuple(f"input_{i}" for i in range(len(names)))


def export_inputs(source: DataSource, names: Sequence[str], folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Write what a board is fed: numbers of each input's type, uint8 images where AIPP prepares them.

    Args:
        source: the data set.
        names: of the model's inputs, in their order.
        folder: new or without folders of these inputs.

    Returns:
        The inputs' folders, in the order of ``ais_bench --input``.

    Raises:
        OutputError: An input's folder is there already, or nothing can be written; nothing has changed.
    """
    root = Path(os.path.realpath(folder))
    targets = free_folders(names, root)
    try:
        with Transaction() as transaction:
            places = [transaction.place(t) for t in targets]
            for place in places:
                place.mkdir(FOLDER_MODE)
            for number, feed in enumerate(source.fed):
                for name, place in zip(names, places, strict=True):
                    _write(place / f"{feed_folder(number)}.bin", feed[name])
            for place in places:
                flush_folder(place)
            transaction.commit(lambda: _refuse_new(targets))
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{root}: cannot be written ({error.strerror or error}). Choose another folder.") from error
    return tuple(str(t) for t in targets)


def free_folders(names: Sequence[str], folder: str | os.PathLike[str]) -> list[Path]:
    """The folders that ``export_inputs`` makes.

    Raises:
        OutputError: One is there already.
    """
    root = Path(os.path.realpath(folder))
    targets = [root / n for n in input_folders(names)]
    for target in targets:
        if os.path.lexists(target):
            raise OutputError(f"{target}: is there already. Remove it, or choose another folder for --export_inputs.")
    return targets


def _refuse_new(targets: Sequence[Path]) -> None:
    """Under the locks: what another program made since."""
    for target in targets:
        if os.path.lexists(target):
            raise OutputError(f"{target}: was made by another program. Choose another folder for --export_inputs.")


def _write(path: Path, array: Array) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        write_fully(handle, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, 0)
        os.fsync(handle)
    finally:
        os.close(handle)
