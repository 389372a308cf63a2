"""Rules on If: its attributes, and what its branches take from the graphs around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import ERROR
from amct_onnx.verbs.check.rule import Hit, rule

ADAPTER = "ge: parser/parser/onnx/subgraph_adapter/if_subgraph_adapter.cc"
BRANCHES = {"then_branch", "else_branch"}


@rule(
    id="if-attributes",
    severity=ERROR,
    title="If with other attributes than its two branches",
    why="The parser stops unless an If has exactly the attributes then_branch and else_branch (E19999).",
    source=f"{ADAPTER} (ParseIfNodeSubgraphs)",
    remedy="Remove the other attributes; give both branches.",
)
def if_attributes(view: ModelView) -> Iterator[Hit]:
    """An If whose attributes are not its two branches."""
    for node in view.nodes("If"):
        if set(node.attributes) != BRANCHES:
            names = ", ".join(sorted(node.attributes)) or "none"
            yield Hit(f"its attributes are: {names}", view.names[node])


@rule(
    id="branch-output-captured",
    severity=ERROR,
    title="Branch output that no node reads",
    why="A branch gets those outer tensors that a node of either branch reads. An outer tensor that is a branch's "
    "output and that no such node reads is unknown there, and the parser stops (E19999).",
    source=f"{ADAPTER} (GetSubgraphsAllInputs)",
    remedy="Put an Identity between the outer tensor and the branch's output.",
)
def branch_output_captured(view: ModelView) -> Iterator[Hit]:
    """A branch output that is an outer tensor and that no node of the If's branches reads."""
    for scope in view.scopes:
        if scope.holder is None:
            continue
        own, read = view.defined(scope.graph), _direct_reads(scope.holder)
        for value in scope.graph.outputs:
            if value.name not in own and value.name not in read and view.is_outer(value.name or "", scope):
                yield Hit("it is a tensor of an outer graph", view.names[scope.holder], value.name or "")


@rule(
    id="nested-capture",
    severity=ERROR,
    title="Nested If that reads a tensor which the outer branch does not",
    why="The parser gives a branch the outer tensors that its own nodes read, not those that an If inside it reads: "
    "the inner If is then cut off and nodes are lost, without a message.",
    source=f"{ADAPTER} (GetSubgraphsAllInputs, as of 2026-08; later revisions look into nested graphs)",
    remedy="Let a node of the outer branch read the tensor too, for example an Identity whose result the inner If "
    "reads.",
)
def nested_capture(view: ModelView) -> Iterator[Hit]:
    """A tensor that crosses a branch without a node of that branch reading it."""
    for scope in view.scopes:
        if scope.holder is None:
            continue
        own, read = view.defined(scope.graph), _direct_reads(scope.holder)
        for node in scope.graph:
            for name in sorted(_captured(view, node) - own - read):
                if view.is_outer(name, scope):
                    yield Hit(f"'{view.names[scope.holder]}' does not pass it on", view.names[node], name)


def _graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for item in node.attributes.values():
        if item.is_ref():
            continue
        if item.type == ir.AttributeType.GRAPH:
            yield item.as_graph()
        elif item.type == ir.AttributeType.GRAPHS:
            yield from item.as_graphs()


def _direct_reads(holder: ir.Node) -> set[str]:
    """Names that the nodes of a holder's own graphs read, without those of graphs nested deeper."""
    return {v.name for g in _graphs(holder) for n in g for v in n.inputs if v is not None and v.name}


def _captured(view: ModelView, node: ir.Node) -> set[str]:
    """Names that the graphs of a node, at any depth, take from outside of the node."""
    names: set[str] = set()
    for graph in _graphs(node):
        inside = {v.name for n in graph for v in n.inputs if v is not None and v.name}
        inside |= {v.name for v in graph.outputs if v.name}
        for inner in graph:
            inside |= _captured(view, inner)
        names |= inside - view.defined(graph)
    return names
