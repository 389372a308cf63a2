"""The messages of a conversion in the log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from amct_onnx.common.log import get_logger
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
        get_logger("Convert").warning("%s", sentence)
    for warning in first_of_each_kind(report.warnings):
        get_logger("Convert").warning("%s", warning)
    _log_findings(report.check)
    for model in (report.deploy_model, report.fake_quant_model):
        get_logger("Utils").info("The model file is saved in %s", model)


def _log_findings(check: CheckReport | None) -> None:
    """Every error of the check, and each warning's rule once: a model may break one in all of its layers."""
    if check is None:
        return
    for finding in check.of(ERROR):
        get_logger("Check").error("%s", _sentence(finding))
    warnings = check.of(WARNING)
    counts = Counter(f.rule for f in warnings)
    firsts = {f.rule: f for f in reversed(warnings)}
    for finding in reversed(firsts.values()):
        more = f" ({counts[finding.rule] - 1} more)" if counts[finding.rule] > 1 else ""
        get_logger("Check").warning("%s%s [%s]", _sentence(finding), more, ", ".join(finding.products))


def _sentence(finding: Finding) -> str:
    place = finding.node or finding.tensor or "the model"
    return f"{place}: {finding.title}: {finding.detail}. {finding.remedy}"
