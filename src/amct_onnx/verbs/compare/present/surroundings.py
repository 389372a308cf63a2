"""The nodes of one layer and its neighbours, in the source and in the deploy model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from amct_onnx.graph.edit import bodies_of, nodes_of
from amct_onnx.verbs.compare.layer_details import GraphNode
from amct_onnx.verbs.compare.pairing import Ends, Paired

MAX_OWN, MAX_BESIDE = 16, 4
"""Nodes of the layer, and before and behind it, that a picture shows."""
FAR = 2
"""How many nodes away a neighbour is at most."""


class Surroundings:
    """Of any layer of one model; what is computed from constants alone is left out.

    Args:
        model: as it stands in its file, or normalised; its nodes are put into network order.
    """

    def __init__(self, model: ir.Model) -> None:
        self._order: dict[ir.Node, int] = {}
        self._named: dict[str, ir.Node] = {}
        self._makes: dict[str, ir.Node] = {}
        model.graph.sort()
        for node in nodes_of(model):
            if not bodies_of(node) and not any(self._varies(v) for v in node.inputs):
                continue
            self._order[node] = len(self._order)
            self._named.setdefault(node.name or "", node)
            for value in node.outputs:
                self._makes.setdefault(value.name or "", node)

    def _varies(self, value: ir.Value | None) -> bool:
        if value is None:
            return False
        return value.producer() in self._order or value.producer() is None and value.const_value is None

    def of_source(self, pair: Paired) -> tuple[GraphNode, ...]:
        """What lies between the float tensor that the layer's quantizer reads and the one that the layer makes."""
        return self._picture(self._between(pair.source, pair.entry.name), pair.entry.op_type)

    def of_deploy(self, pair: Paired) -> tuple[GraphNode, ...]:
        """The nodes that the ledger names, those of them that are there."""
        names = pair.entry.deploy_nodes or (pair.entry.name,)
        return self._picture([self._named[n] for n in names if n in self._named][:MAX_OWN], pair.entry.op_type)

    def _between(self, ends: Ends, name: str) -> list[ir.Node]:
        last = self._makes.get(ends.output) or self._named.get(name)
        if last is None:
            return []
        found = [last]
        if not ends.input:  # a layer that stays float
            return [self._named.get(name, last)]
        for node in found:
            read = [v for v in node.inputs if v is not None and v.name != ends.input]
            makers = dict.fromkeys(p for v in read if (p := v.producer()) is not None and p in self._order)
            found += [p for p in makers if p not in found][: MAX_OWN - len(found)]
        return found

    def _before(self, node: ir.Node) -> list[ir.Node]:
        """Whose outputs it reads."""
        return [p for v in node.inputs if v is not None and (p := v.producer()) is not None and p in self._order]

    def _behind(self, node: ir.Node) -> list[ir.Node]:
        """What reads its outputs."""
        return [use.node for value in node.outputs for use in value.uses() if use.node in self._order]

    def _picture(self, own: Sequence[ir.Node], op_type: str) -> tuple[GraphNode, ...]:
        beside = [*_near(own, self._before), *_near(own, self._behind)]
        shown = sorted({*own, *beside}, key=lambda n: self._order[n])
        place = {node: index for index, node in enumerate(shown)}
        return tuple(
            GraphNode(
                name=node.name or next((v.name or "" for v in node.outputs), ""),
                op_type=node.op_type,
                own=node in own,
                layer=node in own and node.op_type == op_type,
                reads=tuple(
                    dict.fromkeys(place[p] for p in self._before(node) if p in place and place[p] < place[node])
                ),
            )
            for node in shown
        )


def _near(own: Sequence[ir.Node], step: Callable[[ir.Node], list[ir.Node]]) -> list[ir.Node]:
    """The nearest nodes that a step leads to, again and again, and that are not the layer's."""
    found: list[ir.Node] = []
    edge = list(own)
    for _ in range(FAR):
        edge = list(dict.fromkeys(n for node in edge for n in step(node) if n not in own and n not in found))
        edge = edge[: MAX_BESIDE - len(found)]
        found += edge
    return found
