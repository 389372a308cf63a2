"""The messages of a conversion in the log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from amct_onnx.common.log import NAMES, get_logger
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.verbs.check.report import ERROR, WARNING, CheckReport, Finding
from amct_onnx.verbs.convert.report import ConversionReport


def log_report(report: ConversionReport, replaced: list[Path]) -> None:
    """Log files replaced, float layers, warnings, findings of the check, and files saved."""
    for path in replaced:
        get_logger("Utils").warning("The existing file %s is replaced", path)
    for sentence in first_of_each_kind(
        [f"Layer '{e.name}' stays float ({e.reason}): {e.detail}. {e.remedy}" for e in report.refused]
    ):
        get_logger("Convert").warning("%s", sentence, extra=NAMES)
    for warning in first_of_each_kind(report.warnings):
        get_logger("Convert").warning("%s", warning, extra=NAMES)
    _log_findings(report.check)
    for model in (report.deploy_model, report.fake_quant_model):
        get_logger("Utils").info("The model file is saved in %s", model)


def _log_findings(check: CheckReport | None) -> None:
    """Of errors and warnings each rule once: a model may break one in all of its layers."""
    if check is None:
        return
    log = get_logger("Check")
    for severity, say in ((ERROR, log.error), (WARNING, log.warning)):
        found = check.of(severity)
        counts = Counter(f.rule for f in found)
        for finding in reversed({f.rule: f for f in reversed(found)}.values()):
            more = f" ({counts[finding.rule] - 1} more)" if counts[finding.rule] > 1 else ""
            say("%s%s [%s]", _sentence(finding), more, ", ".join(finding.products), extra=NAMES)


def _sentence(finding: Finding) -> str:
    place = finding.node or finding.tensor or "the model"
    return f"{place}: {finding.title}: {finding.detail}. {finding.remedy}"
