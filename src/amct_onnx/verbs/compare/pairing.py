"""Which tensors of the three models belong together: told by the ledger and the graphs, never by the form of names."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.errors import ModelFileError
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


def pair_layers(ledger: Ledger, fake_quant: ir.Model | None, deploy: ir.Model | None) -> tuple[Paired, ...]:
    """The layers in the ledger's order; None for a model that cannot be read, and where one does not show a layer."""
    in_fake_quant = None if fake_quant is None else {n.name or "": n for n in fake_quant.graph}
    in_deploy = None if deploy is None else {n.name or "": n for n in deploy.graph}
    return tuple(
        Paired(
            entry,
            Ends(entry.source_input, entry.source_output),
            None if in_fake_quant is None else _shown(entry, in_fake_quant, entry.fake_quant_nodes),
            None if in_deploy is None else _shown(entry, in_deploy, entry.deploy_nodes),
        )
        for entry in ledger.layers
    )


def _shown(entry: LayerEntry, nodes: Mapping[str, ir.Node], listed: Sequence[str]) -> Ends | None:
    """None in the body of an If, Loop or Scan, or when its nodes are not those of the ledger."""
    members = listed or (entry.name,)
    group = [nodes[n] for n in members if n in nodes]
    return _ends(group) if len(group) == len(members) and not _problem(group, entry, "")[1] else None


def unpaired(
    ledger: Ledger, model: ir.Model, name: str, *, deploy: bool
) -> list[tuple[int, LayerEntry, list[tuple[str, str]]]]:
    """Each layer with its number and, where its nodes are not what the ledger says, the name of a node and a sentence.

    Args:
        ledger: of the conversion.
        model: deploy or fake-quant.
        name: what the model is called.
        deploy: which of both it is.
    """
    nodes = {n.name or "": n for n in model.graph}
    everywhere = {n.name or "" for n in ir.traversal.RecursiveGraphIterator(model.graph)}
    return [(i, e, _unpaired(e, nodes, everywhere, name, deploy=deploy)) for i, e in enumerate(ledger.layers)]


def _unpaired(
    entry: LayerEntry, nodes: Mapping[str, ir.Node], everywhere: Set[str], name: str, *, deploy: bool
) -> list[tuple[str, str]]:
    members = (entry.deploy_nodes if deploy else entry.fake_quant_nodes) or (entry.name,)
    missing = [n for n in members if n not in everywhere]
    if missing:
        return [
            (
                missing[0],
                f"The ledger lists node '{missing[0]}' for layer '{entry.name}'; the {name} model has no such node.",
            )
        ]
    if not all(n in nodes for n in members):
        return []
    problem = _problem([nodes[n] for n in members], entry, name)
    return [problem] if problem[1] else []


def out_of_order(ledger: Ledger, deploy: ir.Model) -> list[tuple[int, LayerEntry, list[tuple[str, str]]]]:
    """The first layer that stands in the deploy model before one that the ledger has before it, as ``unpaired`` tells.

    With its number.
    """
    places = {n.name or "": i for i, n in enumerate(deploy.graph)}
    found = [(i, e) for i, e in enumerate(ledger.layers) if e.name in places and e.op_type in LAYER_KINDS]
    for (_, before), (index, after) in zip(found, found[1:], strict=False):
        if places[before.name] >= places[after.name]:
            text = f"The ledger has layer '{after.name}' behind '{before.name}'; the deploy model has it before."
            return [(index, after, [(after.name, text)])]
    return []


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


def _problem(nodes: Sequence[ir.Node], entry: LayerEntry, model: str) -> tuple[str, str]:
    """A node of a layer and what it is not, though the ledger says so; two "" when nothing."""
    if not nodes:
        return "", ""
    layer = next((n for n in nodes if n.name == entry.name), None)
    if layer is not None and layer.op_type != entry.op_type:
        text = f"Layer '{entry.name}' is a {entry.op_type} in the ledger and a {layer.op_type} in the {model} model."
        return entry.name, text
    ends = {p: v for v in _results(nodes) if (p := v.producer()) is not None}
    if not nodes[0].inputs or len(ends) != 1:
        node, value = next(((n, v) for n, v in ends.items() if n is not nodes[-1]), (nodes[0], nodes[0].outputs[0]))
        readers = ", ".join(dict.fromkeys(f"{u.node.op_type} '{u.node.name}'" for u in value.uses())) or "no node"
        text = f"In the {model} model no node of layer '{entry.name}' reads what {node.op_type} '{node.name}' gives "
        return node.name or "", f"{text}(read by: {readers}); by the ledger one should."
    found = dequantizer(nodes, entry)
    if entry.verdict == CONVERTED and found is not None and found[1].size != len(entry.scale_w):
        held = f"The ledger has {len(entry.scale_w)} weight scales for layer '{entry.name}'; AscendDequant "
        return found[0].name or "", f"{held}'{found[0].name}' of the {model} model has {found[1].size}."
    return "", ""


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
