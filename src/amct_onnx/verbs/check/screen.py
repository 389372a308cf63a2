"""A check's findings as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from amct_onnx.common.console import Names, Part, Sentence, Text, rows_that_matter, table_of
from amct_onnx.verbs.check.report import ERROR, NOTE, SEVERITIES, WARNING, CheckReport, Finding

STYLES = {ERROR: "red", WARNING: "yellow", NOTE: "cyan"}


WIDE = 100
"""Columns from which on a row has room for the tensor and the products."""


def parts(report: CheckReport, width: int, *, everything: bool = False) -> Iterator[Part]:
    """One row for each finding, or for the gravest, each rule's reason and remedy once, and the summary line."""
    if report.findings:
        # a column of nothing but "all" would tell nothing
        partly = any(f.cann != report.cann for f in report.findings)
        wide = width >= WIDE
        places = ("Node", "Tensor") if wide else ("Node or tensor",)
        more = [*(["Products"] if wide else []), *(["CANN"] if partly else [])]
        table = table_of("Severity", "Rule", *places, "Finding", *more, whole=("Severity", "Rule"))
        rows, rest = rows_that_matter(report.findings, lambda f: -SEVERITIES.index(f.severity), everything=everything)
        names = Names(n for _, f in rows for n in (f.node or "-", f.tensor or "-"))
        for _, finding in rows:
            products = "all" if finding.products == report.products else ", ".join(finding.products)
            table.add_row(
                Text(finding.severity, style=STYLES[finding.severity]),
                finding.rule,
                *(names.cell(p or "-") for p in _places(finding, wide=wide)),
                Sentence(finding.detail),
                *([products] if wide else []),
                *(["all" if finding.cann == report.cann else ", ".join(finding.cann)] if partly else []),
            )
        yield table
        if rest:
            yield rest
    for severity in SEVERITIES:
        for finding in _first_of_each_rule(report.of(severity)):
            line = f"{finding.rule}: {finding.title}. {finding.why} {finding.remedy} [{finding.source}]"
            yield Text(line)
    yield Text(report.summary())


def _places(finding: Finding, *, wide: bool) -> tuple[str, ...]:
    return (finding.node, finding.tensor) if wide else (finding.node or finding.tensor,)


def _first_of_each_rule(findings: tuple[Finding, ...]) -> list[Finding]:
    return list({f.rule: f for f in reversed(findings)}.values())[::-1]
