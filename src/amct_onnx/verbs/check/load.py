"""Read a model for checking: unlike in a conversion, missing data or outputs are findings and not a reason to stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from amct_onnx.errors import AmctError, ModelFileError, ModelNotFoundError
from amct_onnx.files.file_kinds import file_kind
from amct_onnx.files.file_tensor import SourceFile
from amct_onnx.verbs.check.file_facts import FileFacts, drop_sparse_values, facts_of


def load_for_check(model_file: str | os.PathLike[str]) -> tuple[ir.Model, FileFacts]:
    """Load a model without touching its external data, and read what its file says beyond it.

    Raises:
        ModelNotFoundError: The file does not exist.
        ModelFileError: The file is not an ONNX model.
    """
    path = Path(model_file)
    try:
        if not path.exists():
            raise ModelNotFoundError(f"{path}: no such file. Give the path of the .onnx model to check.")
        if not path.is_file():
            raise ModelFileError(f"{path}: not a regular file. Give the path of the .onnx model to check.")
        with _quiet():
            model, facts = _parse(path)
    except AmctError:
        raise
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions.") from error
    except Exception as error:  # protobuf and onnx-ir raise many classes on malformed bytes
        _refuse_other_files(path)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelFileError(
            f"{path}: not a valid ONNX model ({type(cause).__name__}: {cause}). Export or download the model again."
        ) from error
    if not all(isinstance(text, str) for text in _texts(model)):
        raise ModelFileError(f"{path}: a name in it is not UTF-8 text. Export or download the model again.")
    for tensor in _tensors(model):
        if not _has_type(tensor):
            raise ModelFileError(
                f"{path}: tensor '{tensor.name}' has no element type. Export or download the model again."
            )
    if not model.opset_imports and not len(model.graph):
        _refuse_other_files(path)
        raise ModelFileError(f"{path}: not an ONNX model with a graph. Export or download the model again.")
    return model, facts


def _has_type(tensor: ir.TensorProtocol) -> bool:
    try:
        return tensor.dtype != ir.DataType.UNDEFINED
    except ValueError:  # a number that no type has, in an attribute
        return False


def _parse(path: Path) -> tuple[ir.Model, FileFacts]:
    proto = onnx.load(str(path), load_external_data=False)
    facts = facts_of(proto)
    drop_sparse_values(proto.graph)
    model: ir.Model = ir.from_proto(proto)
    for graph in [model.graph, *model.graph.subgraphs()]:
        ir.external_data.set_base_dir(graph, path.parent)
    return model, facts


def _refuse_other_files(path: Path) -> None:
    what = file_kind(SourceFile(path.resolve()))
    if what is not None:
        remedy = what.remedy
        raise ModelFileError(f"{path}: not an ONNX model but {what.name}. {remedy}")


def _texts(model: ir.Model) -> Iterator[object]:
    """Names, of files as well; protobuf hands malformed ones out as bytes."""
    yield from model.opset_imports
    for graph in [model.graph, *model.graph.subgraphs()]:
        yield from graph.initializers
        yield from (v.name or "" for v in [*graph.inputs, *graph.outputs])
    for node in model.graph.all_nodes():
        yield from (node.name or "", node.op_type, node.domain, *node.attributes)
        yield from (v.name or "" for v in node.outputs)
    yield from (t.location for t in _tensors(model) if isinstance(t, ir.ExternalTensor))


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Initializers and attributes of all graphs."""
    for graph in [model.graph, *model.graph.subgraphs()]:
        yield from (v.const_value for v in graph.initializers.values() if v.const_value is not None)
    for node in model.graph.all_nodes():
        for held in node.attributes.values():
            # not by as_tensor, which asks for the size that a tensor without a type does not have
            if not held.is_ref() and held.type == ir.AttributeType.TENSOR:
                yield held.value
            elif not held.is_ref() and held.type == ir.AttributeType.TENSORS:
                yield from held.value


@contextmanager
def _quiet() -> Iterator[None]:
    """onnx-ir logs what it repairs; the rules report the same things with a remedy."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
