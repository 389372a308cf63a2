"""The user's own Python files: any mistake in them is one error that names the file and the line."""

from __future__ import annotations

import os
import tokenize
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amct_onnx.errors import DataError


def read_code(path: str | os.PathLike[str]) -> str:
    """The text of a Python file.

    Raises:
        DataError: It is missing, cannot be read, is not text, or is a pipe or device, which would block for ever.
    """
    file = Path(path)
    if not file.is_file():
        what = "is not a regular file" if file.exists() else "no such file"
        raise DataError(f"{file}: {what}. Give a Python file.")
    try:
        with tokenize.open(file) as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise DataError(f"{file}: cannot be read ({error}). Give a Python file.") from error


def run_code(text: str, file: str, name: str) -> dict[str, Any]:
    """Run the text of a file as the module of that name, and return its names.

    Raises:
        DataError: It cannot be run.
    """
    names: dict[str, Any] = {"__name__": name, "__file__": file}
    with user_code(file, "cannot be run"):
        exec(compile(text, file, "exec"), names)
    return names


@contextmanager
def user_code(file: str, what: str) -> Iterator[None]:
    """Wrap a call into the user's code; Ctrl-C passes through.

    Raises:
        DataError: The code raised anything else, SystemExit and classes of its own included.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        place = f", line {lines[-1]}" if lines else ""
        raise DataError(f"{file}{place}: {what} ({_described(error)}). Correct it.") from error


def _described(error: BaseException) -> str:
    """Class and text in one line; the text of a user's class may raise again."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
