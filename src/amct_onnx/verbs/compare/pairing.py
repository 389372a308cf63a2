"""Which tensors of the three models belong together: told by the ledger and the graphs, never by the form of names."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.errors import ModelFileError, UnsupportedModelError
from amct_onnx.graph.edit import known_as, main_output
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.plan.ledger import CONVERTED, LayerEntry
from amct_onnx.verbs.compare.explain.stated_factors import dequantizer
from amct_onnx.verbs.convert.read_ledger import Ledger


@dataclass(frozen=True)
class Ends:
    """Names of the float tensor that a layer's quantizer reads and of the one that the layer makes, "" when unknown."""

    input: str
    output: str


@dataclass(frozen=True)
class Paired:
    """One layer of the ledger in the three models; None in a model that does not show it."""

    entry: LayerEntry
    source: Ends
    fake_quant: Ends | None
    deploy: Ends | None


def pair_layers(ledger: Ledger, fake_quant: ir.Model, deploy: ir.Model, *, changed: bool = False) -> tuple[Paired, ...]:
    """The layers in the ledger's order.

    Args:
        ledger: of the conversion.
        fake_quant: the model beside it.
        deploy: the same.
        changed: the models are known to be others than the ledger tells; what cannot be paired is None then.

    Raises:
        UnsupportedModelError: A model is not the one that the ledger tells of.
    """
    graphs = [{n.name or "": n for n in m.graph} for m in (fake_quant, deploy)]
    everywhere = [{n.name or "" for n in ir.traversal.RecursiveGraphIterator(m.graph)} for m in (fake_quant, deploy)]
    if not changed:
        _check_order(ledger, deploy)
    paired = []
    for entry in ledger.layers:
        ends: list[Ends | None] = []
        for nodes, known, own in zip(graphs, everywhere, (entry.fake_quant_nodes, entry.deploy_nodes), strict=True):
            members = own or (entry.name,)
            missing = [n for n in members if n not in known]
            if missing and changed:
                ends.append(None)
                continue
            if missing:
                raise UnsupportedModelError(
                    f"{ledger.path}: layer '{entry.name}' has node '{missing[0]}', which the model beside it does not "
                    "hold. Convert the source again."
                )
            here = all(n in nodes for n in members)  # else in the body of an If, Loop or Scan
            group = [nodes[n] for n in members] if here else []
            problem = _problem(group, entry)
            if problem and changed:
                ends.append(None)
                continue
            if problem:
                raise UnsupportedModelError(
                    f"{ledger.path}: layer '{entry.name}' {problem} in the model beside it. Convert the source again."
                )
            ends.append(_ends(group) if here else None)
        paired.append(Paired(entry, Ends(entry.source_input, entry.source_output), *ends))
    return tuple(paired)


def check_source(ledger: Ledger, source: ir.Model) -> None:
    """See that the normalised source holds every layer, behind the tensor that the ledger names and before the other.

    Raises:
        ModelFileError: It does not.
    """
    nodes = {known_as(n): n for n in ir.traversal.RecursiveGraphIterator(source.graph)}
    nodes |= {n.name or "": n for n in ir.traversal.RecursiveGraphIterator(source.graph)}
    for entry in ledger.layers:
        node, problem = nodes.get(entry.name), ""
        if node is None or node.op_type != entry.op_type:
            problem = f"tells of a {entry.op_type} '{entry.name}', which the source does not hold"
        elif entry.source_input and not _reached(node.inputs[0], entry.source_input, backward=True):
            problem = f"says that '{entry.name}' reads '{entry.source_input}', which the source does not"
        elif entry.second_input and not _reached(node.inputs[1], entry.second_input, backward=True):
            problem = f"says that '{entry.name}' reads '{entry.second_input}' second, which the source does not"
        elif not any(_reached(v, entry.source_output, backward=False) for v in node.outputs):
            problem = f"says that '{entry.name}' makes '{entry.source_output}', which the source does not"
        if problem:
            raise ModelFileError(f"{ledger.path}: {problem}. Convert that source again.")


def _reached(start: ir.Value | None, name: str, *, backward: bool) -> bool:
    """Whether a tensor of that name is reached; what belongs to a layer lies some nodes away: this ends soon."""
    waiting = deque([start] if start is not None else [])
    seen = set(waiting)
    while waiting:
        value = waiting.popleft()
        if value.name == name:
            return True
        producer = value.producer()
        found = [v for u in value.uses() for v in u.node.outputs]
        if backward:
            found = [v for v in producer.inputs if v is not None] if producer is not None else []
        waiting.extend(new := [v for v in dict.fromkeys(found) if v not in seen])
        seen.update(new)
    return False


def _check_order(ledger: Ledger, deploy: ir.Model) -> None:
    places = {n.name or "": i for i, n in enumerate(deploy.graph)}
    found = [(places[e.name], e.name) for e in ledger.layers if e.name in places and e.op_type in LAYER_KINDS]
    for before, after in zip(found, found[1:], strict=False):
        if before[0] >= after[0]:
            raise UnsupportedModelError(
                f"{ledger.path}: layer '{after[1]}' stands behind '{before[1]}', in the model beside it before. "
                "Convert the source again."
            )


def _problem(nodes: Sequence[ir.Node], entry: LayerEntry) -> str:
    """What the nodes of a layer are not, though the ledger says so; "" when nothing."""
    if not nodes:
        return ""
    layer = next((n for n in nodes if n.name == entry.name), None)
    if layer is not None and layer.op_type != entry.op_type:
        return f"is a {entry.op_type} in the ledger and a {layer.op_type}"
    if not nodes[0].inputs or len({v.producer() for v in _results(nodes)}) != 1:
        return "has nodes that are no chain"
    found = dequantizer(nodes, entry)
    if entry.verdict == CONVERTED and found is not None and found[1].size != len(entry.scale_w):
        return f"has {len(entry.scale_w)} weight scales in the ledger and {found[1].size}"
    return ""


def _results(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """What no node of the group reads."""
    return [v for n in nodes for v in n.outputs if not any(u.node in nodes for u in v.uses())]


def _ends(nodes: Sequence[ir.Node]) -> Ends:
    """What enters the chain of the first node, and what leaves the group.

    The first node reads the layer's float input; the group's result is what no node of the group reads. Of an operator
    of several outputs it is the first that is read.
    """
    first = nodes[0].inputs[0]
    return Ends((first.name or "") if first is not None else "", main_output(_results(nodes)).name or "")
