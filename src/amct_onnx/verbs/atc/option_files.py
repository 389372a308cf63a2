"""Files that options of ATC name, written on request; a file of the user is never replaced."""

from __future__ import annotations

from pathlib import Path

from amct_onnx.errors import OutputError


def write_option_file(path: Path, text: str) -> None:
    """Write a new file; one that holds the same text already stays.

    Raises:
        OutputError: Another file is there, or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        if not path.is_file() or path.read_bytes() != text.encode():
            raise OutputError(
                f"{path}: is there already, with other content. Rename it, or choose another --output."
            ) from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). Choose another --output.") from error
