"""Read one .onnx file into one in-memory graph; the content of large tensors stays in its file until it is asked for.

Everything that a file claims is checked here, before anything is allocated for it; see docs/security.md.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.serde import TensorProtoTensor

from amct_onnx.errors import AmctError, ModelFileError, ModelNotFoundError
from amct_onnx.files.detached_tensor import MAX_RANK, DetachedTensors
from amct_onnx.files.file_kinds import file_kind
from amct_onnx.files.file_tensor import FileTensor, SourceFile
from amct_onnx.files.graph_check import check_graph, check_tensor_text
from amct_onnx.files.passed_inputs import FALSE_ENDS, settle_passed_inputs
from amct_onnx.files.proto_scan import HERE, graph_without_large_tensors
from amct_onnx.files.sparse_constants import SparseError, densify_constants

INPUT_FILES = "amct_onnx.input_files"
"""Key in ``model.meta``: (device, inode) of every file that the model was read from."""
MAX_NAMED = 3
"""Models that an error names of a directory."""
PACKED = (2, 4)
"""Bits of types of which each entry of int32_data holds a byte; of those of 6 bits, an element."""
TYPED_FIELDS = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.UINT32: "uint64_data",
}
"""Field that holds a type's elements outside raw_data; int32_data for all other types."""


def read_model(model_file: str | os.PathLike[str]) -> ir.Model:
    """Load a model; external data must be in regular files inside the model's folder.

    Raises:
        ModelNotFoundError: The file does not exist.
        ModelFileError: The file is not an ONNX model, or its external data is missing or out of bounds.
    """
    path = Path(model_file)
    try:
        if not path.exists():
            raise ModelNotFoundError(f"{path}: no such file. Give the path of an .onnx model.")
        if path.is_dir():
            raise ModelFileError(
                f"{path}: not a regular file but a directory{_model_within(path)}. Give the path of an .onnx model."
            )
        if not path.is_file():
            raise ModelFileError(f"{path}: not a regular file. Give the path of an .onnx model.")
        source = SourceFile(Path(os.path.realpath(path)))
        model = _recognised(path, source)
    except OSError as error:
        if isinstance(error, AmctError):
            raise
        raise _as_file_error(path, error) from error
    graphs = check_graph(model, path)
    model.meta[INPUT_FILES] = _Tensors(path, source).check(graphs)
    return model


def read_proto(model_file: str | os.PathLike[str]) -> onnx.ModelProto:
    """The protobuf of a model that ``read_model`` has accepted; large tensors are external data at location HERE.

    Raises:
        ModelFileError: The file has changed meanwhile and is not a protobuf message any more, or cannot be read.
    """
    path = Path(model_file)
    try:
        content = graph_without_large_tensors(SourceFile(Path(os.path.realpath(path))))
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
        return proto
    except OSError as error:
        raise _as_file_error(path, error) from error
    except DecodeError as error:
        raise ModelFileError(
            f"{path}: not a valid ONNX model ({error}). Export or download the model again."
        ) from error


def _model_within(folder: Path) -> str:
    """What a directory is or holds that could have been meant."""
    for name, what in (("saved_model.pb", "TensorFlow SavedModel"), ("Manifest.json", "Core ML package")):
        if (folder / name).is_file():
            return f" with a {what}"
    models = sorted(p.name for p in folder.glob("*.onnx"))[:MAX_NAMED]
    return f" with {', '.join(models)}" if models else ""


def _as_file_error(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions.")


def _recognised(path: Path, source: SourceFile) -> ir.Model:
    """The model; of a file that holds none, the error says what it is where its first bytes tell."""
    try:
        model = _parse(path, source)
        if model.opset_imports and list(model.graph.outputs):
            return model
        raise ModelFileError(f"{path}: not an ONNX model with a graph and outputs. Export the model again.")
    except ModelFileError as error:
        what = file_kind(source)
        if what is None:
            raise
        remedy = what.remedy
        raise ModelFileError(f"{path}: not an ONNX model but {what.name}. {remedy}") from error


def _parse(path: Path, source: SourceFile) -> ir.Model:
    content = graph_without_large_tensors(source)
    try:
        proto = onnx.ModelProto.FromString(content)
        del content
        if proto.graph.sparse_initializer:
            name = proto.graph.sparse_initializer[0].values.name
            raise ModelFileError(f"{path}: tensor '{name}' is sparse. Export the model with dense initializers.")
        _check_names(path, proto.graph)
        densify_constants(proto.graph)
        false_ends = settle_passed_inputs(proto.graph)
        model: ir.Model = ir.from_proto(proto)
        model.meta[FALSE_ENDS] = false_ends
        return model
    except ModelFileError:
        raise
    except SparseError as error:
        raise ModelFileError(f"{path}: {error}. Export the model with dense constants.") from error
    except Exception as error:  # protobuf and onnx-ir raise many classes on malformed bytes
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, NotImplementedError):
            raise ModelFileError(
                f"{path}: holds a sparse tensor or a map in a node, which are not read. Export the model without them."
            ) from error
        reason = " ".join(str(root).split())[:200]
        raise ModelFileError(
            f"{path}: not a valid ONNX model ({type(root).__name__}: {reason}). Export or download the model again."
        ) from error


def _check_names(path: Path, graph: onnx.GraphProto) -> None:
    """Check that each tensor is defined once; onnx-ir would silently take the last definition."""
    for kind, names in (
        ("initializer", (t.name for t in graph.initializer)),
        ("output of a node", (name for n in graph.node for name in n.output if name)),
        ("graph input", (v.name for v in graph.input)),
    ):
        seen = set()
        for name in names:
            if name in seen:
                raise ModelFileError(f"{path}: tensor '{name}' is defined twice ({kind}). Export the model again.")
            seen.add(name)


class _Tensors:
    """Checks every tensor of a model against what it claims, and leaves external ones in their files."""

    def __init__(self, path: Path, source: SourceFile) -> None:
        self._path = path
        self._folder = source.path.parent
        self._here = source
        self._files: dict[str, SourceFile] = {}
        self._detached = DetachedTensors()

    def check(self, graphs: list[ir.Graph]) -> set[tuple[int, int]]:
        """Check the tensors of all graphs, and return the identities of the files that hold them."""
        for graph in graphs:
            for value in graph.initializers.values():
                tensor = value.const_value
                checked = self._checked(tensor) if tensor is not None else None
                if checked is not tensor:
                    value.const_value = checked
                    value.shape = self._detached.shared(value.shape)
            for node in graph:
                if node.attributes:
                    self._check_attributes(node)
        return {f.identity for f in [self._here, *self._files.values()]}

    def _check_attributes(self, node: ir.Node) -> None:
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref() or attribute.type not in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
                continue
            several = attribute.type == ir.AttributeType.TENSORS
            try:
                present = list(attribute.as_tensors()) if several else [attribute.as_tensor()]
            except (TypeError, ValueError) as error:  # an element type that does not exist
                raise ModelFileError(
                    f"{self._path}: attribute '{name}' of node '{node.name}' is not a tensor ({error}). "
                    "Export the model again."
                ) from error
            tensors = [self._checked(t) for t in present]
            if several:
                node.attributes[name] = ir.AttrTensors(name, tensors, attribute.doc_string)
            elif tensors[0] is not present[0]:
                node.attributes[name] = ir.AttrTensor(name, tensors[0], attribute.doc_string)

    def _checked(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        check_tensor_text(self._path, tensor)
        detached = self._detached.detach(tensor.raw) if isinstance(tensor, TensorProtoTensor) else None
        if detached is not None:
            return detached
        shape = tensor.shape.numpy()
        if shape and min(shape) < 0:
            raise self._error(tensor, f"has the negative dimension {min(shape)}", "Export the model again.")
        if len(shape) > MAX_RANK:
            raise self._error(tensor, f"has {len(shape)} dimensions, at most {MAX_RANK} are read", "Reshape it.")
        try:
            dtype = tensor.dtype
        except ValueError:
            dtype = ir.DataType.UNDEFINED
        if dtype == ir.DataType.UNDEFINED:
            raise self._error(tensor, "has no element type that ONNX defines", "Export the model again.")
        if isinstance(tensor, ir.ExternalTensor):
            return self._external(tensor)
        size = math.prod(shape)
        if isinstance(tensor, ir.StringTensor):
            present, expected, unit = len(tensor.string_data()), size, "elements"
        else:
            raw = tensor.raw
            if raw.HasField("raw_data"):
                present, expected, unit = len(raw.raw_data), math.ceil(dtype.itemsize * size), "bytes"
            else:
                field = TYPED_FIELDS.get(dtype, "int32_data")
                other = next(
                    (f for f in {"int32_data", *TYPED_FIELDS.values()} if f != field and getattr(raw, f)), None
                )
                if other is not None:
                    raise self._error(tensor, f"of type {dtype.name} has elements in {other}", "Export it again.")
                present = len(getattr(raw, field))
                expected, unit = size, "elements"
                if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
                    expected *= 2
                elif dtype.bitwidth in PACKED:
                    expected = tensor.nbytes
        if present != expected:
            raise self._error(
                tensor,
                f"holds {present} {unit}; its shape {list(shape)} asks for {expected}",
                "Export the model again.",
            )
        return tensor

    def _external(self, tensor: ir.ExternalTensor) -> FileTensor:
        if tensor.dtype == ir.DataType.STRING:
            raise self._error(
                tensor, "holds strings as external data, which ONNX does not define", "Store them inline."
            )
        location = os.fsdecode(tensor.location)
        source = self._here if location == HERE else self._open(tensor, location)
        offset, length = tensor.offset or 0, tensor.length if tensor.length is not None else tensor.nbytes
        if location == HERE and length != tensor.nbytes:
            raise self._error(
                tensor,
                f"holds {length} bytes; its shape {list(tensor.shape.numpy())} asks for {tensor.nbytes}",
                "Export the model again.",
            )
        if offset < 0 or length < tensor.nbytes or offset + length > source.size:
            raise self._error(
                tensor,
                f"({tensor.nbytes} bytes) is declared as {length} bytes from {offset} and lies beyond the end of "
                f"'{source.path}' ({source.size} bytes)",
                "Copy the data file again.",
            )
        return FileTensor(tensor, source, offset)

    def _open(self, tensor: ir.ExternalTensor, location: str) -> SourceFile:
        if location in self._files:
            return self._files[location]
        outside = self._error(
            tensor,
            f"refers to external data outside the model's folder ('{location}')",
            "Save the model again with its data beside it.",
        )
        if not location or "\0" in location or os.path.isabs(location):
            raise outside
        target = Path(os.path.realpath(self._folder / location))
        if not target.is_relative_to(self._folder):
            raise outside
        try:
            self._files[location] = SourceFile(target)
        except FileNotFoundError as error:
            raise self._error(
                tensor, f"needs the external data file '{target}', which does not exist", "Copy it beside the model."
            ) from error
        except OSError as error:
            raise self._error(
                tensor,
                f"needs the external data file '{target}', which cannot be read ({error.strerror or error})",
                "Check that it is a regular file and its permissions.",
            ) from error
        except ModelFileError as error:
            raise self._error(
                tensor,
                f"refers to '{target}' as external data, which is not a regular file",
                "Copy the data beside the model.",
            ) from error
        return self._files[location]

    def _error(self, tensor: ir.TensorProtocol, what: str, remedy: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: tensor '{tensor.name}' {what}. {remedy}")
