"""Read what a conversion wrote: the ledger and the paths of the models beside it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amct_onnx.comparison.report import Residual
from amct_onnx.errors import ModelFileError, ModelNotFoundError
from amct_onnx.output_files import output_files
from amct_onnx.report import LEDGER_SCHEMA_VERSION, BiasError, LayerEntry


@dataclass(frozen=True)
class Ledger:
    """A conversion's outputs.

    Attributes:
        path, deploy_model, fake_quant_model: files.
        layers, residuals, warnings, summary: see docs/ledger.md.
    """

    path: Path
    deploy_model: Path
    fake_quant_model: Path
    layers: tuple[LayerEntry, ...]
    residuals: tuple[Residual, ...]
    warnings: tuple[str, ...]
    summary: str


def read_ledger(save_path: str | os.PathLike[str]) -> Ledger:
    """The outputs that ``amct_onnx convert --save_path`` wrote there.

    Raises:
        ModelNotFoundError: One of them is missing.
        ModelFileError: The ledger is not readable, or of another version.
    """
    _, (deploy, fake_quant, path) = output_files(os.fspath(save_path))
    for file in (path, deploy, fake_quant):
        if not file.is_file():
            raise ModelNotFoundError(
                f"{file}: no such file. Run 'amct_onnx convert --model ... --save_path {os.fspath(save_path)}' first, "
                "or let compare do it with --convert."
            )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != LEDGER_SCHEMA_VERSION:
            raise ModelFileError(f"{path}: its version is {version}, not {LEDGER_SCHEMA_VERSION}. Convert again.")
        layers = tuple(_entry(e) for e in content["layers"])
        residuals = tuple(Residual(r["tensor"], r["action"], r["detail"]) for r in content["residuals"])
        return Ledger(path, deploy, fake_quant, layers, residuals, tuple(content["warnings"]), str(content["summary"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: no ledger of this version ({error!r}). Convert the source again.") from error


def _entry(content: dict[str, Any]) -> LayerEntry:
    """From JSON; tuples were lists. A field that an older conversion did not write is a KeyError."""
    values = {f.name: content[f.name] for f in fields(LayerEntry)}
    for name in ("scale_w", "deploy_nodes", "fake_quant_nodes"):
        values[name] = tuple(values[name])
    if values["bias_error"] is not None:
        values["bias_error"] = BiasError(**values["bias_error"])
    return LayerEntry(**values)
