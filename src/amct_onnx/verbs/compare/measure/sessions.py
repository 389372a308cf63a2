"""The sessions that serve as references: options pinned, named tensors shown as extra outputs."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort

from amct_onnx.common.arrays import Array
from amct_onnx.common.onnxruntime_session import (
    KEEP_QDQ,
    PINNED_ENTRIES,
    PINNED_LEVEL,
    open_session,
    session_options,
)
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.files.compose import INLINE_LIMIT, weight_bytes
from amct_onnx.files.model_bytes import model_bytes
from amct_onnx.files.read import INPUT_FILES
from amct_onnx.graph.channel_quantizers import write_out_channel_quantizers
from amct_onnx.graph.wide_quantizers import name_wide_quantizers
from amct_onnx.normalise.device_configurations import remove_device_configurations

REFERENCE_ENTRIES = {**KEEP_QDQ, **PINNED_ENTRIES}
"""Session config entries under which Q/DQ, fake-quant and deploy models are computed as written."""


@dataclass(frozen=True)
class ModelBytes:
    """A model that shows more tensors than its own outputs.

    Attributes:
        label: path, for messages.
        content: serialised, with its weights.
        shown: names of the tensors that were added to the outputs, or are outputs already.
        files: (device, inode) of the files that it was read from.
    """

    label: str
    content: bytes
    shown: tuple[str, ...]
    files: frozenset[tuple[int, int]] = field(default=frozenset(), compare=False)


def tensors_of(model: ir.Model) -> dict[str, ir.Value]:
    """Every tensor of the graph itself (not of bodies) by name."""
    found = {v.name or "": v for v in model.graph.inputs}
    found.update({v.name or "": v for n in model.graph for v in n.outputs})
    return found


def show(model: ir.Model, label: str | os.PathLike[str], names: Sequence[str]) -> ModelBytes:
    """Serialise a model with the named tensors as extra outputs; names it does not hold are left out.

    Args:
        model: is used up.
        label: its path.
        names: of tensors of the graph.

    Raises:
        UnsupportedModelError: It is too large for one session.
    """
    if weight_bytes(model) > INLINE_LIMIT:
        raise UnsupportedModelError(
            f"{label}: {weight_bytes(model)} bytes of weights; more than {INLINE_LIMIT} cannot be compared. Split it."
        )
    files = frozenset(model.meta.get(INPUT_FILES, ()))  # none of a model that was made in memory
    write_out_channel_quantizers(model)
    name_wide_quantizers(model)
    tensors = tensors_of(model)
    shown = tuple(dict.fromkeys(n for n in names if n in tensors))
    for name in shown:
        value = tensors[name]
        if not value.is_graph_output() and not value.is_graph_input():
            model.graph.outputs.append(value)
    remove_device_configurations(model)  # a session on the CPU has one device
    return ModelBytes(os.fspath(label), model_bytes(model), shown, files)


def opened(model: ModelBytes) -> ir.Model:
    """The model that the bytes hold."""
    return ir.serde.deserialize_model(onnx.load(io.BytesIO(model.content)))


def pinned_settings(threads: int) -> dict[str, str]:
    """The options of every reference session, as printed."""
    return {
        "graph_optimization_level": PINNED_LEVEL.name,
        **REFERENCE_ENTRIES,
        "intra_op_num_threads": str(threads),
    }


def pinned_options(threads: int) -> ort.SessionOptions:
    """Options under which Q/DQ and fake-quant models give their true numbers."""
    return session_options(entries=REFERENCE_ENTRIES, threads=threads)


def open_reference(model: ModelBytes, threads: int) -> ort.InferenceSession:
    """A session under the pinned options.

    Raises:
        UnsupportedModelError: ONNX Runtime refuses the model.
    """
    return _open(model.content, model.label, pinned_options(threads))


def open_default(path: str | os.PathLike[str]) -> ort.InferenceSession:
    """A session as a user opens it who changes nothing: possibly a false witness of a Q/DQ model.

    From its file: more tensors shown would keep ONNX Runtime from fusing the nodes that make them.

    Raises:
        UnsupportedModelError: ONNX Runtime refuses the model.
    """
    options = session_options(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return _open(os.fspath(path), os.fspath(path), options)


def _open(model: str | bytes, label: str, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return open_session(model, options)
    except Exception as error:  # onnxruntime's classes share no base
        raise UnsupportedModelError(
            f"{label}: ONNX Runtime refuses the model ({error}). Check that it runs in onnxruntime by itself."
        ) from error


def run_named(session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run for the named outputs; a name that is a graph input is answered with what was fed."""
    asked = [n for n in names if n not in feeds]
    made = session.run(asked, dict(feeds)) if asked else []  # an empty list would ask for all
    return {
        **dict(zip(asked, made, strict=True)),
        **{n: feeds[n] for n in names if n in feeds},
    }
