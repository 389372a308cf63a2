"""What a check found: findings with severity, place, reason and remedy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from amct_onnx.common.counted import counted
from amct_onnx.common.shown_report import ShownReport

Severity = Literal["error", "warning", "note"]
ERROR, WARNING, NOTE = SEVERITIES = get_args(Severity)
"""ERROR: ATC rejects the model or compiles something else; WARNING: it may, or numbers suffer; NOTE: worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One violation of one rule at one place.

    Attributes:
        rule: id of the rule, see docs/check.md.
        severity: ``"error"``, ``"warning"`` or ``"note"``.
        title: what the rule is about.
        node: name of the node, or "".
        tensor: name of the tensor, or "".
        detail: what was found there.
        why: which rule of the compiler is behind it.
        source: where that rule was read.
        remedy: what to do.
        products: names of the products for which the finding holds.
        cann: CANN versions for which it holds.
    """

    rule: str
    severity: Severity
    title: str
    node: str
    tensor: str
    detail: str
    why: str
    source: str
    remedy: str
    products: tuple[str, ...]
    cann: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class CheckReport(ShownReport):
    """All findings of one model, the gravest first.

    Attributes:
        model_file: path of the model; None for a model in memory.
        soc_version: what was checked for; None for every product.
        products: names of the products that were checked for.
        cann: CANN versions that were checked for.
        findings: see Finding.
    """

    SCHEMA_VERSION = 1
    SCREEN = "amct_onnx.verbs.check.screen"
    JSON_ALSO = ("counts", "passed", "summary")

    model_file: str | None
    soc_version: str | None
    products: tuple[str, ...]
    cann: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings of each severity."""
        found = Counter(f.severity for f in self.findings)
        return {s: found[s] for s in SEVERITIES}

    @property
    def passed(self) -> bool:
        """True when nothing is an error."""
        return not self.counts[ERROR]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def summary(self) -> str:
        """One line: the counts, and for which products."""
        target = self.soc_version or ", ".join(self.products)
        if len(self.cann) == 1:
            target += f" with CANN {self.cann[0]}"
        parts = [counted(n, s) for s, n in self.counts.items() if n]
        return f"Check for {target}: {', '.join(parts) if parts else 'nothing found'}."
