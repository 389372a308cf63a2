"""check: every rule on one model, for one product and CANN version or for all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from amct_onnx.device.chips import CHIPS, Chip, find_chip
from amct_onnx.files.model_in_memory import as_file
from amct_onnx.verbs.check.cann_versions import CannVersion, versions_of
from amct_onnx.verbs.check.load import load_for_check
from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import SEVERITIES, CheckReport, Finding
from amct_onnx.verbs.check.rule import Find, Hit
from amct_onnx.verbs.check.rules import RULES

if TYPE_CHECKING:
    from amct_onnx.files.model_in_memory import AnyModel


def check(model: AnyModel, soc_version: str | None = None, cann: CannVersion | None = None) -> CheckReport:
    """Tell whether ATC will accept a deploy model, from this tool or any other.

    Args:
        model: path of the .onnx file, or a model in memory, an ``onnx.ModelProto`` or ``onnx_ir.Model``; it is not
            modified.
        soc_version: value of ATC's ``--soc_version``; None checks for every known product.
        cann: "8.5", "9.0", "9.1" or "master"; None checks for all of them.

    Returns:
        The findings, the gravest first; each names the products and CANN versions for which it holds.

    Raises:
        ModelNotFoundError: The file does not exist.
        ModelFileError: The file is not an ONNX model.
        SettingError: Unknown ``soc_version`` or ``cann``.
    """
    products = CHIPS if soc_version is None else (find_chip(soc_version),)
    versions = versions_of(cann)
    if isinstance(model, ir.Model):
        return _check(ModelView(model), None, soc_version, products, versions)
    with as_file(model) as (path, name):
        loaded, facts = load_for_check(path)
        return _check(ModelView(loaded, Path(path).resolve().parent, facts), name, soc_version, products, versions)


def _check(
    view: ModelView,
    model_file: str | None,
    soc_version: str | None,
    products: tuple[Chip, ...],
    versions: tuple[str, ...],
) -> CheckReport:
    hits: dict[Find, list[Hit]] = {}
    findings: list[Finding] = []
    for rule in RULES:
        affected = tuple(p.name for p in products if rule.chips(p))
        compilers = tuple(v for v in versions if v in rule.versions)
        if not affected or not compilers:
            continue
        if rule.find not in hits:
            hits[rule.find] = list(rule.find(view))
        findings += [
            Finding(
                rule=rule.id,
                severity=rule.severity,
                title=rule.title,
                node=hit.node,
                tensor=hit.tensor,
                detail=hit.detail,
                why=rule.why,
                source=rule.source,
                remedy=rule.remedy,
                products=affected,
                cann=compilers,
            )
            for hit in hits[rule.find]
        ]
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    return CheckReport(model_file, soc_version, tuple(p.name for p in products), versions, tuple(findings))
