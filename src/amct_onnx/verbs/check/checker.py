"""check: every rule on one model, for one product or for all."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from amct_onnx.device.chips import CHIPS, Chip, find_chip
from amct_onnx.verbs.check.load import load_for_check
from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import SEVERITIES, CheckReport, Finding
from amct_onnx.verbs.check.rule import Find, Hit
from amct_onnx.verbs.check.rules import RULES


def check(model: str | os.PathLike[str] | ir.Model, soc_version: str | None = None) -> CheckReport:
    """Say whether ATC would take a deploy model, whoever wrote it.

    Args:
        model: path of the .onnx file, or a model in memory; it is not modified and its weights are not read.
        soc_version: value of ATC's ``--soc_version``; None checks for every known product.

    Returns:
        The findings, the gravest first; each names the products for which it holds.

    Raises:
        ModelNotFoundError: The file does not exist.
        ModelFileError: The file is no ONNX model.
        SettingError: ``soc_version`` is of no known product.
    """
    products = CHIPS if soc_version is None else (find_chip(soc_version),)
    if isinstance(model, ir.Model):
        return _check(ModelView(model), None, soc_version, products)
    view = ModelView(load_for_check(model), Path(model).resolve().parent)
    return _check(view, os.fspath(model), soc_version, products)


def _check(view: ModelView, model_file: str | None, soc_version: str | None, products: tuple[Chip, ...]) -> CheckReport:
    hits: dict[Find, list[Hit]] = {}
    findings: list[Finding] = []
    for rule in RULES:
        affected = tuple(p.name for p in products if rule.chips(p))
        if not affected:
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
            )
            for hit in hits[rule.find]
        ]
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    return CheckReport(model_file, soc_version, tuple(p.name for p in products), tuple(findings))
