"""Rules on the graph as a whole: functions, names, order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import ERROR, NOTE
from amct_onnx.verbs.check.rule import Hit, rule
from amct_onnx.verbs.check.rules.sources import PARSER
from amct_onnx.verbs.check.scopes import Scope


@rule(
    id="local-functions",
    severity=ERROR,
    title="Model-local functions",
    why="The parser does not expand functions: a call is an unknown operator (E16002).",
    source=PARSER,
    remedy="Inline the functions (onnx.inliner); `amct_onnx convert` does so.",
)
def local_functions(view: ModelView) -> Iterator[Hit]:
    """Model-local functions."""
    if view.model.functions:
        names = sorted({str(key[1]) for key in view.model.functions})
        yield Hit(f"{len(names)} model-local functions: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")


@rule(
    id="duplicate-name",
    severity=ERROR,
    title="Node name used twice",
    why="Names must be unique in ATC's graph (E13009). A graph input becomes a node of its own name, an "
    "initializer a node <name>_Initializer_<n>.",
    source=f"{PARSER}; ge: parser/parser/common/pre_checker.cc",
    remedy="Rename one of them.",
)
def duplicate_names(view: ModelView) -> Iterator[Hit]:
    """Names that ATC's nodes would share, counting inputs and the names it gives to constants and unnamed nodes."""
    for scope in view.scopes:
        graph = scope.graph
        names = [(view.names[n], view.names[n]) for n in graph]
        names += [(v.name or "", f"graph input '{v.name}'") for v in graph.inputs if v.name not in graph.initializers]
        names += [(f"{n}_Initializer_{i}", f"the constant '{n}'") for i, n in enumerate(sorted(graph.initializers))]
        count = Counter(name for name, _ in names)
        reported: set[str] = set()
        for name, what in reversed(names):
            if count[name] > 1 and name not in reported:
                reported.add(name)
                also = "" if what == name else f", one of them {what}"
                yield Hit(f"{count[name]} nodes of ATC's graph would be called '{name}'{also}", name)


@rule(
    id="unnamed-node",
    severity=NOTE,
    title="Nodes without name",
    why="The parser names them <type>_<n>; messages and dumps then show names that the file does not have.",
    source=PARSER,
    remedy="Name every node; `amct_onnx convert` does so.",
)
def unnamed_nodes(view: ModelView) -> Iterator[Hit]:
    """Nodes without a name."""
    unnamed = [n for n in view.nodes() if not n.name]
    if unnamed:
        yield Hit(
            f"{counted(len(unnamed), 'node has', 'nodes have')} no name; the first is called by ATC",
            view.names[unnamed[0]],
        )


@rule(
    id="cycle",
    severity=ERROR,
    title="Cyclic graph",
    why="Nodes that wait for each other cannot be ordered, neither by ONNX nor by ATC.",
    source="ONNX specification: graphs are acyclic",
    remedy="Export the model again.",
)
def cycle(view: ModelView) -> Iterator[Hit]:
    """A cycle, found by removing nodes whose inputs are all there (Kahn's algorithm), one graph at a time."""
    needs: dict[ir.Node, set[ir.Node]] = {n: set() for n in view.nodes()}
    for scope in view.scopes:
        for node in scope.graph:
            for value in node.inputs:
                producer = value.producer() if value is not None else None
                if producer is not None:
                    reader = _holder_in(producer.graph, node, scope)
                    if reader is not None:
                        needs[reader].add(producer)
    readers: dict[ir.Node, list[ir.Node]] = {}
    missing = {node: len(sources) for node, sources in needs.items()}
    for node, sources in needs.items():
        for source in sources:
            readers.setdefault(source, []).append(node)
    ready = [n for n, count in missing.items() if not count]
    done = 0
    while ready:
        node = ready.pop()
        done += 1
        for reader in readers.get(node, ()):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if done < len(missing):
        stuck = [n for n, count in missing.items() if count]
        yield Hit(f"{len(stuck)} nodes wait for each other's results or lie behind such nodes", view.names[stuck[0]])


def _holder_in(graph: object, node: ir.Node, scope: Scope) -> ir.Node | None:
    """The node of ``graph`` that is ``node`` or holds it in a nested graph."""
    current: Scope | None = scope
    while current is not None:
        if current.graph is graph:
            return node
        if current.holder is None:
            return None
        node, current = current.holder, current.outer
    return None
