"""The cheapest set of vertices that lies on every way from the starts to the ends of a directed graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


def minimum_cut(
    costs: Sequence[int | None], edges: Iterable[tuple[int, int]], starts: Iterable[int], ends: Iterable[int]
) -> frozenset[int]:
    """The vertices of the cheapest cut; of several, the one nearest to the ends, which is unique.

    By the theorem of Ford and Fulkerson, found with Dinic's algorithm (E. A. Dinic, 1970).

    Args:
        costs: of each vertex; None where it cannot be cut.
        edges: from vertex to vertex.
        starts: vertices at which the ways begin; a way may be cut there.
        ends: vertices at which they end; they may be cut as well. Every way holds a vertex with a cost.
    """
    network = _Network(2 * len(costs) + 2)
    endless = 1 + sum(cost for cost in costs if cost is not None)
    start, end = 2 * len(costs), 2 * len(costs) + 1
    for vertex, cost in enumerate(costs):
        network.add(2 * vertex, 2 * vertex + 1, endless if cost is None else cost)
    for a, b in edges:
        network.add(2 * a + 1, 2 * b, endless)
    for vertex in starts:
        network.add(start, 2 * vertex, endless)
    for vertex in ends:
        network.add(2 * vertex + 1, end, endless)
    while (level := network.levels(start, end))[end] >= 0:
        network.block(start, end, level)
    reaching = network.reaching(end)
    return frozenset(v for v in range(len(costs)) if 2 * v + 1 in reaching and 2 * v not in reaching)


class _Network:
    """A flow network; edge 2k and its reverse 2k + 1 lie side by side."""

    def __init__(self, size: int) -> None:
        self._out: list[list[int]] = [[] for _ in range(size)]
        self._to: list[int] = []
        self._left: list[int] = []

    def add(self, a: int, b: int, capacity: int) -> None:
        for tail, head, left in ((a, b, capacity), (b, a, 0)):
            self._out[tail].append(len(self._to))
            self._to.append(head)
            self._left.append(left)

    def levels(self, start: int, end: int) -> list[int]:
        """Distance of each vertex from the start along edges with capacity left; -1 beyond reach."""
        level = [-1] * len(self._out)
        level[start] = 0
        waiting = deque([start])
        while waiting and level[end] < 0:
            vertex = waiting.popleft()
            for edge in self._out[vertex]:
                if self._left[edge] > 0 and level[self._to[edge]] < 0:
                    level[self._to[edge]] = level[vertex] + 1
                    waiting.append(self._to[edge])
        return level

    def block(self, start: int, end: int, level: list[int]) -> None:
        """Send flow along the shortest ways until each holds a full edge; without recursion, ways may be long."""
        place = [0] * len(self._out)
        way: list[int] = []
        vertex = start
        while True:
            if vertex == end:
                flow = min(self._left[e] for e in way)
                for edge in way:
                    self._left[edge] -= flow
                    self._left[edge ^ 1] += flow
                full = next(i for i, e in enumerate(way) if self._left[e] == 0)
                vertex = self._to[way[full] ^ 1]
                del way[full:]
            elif place[vertex] < len(self._out[vertex]):
                edge = self._out[vertex][place[vertex]]
                if self._left[edge] > 0 and level[self._to[edge]] == level[vertex] + 1:
                    way.append(edge)
                    vertex = self._to[edge]
                else:
                    place[vertex] += 1
            elif way:
                vertex = self._to[way.pop() ^ 1]
                place[vertex] += 1
            else:
                return

    def reaching(self, end: int) -> set[int]:
        """The vertices from which capacity is left towards the end."""
        found, waiting = {end}, [end]
        while waiting:
            vertex = waiting.pop()
            for edge in self._out[vertex]:
                before = self._to[edge]
                if self._left[edge ^ 1] > 0 and before not in found:
                    found.add(before)
                    waiting.append(before)
        return found
