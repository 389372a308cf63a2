"""Read one .onnx file into one in-memory graph; external data stays memory-mapped."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from amct_onnx.errors import ModelFileError, ModelNotFoundError


def read_model(model_file: str | os.PathLike[str]) -> ir.Model:
    """Load a model and check that all its external data lies inside the model's folder.

    Raises:
        ModelNotFoundError: The file does not exist.
        ModelFileError: The file is no ONNX model, or its external data is missing or out of bounds.
    """
    path = Path(model_file)
    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such file. Give the path of the .onnx model to convert.")
    if not path.is_file():
        raise ModelFileError(f"{path}: not a regular file. Give the path of the .onnx model to convert.")
    try:
        model = ir.load(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions.") from error
    except Exception as error:  # protobuf and onnx-ir raise many classes on malformed bytes
        raise ModelFileError(
            f"{path}: not a valid ONNX model ({type(error).__name__}: {error}). Export or download the model again."
        ) from error
    if not model.opset_imports or not list(model.graph.outputs):
        raise ModelFileError(f"{path}: not an ONNX model with a graph and outputs. Export the model again.")
    _check_inputs(model, path)
    _check_external_data(model, path)
    return model


def _check_inputs(model: ir.Model, path: Path) -> None:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.inputs:
            if value is None or value.producer() is not None or value.is_graph_input() or value.is_initializer():
                continue
            raise ModelFileError(
                f"{path}: node '{node.name}' ({node.op_type}) reads '{value.name}', which is no input, initializer or "
                "output of another node (sparse initializers are not supported). Export the model again."
            )


def _check_external_data(model: ir.Model, path: Path) -> None:
    folder = path.resolve().parent
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        where = Path(tensor.path)
        target = (where if where.is_absolute() else folder / where).resolve()
        if Path(tensor.location).is_absolute() or not target.is_relative_to(folder):
            raise ModelFileError(
                f"{path}: tensor '{value.name}' refers to external data outside the model's folder "
                f"('{tensor.location}'). Save the model again with its data beside it."
            )
        if not target.is_file():
            raise ModelFileError(
                f"{path}: tensor '{value.name}' needs the external data file '{target}', which does not exist. "
                "Copy it beside the model."
            )
        end = (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)
        if end > target.stat().st_size or (tensor.length is not None and tensor.length < tensor.nbytes):
            raise ModelFileError(f"{path}: tensor '{value.name}' lies beyond the end of '{target}'. Copy it again.")
