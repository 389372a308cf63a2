"""What a comparison is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from amct_onnx.data.aipp_config import aipp_digest
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.labels import AnyLabels
from amct_onnx.data.source import AnyData, DataSource
from amct_onnx.verbs.compare.measure.evaluator import AnyEvaluator
from amct_onnx.verbs.compare.measure.progress import Tell
from amct_onnx.verbs.convert.read_ledger import Ledger


@dataclass(frozen=True)
class Request:
    """The arguments of a comparison.

    ``reports`` are the files to write, in their real folders. ``quantized`` is the model that was converted: ``model``,
    or the same with its record's quantizers; ``model_files`` are the identities of the files of the latter's ``model``.
    """

    model: str | os.PathLike[str]
    save_path: str | os.PathLike[str]
    data: AnyData | DataSource
    labels: AnyLabels | None
    evaluator: AnyEvaluator | None
    devices: tuple[str, ...]
    input_shape: str
    input_type: str
    images: ImageOptions | None
    batch_size: int
    threads: int
    reports: tuple[Path, ...]
    resume: bool
    state_file: str | os.PathLike[str] | None
    dask: str | None
    board: str | os.PathLike[str] | None
    progress: Tell
    stage: Callable[[str], None]
    max_drop: float | None
    float_model: str | os.PathLike[str] | None = None
    aipp: str | os.PathLike[str] | None = None
    quantized: str | os.PathLike[str] = ""
    model_files: frozenset[tuple[int, int]] = frozenset()

    def settings(self, devices: Sequence[str]) -> dict[str, str]:
        """What the user set, as printed; ``devices`` under the names that this package gives them."""
        return {
            "devices": ", ".join(devices),
            "batch_size": str(self.batch_size),
            "threads": str(self.threads),
            "labels": _given(self.labels),
            "float_model": os.fspath(self.float_model) if self.float_model is not None else "none",
            "evaluator": _given(self.evaluator),
            "input_shape": self.input_shape or "the model's",
            "input_type": self.input_type or "the model's",
            "images": _changed(self.images or ImageOptions()),
            "aipp": "none" if self.aipp is None else f"{os.fspath(self.aipp)} ({aipp_digest(self.aipp)})",
        }

    def read_files(self, ledger: Ledger) -> list[str | os.PathLike[str]]:
        """The files and folders that the comparison reads, beside the models."""
        named = (ledger.path, self.model, self.labels, self.evaluator, self.board, self.data, self.aipp)
        return [p for p in named if isinstance(p, (str, os.PathLike))]


def _changed(images: ImageOptions) -> str:
    """The options that are not the usual ones, in words."""
    usual, made = ImageOptions(), []
    for field in fields(images):
        value = getattr(images, field.name)
        if value != getattr(usual, field.name):
            numbers = value if isinstance(value, tuple) else (value,)
            made.append(f"{field.name} {' '.join(map(str, numbers))}")
    return "; ".join(made) or "default"


def _given(value: object) -> str:
    """A file that was given, or what kind of object."""
    if value is None:
        return "none"
    return os.fspath(value) if isinstance(value, (str, os.PathLike)) else "in memory"
