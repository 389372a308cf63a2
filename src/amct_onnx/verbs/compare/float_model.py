"""The float model before quantization, beside the source: which of its inputs and outputs are whose."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import ModelFileError
from amct_onnx.files.read import read_model
from amct_onnx.verbs.compare.measure.sessions import ModelBytes, show

FLOAT = "float"
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize", "Quant"})
"""What a float model does not hold."""


@dataclass(frozen=True)
class FloatModel:
    """A float model that can be fed with the source's data.

    Attributes:
        model: to be run.
        inputs: its input -> the source's.
        outputs: for each output of the source, in the order of the graph, its own.
        notes: how they were matched when names do not tell, and what makes it look like another model.
    """

    model: ModelBytes
    inputs: dict[str, str]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def read_float_model(path: str | os.PathLike[str], source: ir.Model, outputs: Sequence[str]) -> FloatModel:
    """Read the float model and match it with the source.

    Args:
        path: of the model.
        source: a model with the inputs and outputs of the source.
        outputs: names of the source's outputs.

    Raises:
        ModelFileError: It cannot be read, or has other inputs or outputs than the source.
    """
    model = read_model(path)
    label = os.fspath(path)
    own, theirs = _inputs(model), _inputs(source)
    taken, by_order = _matched(label, "input", list(own), list(theirs))
    notes = [by_order] if by_order else []
    for name, other in taken.items():
        _check_alike(label, name, own[name], other, theirs[other])
    own_outputs = [v.name or "" for v in model.graph.outputs]
    given, by_order = _matched(label, "output", list(outputs), own_outputs)
    notes += [by_order] if by_order else []
    for name, value in zip(outputs, source.graph.outputs, strict=True):
        made = next(v for v in model.graph.outputs if v.name == given[name])
        _check_shape(label, "output", given[name], made, name, value)
    quantizer = next((n for n in ir.traversal.RecursiveGraphIterator(model.graph) if n.op_type in QUANTIZERS), None)
    if quantizer is not None:
        notes.append(f"It holds a {quantizer.op_type} ('{quantizer.name}'): this is not a float model.")
    return FloatModel(show(model, path, []), taken, tuple(given[n] for n in outputs), tuple(notes))


def _inputs(model: ir.Model) -> dict[str, ir.Value]:
    """Those that must be fed."""
    return {v.name or "": v for v in model.graph.inputs if v.name not in model.graph.initializers}


def _matched(label: str, kind: str, wanted: Sequence[str], there: Sequence[str]) -> tuple[dict[str, str], str]:
    """Each wanted name with one of those that are there, and a sentence when only the order tells which.

    An input of the float model wants one of the source's, an output of the source one of the float model's.

    Raises:
        ModelFileError: Neither names nor numbers fit.
    """
    if set(wanted) <= set(there):
        return {n: n for n in wanted}, ""
    pairs = dict(zip(wanted, there, strict=False))
    if len(wanted) != len(there):
        float_names, source_names = (wanted, there) if kind == "input" else (there, wanted)
        raise ModelFileError(
            f"{label}: has the {kind}s {_named(float_names)}, the source {_named(source_names)}: neither names nor "
            "numbers tell which belong together. Export the float model of this source."
        )
    own = pairs if kind == "input" else {v: k for k, v in pairs.items()}
    listed = ", ".join(f"'{a}' for '{b}'" for a, b in own.items())
    return pairs, f"Its {kind}s have other names than the source's and are taken in their order: {listed}."


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"'{n}'" for n in names) or "none"


def _check_alike(label: str, name: str, own: ir.Value, other: str, theirs: ir.Value) -> None:
    """An input of the same type and of a shape that the other's data may have."""
    if own.dtype is not None and theirs.dtype is not None and own.dtype != theirs.dtype:
        raise ModelFileError(
            f"{label}: its input '{name}' is {own.dtype.name.lower()}, the source's '{other}' "
            f"{theirs.dtype.name.lower()}. Export the float model with the source's inputs."
        )
    _check_shape(label, "input", name, own, other, theirs)


def _check_shape(label: str, kind: str, name: str, own: ir.Value, other: str, theirs: ir.Value) -> None:
    shapes = [None if v.shape is None else list(v.shape) for v in (own, theirs)]
    if shapes[0] is None or shapes[1] is None:
        return
    sizes = list(zip(*shapes, strict=False))
    if len(shapes[0]) == len(shapes[1]) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in sizes
    ):
        return
    raise ModelFileError(
        f"{label}: its {kind} '{name}' has the shape {_shape(shapes[0])}, the source's '{other}' {_shape(shapes[1])}. "
        "Export the float model of this source."
    )


def _shape(shape: Sequence[int | ir.SymbolicDim]) -> str:
    return "[" + ", ".join(str(d) if isinstance(d, int) else "?" for d in shape) + "]"


def feeds_of(model: FloatModel, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The source's feeds under the names of the float model's inputs."""
    return {own: feeds[theirs] for own, theirs in model.inputs.items()}
