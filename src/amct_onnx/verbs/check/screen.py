"""A check's findings as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from amct_onnx.common.console import Part, Text, rows_that_matter
from amct_onnx.verbs.check.report import ERROR, NOTE, SEVERITIES, WARNING, CheckReport, Finding

STYLES = {ERROR: "red", WARNING: "yellow", NOTE: "cyan"}


def parts(report: CheckReport, width: int, *, everything: bool = False) -> Iterator[Part]:
    """One row for each finding, or for the gravest, each rule's reason and remedy once, and the summary line."""
    if report.findings:
        # a column of nothing but "all" would tell nothing
        partly = any(f.cann != report.cann for f in report.findings)
        table = Table("Severity", "Rule", "Node", "Tensor", "Finding", "Products", *(["CANN"] if partly else []))
        rows, rest = rows_that_matter(report.findings, lambda f: -SEVERITIES.index(f.severity), everything=everything)
        for _, finding in rows:
            table.add_row(
                Text(finding.severity, style=STYLES[finding.severity]),
                finding.rule,
                Text(finding.node or "-", overflow="fold"),
                Text(finding.tensor or "-", overflow="fold"),
                Text(finding.detail, overflow="fold"),
                "all" if finding.products == report.products else ", ".join(finding.products),
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


def _first_of_each_rule(findings: tuple[Finding, ...]) -> list[Finding]:
    return list({f.rule: f for f in reversed(findings)}.values())[::-1]
