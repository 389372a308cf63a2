"""The operators that ATC's ONNX parser knows, from ``atc_operators.txt``; a new list replaces that file alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DEFAULT_DOMAIN = "ai.onnx"
"""The parser's name of the domain ``""``."""
PARSER, MASTER, EXPERIMENTAL, UNPROVEN = "parser", "master", "experimental", "unproven"
MARKS = ("", PARSER, MASTER, EXPERIMENTAL, UNPROVEN)


@dataclass(frozen=True)
class Registration:
    """What is known of one operator.

    Attributes:
        versions: opset versions of its domain, ascending. The parser takes exactly these, never an earlier one instead.
        mark: "" or one of MARKS, which the data file explains.
    """

    versions: tuple[int, ...]
    mark: str

    def span(self) -> str:
        """The versions as text, for example ``8..17``."""
        spans: list[list[int]] = []
        for version in self.versions:
            if spans and version == spans[-1][-1] + 1:
                spans[-1] = [spans[-1][0], version]
            else:
                spans.append([version, version])
        return ", ".join(f"{a}" if a == b else f"{a}..{b}" for a, b in spans)


def registration(domain: str, op_type: str) -> Registration | None:
    """The entry of an operator; None when the parser does not know it in any version."""
    return registrations().get((domain or DEFAULT_DOMAIN, op_type))


def is_accepted(domain: str, op_type: str, version: int) -> bool:
    """Whether every supported compiler takes the operator at this opset, beyond doubt."""
    entry = registration(domain, op_type)
    return entry is not None and version in entry.versions and entry.mark in ("", PARSER)


@cache
def registrations() -> dict[tuple[str, str], Registration]:
    """All entries by (domain, operator)."""
    text = (files(__package__) / "atc_operators.txt").read_text(encoding="utf-8")
    return dict(map(_entry, (line for line in text.splitlines() if line and not line.startswith("#"))))


def _entry(line: str) -> tuple[tuple[str, str], Registration]:
    name, versions, *mark = line.split()
    domain, _, op_type = name.partition("::")
    found: set[int] = set()
    for span in versions.split(","):
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return (domain, op_type), Registration(tuple(sorted(found)), mark[0] if mark else "")
