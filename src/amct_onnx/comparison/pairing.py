"""Which tensors of the three models belong together: told by the ledger and the graphs, never by the form of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.comparison.ledger import Ledger
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.report import LayerEntry


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


def pair_layers(ledger: Ledger, fake_quant: ir.Model, deploy: ir.Model) -> tuple[Paired, ...]:
    """The layers in the ledger's order.

    Raises:
        UnsupportedModelError: A model is not the one that the ledger tells of.
    """
    graphs = [{n.name or "": n for n in m.graph} for m in (fake_quant, deploy)]
    everywhere = [{n.name or "" for n in ir.traversal.RecursiveGraphIterator(m.graph)} for m in (fake_quant, deploy)]
    paired = []
    for entry in ledger.layers:
        ends: list[Ends | None] = []
        for nodes, known, own in zip(graphs, everywhere, (entry.fake_quant_nodes, entry.deploy_nodes), strict=True):
            members = own or (entry.name,)
            missing = [n for n in members if n not in known]
            if missing:
                raise UnsupportedModelError(
                    f"{ledger.path}: layer '{entry.name}' has node '{missing[0]}', which the model beside it does not "
                    "hold. Convert the source again."
                )
            here = all(n in nodes for n in members)  # else in the body of an If, Loop or Scan
            ends.append(_ends([nodes[n] for n in members]) if here else None)
        paired.append(Paired(entry, Ends(entry.source_input, entry.source_output), *ends))
    return tuple(paired)


def _ends(nodes: Sequence[ir.Node]) -> Ends:
    """What enters the chain of the first node, and what leaves the group.

    The first node reads the layer's float input; the group's result is the one that no node of the group reads.
    """
    first = nodes[0].inputs[0]
    results = [v for n in nodes for v in n.outputs if not any(u.node in nodes for u in v.uses())]
    return Ends((first.name or "") if first is not None else "", results[-1].name or "")
