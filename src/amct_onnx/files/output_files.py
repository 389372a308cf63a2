"""The files of a conversion, and the inputs that they must not overwrite."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from amct_onnx.errors import OutputError

MAX_NAME_BYTES = 255
"""Longest file name of the usual file systems."""


def output_files(save_path: str) -> tuple[str, list[Path]]:
    """The prefix, and the paths of deploy model, fake-quant model and ledger.

    A path that ends in a slash, ``.`` or ``..`` is a folder, and its files get no prefix.
    """
    name = os.path.basename(save_path)
    is_folder = name in ("", os.curdir, os.pardir)
    folder = _real((save_path if is_folder else os.path.dirname(save_path)) or os.curdir)
    prefix = "" if is_folder else f"{name}_"
    return prefix, [folder / f"{prefix}{k}" for k in ("deploy_model.onnx", "fake_quant_model.onnx", "quant.json")]


def in_real_folder(path: str | os.PathLike[str]) -> Path:
    """The path with links to its folder resolved; a link in the place of the file itself is kept, to be replaced."""
    return _real(os.path.dirname(path) or os.curdir) / os.path.basename(path)


def _real(folder: str) -> Path:
    try:
        return Path(os.path.realpath(folder))
    except OSError as error:  # only the current folder is asked for
        raise OutputError(
            f"{folder}: the current folder does not exist any more. Change to another one, or give an absolute path."
        ) from error


def identities(paths: Iterable[str | os.PathLike[str]]) -> set[tuple[int, int]]:
    """(device, inode) of those files that exist."""
    present = set()
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(path)
            present.add((status.st_dev, status.st_ino))
    return present


def check_targets(
    targets: Sequence[Path],
    model_file: str | os.PathLike[str] | None = None,
    inputs: Set[tuple[int, int]] = frozenset(),
) -> list[Path]:
    """The targets that exist already.

    Args:
        targets: all files that will be written.
        model_file: the input model.
        inputs: (device, inode) of the input model, its data files, and everything else that is read.

    Raises:
        OutputError: A target is an input, a folder, another target, or a name that no file can have.
    """
    replaced = []
    link = None if model_file is None else in_real_folder(model_file)
    for index, target in enumerate(targets):
        if len(os.fsencode(target.name)) > MAX_NAME_BYTES:
            raise OutputError(f"{target}: the file name is too long. Choose a shorter one.")
        if target in targets[:index]:
            raise OutputError(f"{target}: would overwrite another output. Choose another path for one of them.")
        try:
            if target.is_dir():
                raise OutputError(f"{target}: is a folder. Choose another path for the output.")
            os.fsencode(target).decode()
            status = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a missing or wrong folder shows when it is written
        except (OSError, ValueError) as error:
            if isinstance(error, OutputError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{target}: this name cannot be used ({reason}). Choose another path for the output."
            ) from error
        if target == link or (status.st_dev, status.st_ino) in inputs:
            raise OutputError(f"{target}: is an input itself or its data. Choose another path for the output.")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise OutputError(
                f"{target}: is a device or pipe, which is not replaced. Choose another path for the output."
            )
        replaced.append(target)
    return replaced
