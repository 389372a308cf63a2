"""The files beside a ledger against what its conversion writes, and where in the network they differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from amct_onnx.common.versions import CODE, deciding_versions
from amct_onnx.errors import ModelFileError
from amct_onnx.files.read import read_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_digest import model_digest
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Pair, Reader
from amct_onnx.plan.ledger import LayerEntry, ResidualEntry
from amct_onnx.verbs.compare.explain.changes import Change, changes
from amct_onnx.verbs.convert.read_ledger import Ledger
from amct_onnx.verbs.convert.written_again import written_again

LEDGER = "ledger-contradiction"
AT, BEFORE, BEHIND = "at", "before", "behind"
OTHER_NODES = 4
"""Changed nodes from which on a file may be another model's, when they are more than half of all."""


@dataclass(frozen=True)
class Located:
    """A change, and the layer of the ledger at, before or behind which it stands."""

    change: Change
    index: int
    layer: str
    place: str


@dataclass(frozen=True)
class Beside:
    """What the files beside a ledger are not.

    Attributes:
        fake_quant, deploy: changes in the order of the network.
        source: normalised.
        left_out, quantized: see ``Written``.
        not_judged: why the files could not be held against the conversion; "" when they were.
    """

    source: ir.Model
    fake_quant: tuple[Located, ...] = ()
    deploy: tuple[Located, ...] = ()
    not_judged: str = ""
    left_out: tuple[Pair, ...] = ()
    quantized: frozenset[Reader] = frozenset()

    @property
    def changed(self) -> bool:
        """Whether any file is not what the conversion writes."""
        return bool(self.fake_quant or self.deploy)


def examine_files(model_file: str | os.PathLike[str], ledger: Ledger) -> Beside:
    """Hold both models against the conversion, made once more.

    Args:
        model_file: the source.
        ledger: of the conversion.

    Raises:
        ModelFileError: The ledger or a model is of another source, or the ledger does not tell its source.
        AmctError: A file cannot be read.
    """
    origin = ledger.origin
    if origin is None:
        raise ModelFileError(
            f"{ledger.path}: does not tell what its files were made from, so that nothing can be held to it. Convert "
            "again (--convert does it first)."
        )
    model = read_model(model_file)
    if model_digest(model) != origin.source_digest:
        raise ModelFileError(
            f"{ledger.path}: these files were not made from this model: the graph or the weights of "
            f"{os.fspath(model_file)} are others than those of the source that was converted. Give that source. "
            "Convert this one again to compare it (--convert does it first)."
        )
    if origin.code != deciding_versions()[CODE]:
        return Beside(
            normalise(model),
            not_judged=f"they were written by other code of this program, version {origin.version}: convert again",
        )
    made = written_again(model, origin)
    return Beside(
        made.source,
        _located(made.fake_quant, ledger.fake_quant_model, made.source, "fake-quant", ledger.layers),
        (
            *_located(made.deploy, ledger.deploy_model, made.source, "deploy", ledger.layers),
            *_unlisted(made.residuals, ledger, made.source),
        ),
        left_out=made.left_out,
        quantized=made.quantized,
    )


def _located(
    written: ir.Model, path: Path, source: ir.Model, model: str, layers: Sequence[LayerEntry]
) -> tuple[Located, ...]:
    """The changes of a file with their places.

    Raises:
        ModelFileError: It is another model.
    """
    found = read_model(path)
    made = changes(written, found, source, model)
    if not made:
        return ()
    nodes = {n.name or "": n for n in nodes_of(written)}
    other = len({c.node for c in made} & nodes.keys())
    if other >= OTHER_NODES and 2 * other > len(nodes):
        raise ModelFileError(
            f"{path}: was not made from this model: {other} of the {len(nodes)} nodes that the conversion writes are "
            "missing in it or others. Give the files of this conversion. Convert again (--convert does it first)."
        )
    owner: dict[str, int] = {}
    for index, entry in enumerate(layers):
        for name in (entry.deploy_nodes if model == "deploy" else entry.fake_quant_nodes) or (entry.name,):
            owner.setdefault(name, index)
    return tuple(_locate(c, nodes, owner, layers) for c in made)


def _unlisted(residuals: Sequence[ResidualEntry], ledger: Ledger, source: ir.Model) -> tuple[Located, ...]:
    """Quantizers of the deploy model that the ledger does not list, and the reverse."""
    texts = []
    left = list(ledger.residuals)
    for entry in residuals:
        if entry in left:
            left.remove(entry)
            continue
        same = next((e for e in left if e.tensor == entry.tensor), None)
        if same is None:
            said = f"has a quantizer of tensor '{entry.tensor}' ({_what(entry)}) that the ledger does not list."
            texts.append((entry.tensor, said))
            continue
        left.remove(same)
        said = f"quantizes tensor '{entry.tensor}' ({_what(entry)}), the ledger lists other factors ({_what(same)})."
        texts.append((entry.tensor, said))
    for entry in left:
        said = f"has no quantizer of tensor '{entry.tensor}' ({_what(entry)}) that the ledger lists."
        texts.append((entry.tensor, said))
    owner = {e.name: i for i, e in reversed(list(enumerate(ledger.layers)))}
    readers = {v.name: [u.node for u in v.uses()] for n in nodes_of(source) for v in n.inputs if v is not None}
    return tuple(
        _placed(Change("", "", LEDGER, f"The deploy model {text}"), readers.get(tensor, []), owner, ledger.layers)
        for tensor, text in texts
    )


def _what(entry: ResidualEntry) -> str:
    return entry.action if entry.scale is None else f"{entry.action}, scale {entry.scale:.6g}"


def _locate(change: Change, nodes: dict[str, ir.Node], owner: dict[str, int], layers: Sequence[LayerEntry]) -> Located:
    """At the layer that holds the node, else before the first layer that it leads to."""
    if change.node in owner:
        index = owner[change.node]
        return Located(change, index, layers[index].name, AT)
    starts = [nodes[n] for n in (change.node, *change.beside) if n in nodes]
    return _placed(change, starts, owner, layers)


def _placed(change: Change, starts: Sequence[ir.Node], owner: dict[str, int], layers: Sequence[LayerEntry]) -> Located:
    """Before the first layer that the nodes lead to, else behind all."""
    reached = _first_owned(starts, owner)
    if reached is not None:
        return Located(change, reached, layers[reached].name, BEFORE)
    last = len(layers) - 1
    return Located(change, last, layers[last].name if layers else "", BEHIND)


def _first_owned(starts: Sequence[ir.Node], owner: dict[str, int]) -> int | None:
    waiting, seen = list(starts[:1]), set(starts[:1])
    found = []
    while waiting:
        node = waiting.pop()
        if (node.name or "") in owner:
            found.append(owner[node.name or ""])
            continue
        for value in node.outputs:
            new = [u.node for u in value.uses() if u.node not in seen]
            seen.update(new)
            waiting += new
    return min(found, default=None)
