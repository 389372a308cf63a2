"""Read a conversion's ledger and the paths of the models beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from amct_onnx.common.plain_text import shown
from amct_onnx.common.typed_json import ContentError, decode, read_bounded
from amct_onnx.errors import ModelFileError, ModelNotFoundError
from amct_onnx.files.output_files import output_files
from amct_onnx.plan.ledger import LayerEntry, ResidualEntry
from amct_onnx.verbs.convert.cost import Cost
from amct_onnx.verbs.convert.ledger_schema import LedgerContent, Version, layer_entries
from amct_onnx.verbs.convert.report import ConversionReport, Origin


@dataclass(frozen=True)
class Ledger:
    """A conversion's outputs.

    Attributes:
        path, deploy_model, fake_quant_model: files.
        layers, residuals, warnings, summary, origin, cost: see docs/ledger.md.
        content: all of it, as JSON holds it.
    """

    path: Path
    deploy_model: Path
    fake_quant_model: Path
    layers: tuple[LayerEntry, ...]
    residuals: tuple[ResidualEntry, ...]
    warnings: tuple[str, ...]
    summary: str
    origin: Origin | None = None
    cost: Cost | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def read_ledger(save_path: str | os.PathLike[str]) -> Ledger:
    """The outputs that ``amct_onnx convert --save_path`` wrote there.

    Raises:
        ModelNotFoundError: One of them is missing.
        ModelFileError: The ledger is not readable, of another version, or its content is nonsense; the field is named.
    """
    _, (deploy, fake_quant, path) = output_files(os.fspath(save_path))
    for file in (path, deploy, fake_quant):
        if not file.is_file():
            raise ModelNotFoundError(
                f"{file}: no such file. Run 'amct_onnx convert --model ... --save_path {os.fspath(save_path)}' first, "
                "or let compare do it with --convert."
            )
    try:
        raw = read_bounded(path)
        version = decode(raw, Version).schema_version
        if version == ConversionReport.SCHEMA_VERSION:
            content = decode(raw, LedgerContent)
            layers = layer_entries(content)
    except (OSError, ContentError) as error:
        raise ModelFileError(
            f"{path}: no ledger of this version ({shown(str(error))}). Convert the source again."
        ) from error
    if version != ConversionReport.SCHEMA_VERSION:
        raise ModelFileError(f"{path}: its version is {version}, not {ConversionReport.SCHEMA_VERSION}. Convert again.")
    residuals = tuple(ResidualEntry(**msgspec.structs.asdict(r)) for r in content.residuals)
    origin = None if content.origin is None else Origin(**msgspec.structs.asdict(content.origin))
    everything = msgspec.to_builtins(content)
    cost = msgspec.convert(everything["cost"], Cost | None)
    told = (layers, residuals, content.warnings, content.summary, origin, cost)
    return Ledger(path, deploy, fake_quant, *told, everything)
