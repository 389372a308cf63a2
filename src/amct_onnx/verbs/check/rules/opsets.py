"""Rules on opset_import."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from amct_onnx.verbs.check.cann_versions import MASTER, RELEASES
from amct_onnx.verbs.check.model_view import DEFAULT_NAMES, ModelView
from amct_onnx.verbs.check.report import ERROR, WARNING
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import PARSER

DOCUMENTED_OPSETS = (11, 18)


@rule(
    id="opset-entries",
    severity=ERROR,
    title="Several opset_import entries",
    why="Compilers up to 9.1 take one entry and stop with E16005 at a second one, used or not. The open repositories "
    "take several since 2026-07-25.",
    source=f"{PARSER} (E16005); CANN documentation of ATC",
    remedy="Replace operators of other domains and keep only the entry of the default one; `amct_onnx convert` "
    "drops entries that nothing uses.",
    versions=RELEASES,
)
def opset_entries(view: ModelView) -> Iterator[Hit]:
    """More than one opset_import."""
    entries = view.facts.opsets
    if len(entries) > 1:
        listed = ", ".join(f"'{d}' {v}" for d, v in entries)
        yield Hit(f"{len(entries)} opset_import entries: {listed}")


@rule(
    id="opset-twice",
    severity=WARNING,
    title="Two versions of one domain",
    why="The parser keeps the last entry of a domain, and '' and 'ai.onnx' are one domain to it: operators whose "
    "meaning differs between the two versions may be compiled as another version than the file means.",
    source=f"{PARSER} (domain_verseion_)",
    remedy="Keep one opset_import entry for each domain.",
    versions=(MASTER,),
)
def opset_twice(view: ModelView) -> Iterator[Hit]:
    """Several entries of the default domain, between whose versions an operator of the model differs."""
    versions = sorted({v for d, v in view.facts.opsets if d in DEFAULT_NAMES})
    if len(versions) < 2:
        return
    for (domain, op_type), nodes in view.op_types().items():
        if domain not in DEFAULT_NAMES:
            continue
        since = {_since(op_type, version) for version in versions}
        if len(since) > 1:
            yield Hit(
                f"{op_type} differs between the versions {', '.join(map(str, versions))}; the parser takes "
                f"{view.opset}",
                view.names[nodes[0]],
            )


def _since(op_type: str, version: int) -> int:
    """The version that introduced the operator's form of ``version``; 0 for none."""
    try:
        return int(onnx.defs.get_schema(op_type, max(1, min(version, 1 << 20)), "").since_version)
    except onnx.defs.SchemaError:
        return 0


@rule(
    id="opset-missing",
    severity=ERROR,
    title="No opset for the default domain",
    why="An operator is looked up as domain::version::type; without a version the parser stops (E19999).",
    source=PARSER,
    remedy="Add an opset_import entry for the default domain.",
)
def opset_missing(view: ModelView) -> Iterator[Hit]:
    """No version for the default domain."""
    if view.opset is None and any(not n.domain for n in view.nodes()):
        yield Hit("no opset_import entry for the default domain")


@rule(
    id="opset-undocumented",
    severity=WARNING,
    title="Opset outside the documented range",
    why="The documentation of ATC promises opset 11 to 18; elsewhere single operators may have no plugin (E16002).",
    source="CANN documentation of ATC",
    remedy="Export with opset 11 to 18.",
)
def opset_undocumented(view: ModelView) -> Iterator[Hit]:
    """An opset outside the documented range."""
    low, high = DOCUMENTED_OPSETS
    if view.opset is not None and not low <= view.opset <= high:
        yield Hit(f"opset {view.opset}")
