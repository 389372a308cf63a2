"""Files that are written on request and whose content is known: a file of the user is never replaced."""

from __future__ import annotations

from pathlib import Path

from amct_onnx.errors import OutputError


def write_new_file(path: Path, content: bytes, option: str) -> None:
    """Write a new file; one that holds the same content already stays.

    Args:
        path: the file; its folder is made.
        content: of the file.
        option: which option of the command gave the path, for the message.

    Raises:
        OutputError: Another file is there, or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)
    except FileExistsError as error:
        if not path.is_file() or path.read_bytes() != content:
            raise OutputError(
                f"{path}: is there already, with other content. Rename it, or choose another {option}."
            ) from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). Choose another {option}.") from error
