"""A model in memory, as the file that every stage reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from amct_onnx.errors import ModelFileError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    AnyModel = str | os.PathLike[str] | onnx.ModelProto | ir.Model

DATA_FILE = "weights"
ONE_FILE_LIMIT = 1_900_000_000
"""Bytes that protobuf surely holds in one file."""


@contextmanager
def as_file(model: AnyModel) -> Iterator[tuple[str | os.PathLike[str], str]]:
    """The path of a model, and its name for people.

    A model in memory is written to a temporary folder, which goes with the context: weights are then read block by
    block, as those of any file. It needs room on the disk for the model.

    Args:
        model: a path, an ``onnx.ModelProto`` with its weights, or an ``onnx_ir.Model``.

    Raises:
        ModelFileError: It is none of these, a weight of a ModelProto is in a file, or it cannot be written.
    """
    if isinstance(model, (str, os.PathLike)):
        yield model, os.fsencode(model).decode(errors="backslashreplace")
        return
    import onnx_ir as ir  # only now: a path needs neither

    if not isinstance(model, ir.Model):
        model = _from_proto(model)
    with tempfile.TemporaryDirectory(prefix="amct_onnx_") as folder:
        path = Path(folder) / "model.onnx"
        size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
        try:
            ir.save(model, path, external_data=DATA_FILE if size > ONE_FILE_LIMIT else None)
        except (OSError, ValueError, TypeError) as error:
            raise ModelFileError(
                f"The model in memory cannot be written to {folder} ({error}). Save it, and give its path."
            ) from error
        yield path, f"a model in memory (graph '{model.graph.name}')"


def _from_proto(model: object) -> ir.Model:
    import onnx
    import onnx_ir as ir

    if not isinstance(model, onnx.ModelProto):
        raise ModelFileError(
            f"The model is a {type(model).__name__}. Give a path, an onnx.ModelProto or an onnx_ir.Model."
        )
    made: ir.Model = ir.from_proto(model)
    for value in made.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            raise ModelFileError(
                f"Tensor '{value.name}' of the ModelProto is in the file '{value.const_value.location}', whose folder "
                "is not known. Give the model's path, or load it with its external data."
            )
    return made
