"""Write all outputs or none: temporary files in the target folder, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir

from amct_onnx.errors import OutputError

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights up to which a model stays one file; protobuf ends at 2 GiB."""


def write_all(files: dict[Path, Callable[[Path], None]]) -> None:
    """Call each writer with a temporary path in its target's folder, then rename all of them.

    Raises:
        OutputError: A folder or file cannot be written; nothing is left and earlier files are untouched.
    """
    temporary: dict[Path, Path] = {}
    try:
        for target, writer in files.items():
            if target.is_dir():
                raise OutputError(f"{target}: is a folder. Choose another save_path.")
            _make_folder(target.parent)
            handle, name = tempfile.mkstemp(prefix=".amct_", suffix=target.suffix, dir=target.parent)
            os.close(handle)
            temporary[target] = Path(name)
            writer(Path(name))
            os.chmod(name, 0o640)
            with open(name, "rb") as written:
                os.fsync(written.fileno())
        for target, source in temporary.items():
            os.replace(source, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        where = error.filename or next(reversed(files))
        raise OutputError(
            f"{where}: cannot be written ({error.strerror or error}). Choose a writable save_path."
        ) from error
    finally:
        for path in temporary.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _make_folder(folder: Path) -> None:
    missing = [p for p in [folder, *folder.parents] if not p.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o750, exist_ok=True)


def weight_bytes(model: ir.Model) -> int:
    """Summed size of the initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


@contextlib.contextmanager
def _inline(model: ir.Model) -> Iterator[None]:
    from onnx_ir import external_data

    external_data.load_to_model(model)
    yield


def save_model(model: ir.Model, path: Path) -> None:
    """Serialise a model into one file.

    Raises:
        OutputError: The model exceeds what one protobuf file can hold.
    """
    size = weight_bytes(model)
    if size > INLINE_LIMIT:
        raise OutputError(f"{path}: {size} bytes of weights exceed the 2 GB that one ONNX file can hold.")
    with _inline(model):
        ir.save(model, path, format="protobuf")
