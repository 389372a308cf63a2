"""Rules on constants outside the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import ERROR
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import PARSER

FILE_CONSTANT = "ge: parser/parser/onnx/onnx_file_constant_parser.cc"


@rule(
    id="external-missing",
    severity=ERROR,
    title="External data missing",
    why="Constants outside the file are read from the model's folder when ATC compiles.",
    source=PARSER,
    remedy="Copy the data file beside the model.",
)
def external_missing(view: ModelView) -> Iterator[Hit]:
    """External data that is not where the file says."""
    for name, tensor, _ in view.tensors:
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        path = _external_path(view, tensor)
        try:
            size = path.stat().st_size if path.is_file() else None
        except (OSError, ValueError):
            size = None
        if size is None:
            yield Hit(f"its data file '{tensor.location}' does not exist", tensor=name)
        elif (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes) > size:
            yield Hit(f"its data lies beyond the end of '{tensor.location}'", tensor=name)


@rule(
    id="external-absolute",
    severity=ERROR,
    title="External data under an absolute path",
    why="ATC puts the model's folder in front of the location as it stands, so an absolute path leads nowhere.",
    source=f"{PARSER} (SetExternalPath)",
    remedy="Save the model again with its data in the same folder.",
)
def external_absolute(view: ModelView) -> Iterator[Hit]:
    """External data whose location is an absolute path."""
    for name, tensor, _ in view.tensors:
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.location).is_absolute():
            yield Hit(f"its data file is '{tensor.location}'", tensor=name)


def _external_path(view: ModelView, tensor: ir.ExternalTensor) -> Path:
    where = Path(tensor.path)
    return where if where.is_absolute() or view.folder is None else view.folder / Path(tensor.location)


@rule(
    id="external-checksum",
    severity=ERROR,
    title="External data with a checksum",
    why="The parser knows the keys location, offset and length of external_data and stops at any other one, also at "
    "ONNX's own checksum (E10001).",
    source=FILE_CONSTANT,
    remedy="Save the model again without checksums, or with the data inside the file.",
)
def external_checksum(view: ModelView) -> Iterator[Hit]:
    """External data with a checksum."""
    for name in view.facts.checksums:
        yield Hit("its external_data has the entry 'checksum'", tensor=name)


@rule(
    id="external-in-branch",
    severity=ERROR,
    title="External data inside a branch",
    why="The parser puts the model's folder in front of the locations of the main graph's initializers only: inside an "
    "If, the location is looked up where atc was started.",
    source=f"{PARSER} (SetExternalPath)",
    remedy="Move the constant to the main graph, or store it inside the file.",
)
def external_in_branch(view: ModelView) -> Iterator[Hit]:
    """External data in a nested graph."""
    for scope in view.scopes:
        if scope.holder is None:
            continue
        for name, value in scope.graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield Hit(f"its data file is '{value.const_value.location}'", view.names[scope.holder], name)
