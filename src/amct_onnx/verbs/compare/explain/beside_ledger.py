"""The files beside a ledger against what its conversion writes, and where in the network they differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from amct_onnx.common.versions import CODE, deciding_versions
from amct_onnx.errors import AmctError, ModelFileError
from amct_onnx.files.read import read_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_digest import model_digest
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Activation, Pair, Reader
from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.verbs.compare.causes import AT, BEFORE, BEHIND, FaultCause, Side
from amct_onnx.verbs.compare.explain.change import ADDED, LEDGER, OTHER_MODEL, UNREADABLE, Change
from amct_onnx.verbs.compare.explain.changes import changes
from amct_onnx.verbs.compare.explain.function_changes import function_changes
from amct_onnx.verbs.compare.explain.ledger_changes import ledger_changes
from amct_onnx.verbs.compare.job import DEPLOY, FAKE_QUANT
from amct_onnx.verbs.compare.pairing import out_of_order, unpaired
from amct_onnx.verbs.convert.read_ledger import Ledger
from amct_onnx.verbs.convert.report import Origin
from amct_onnx.verbs.convert.written_again import Again, Written, other_options

FEWER = 4
"""By what factor the changes of the files must become fewer for another option to be the true one."""
OTHER_NODES = 4
"""Changed nodes from which on a file may be another model's, when they are more than half of all."""


@dataclass(frozen=True)
class Located:
    """A change, and the layer of the ledger at, before or behind which it stands."""

    change: Change
    index: int
    layer: str
    place: Side


@dataclass(frozen=True)
class Beside:
    """What the files beside a ledger are not.

    Attributes:
        fake_quant, deploy: changes in the order of the network.
        source: normalised.
        ledger: what the conversion writes; as it is stated when the files could not be held against the conversion.
        ledger_changes: what in the ledger that was read is otherwise.
        left_out, quantized: see ``Written``.
        healthy: by name of the model, what the conversion writes in the place of a file that was changed.
        not_judged: why the files could not be held against the conversion; "" when they were.
    """

    source: ir.Model
    ledger: Ledger
    fake_quant: tuple[Located, ...] = ()
    deploy: tuple[Located, ...] = ()
    not_judged: str = ""
    ledger_changes: tuple[str, ...] = ()
    left_out: tuple[Pair, ...] = ()
    quantized: Mapping[Reader, Activation] = field(default_factory=dict)
    healthy: Mapping[str, ir.Model] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any file is not what the conversion writes."""
        return bool(self.fake_quant or self.deploy)

    def of(self, model: str) -> tuple[Located, ...]:
        """The changes of the file of a model, by its key."""
        return self.fake_quant if model == FAKE_QUANT else self.deploy


def examine_files(model_file: str | os.PathLike[str], ledger: Ledger) -> Beside:
    """Hold both models and the ledger against the conversion, made once more.

    Args:
        model_file: the source.
        ledger: of the conversion.

    Raises:
        ModelFileError: The ledger is of another source, or does not tell its source.
        AmctError: The source cannot be read.
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
        found = _contradictions(ledger)
        return Beside(
            normalise(model),
            ledger,
            found[FAKE_QUANT],
            found[DEPLOY],
            not_judged=f"they were written by other code of this program, version {origin.version}: convert again",
        )
    return _held(Again(model), origin, ledger)


def _held(again: Again, origin: Origin, ledger: Ledger) -> Beside:
    """The files and the ledger against what the conversion writes.

    An option that was changed in the ledger makes everything look changed. So when the ledger's rows are not those of
    its options either, the options under which far fewer nodes of the files are others are taken for the true ones.
    """
    files = _Files(ledger)
    stated = best = _Attempt(again.written(origin), origin, files, ledger)
    while best.count and stated.ledger_changes:
        others = (_Attempt(again.written(o), o, files, ledger) for o in other_options(best.origin))
        tried = min(others, key=lambda a: a.count)
        if tried.count >= best.count:
            break
        best = tried
    return (best if FEWER * best.count <= stated.count else stated).beside(ledger)


class _Files:
    """Both models beside a ledger as they are, or why they cannot be read."""

    def __init__(self, ledger: Ledger) -> None:
        self.paths = {FAKE_QUANT: ledger.fake_quant_model, DEPLOY: ledger.deploy_model}
        self.models: dict[str, ir.Model] = {}
        self.unreadable: dict[str, str] = {}
        for name, path in self.paths.items():
            try:
                self.models[name] = read_model(path)
            except AmctError as error:
                self.unreadable[name] = str(error)


class _Attempt:
    """The files against what the conversion writes under some options.

    Args:
        made: what it writes.
        origin: the options.
        files: what is there.
        ledger: what is stated.
    """

    def __init__(self, made: Written, origin: Origin, files: _Files, ledger: Ledger) -> None:
        self._made, self.origin, self._files = made, origin, files
        self.ledger_changes = tuple(ledger_changes(ledger.content, made.report))
        self._written = {FAKE_QUANT: made.fake_quant, DEPLOY: made.deploy}
        self._changes = {m: changes(self._written[m], found, made.source, m) for m, found in files.models.items()}

    @property
    def count(self) -> int:
        """Changes of the files."""
        return sum(map(len, self._changes.values()))

    def beside(self, ledger: Ledger) -> Beside:
        """What is said of the files and the ledger."""
        made, report = self._made, self._made.report
        warnings = ledger.warnings if self.origin.record is not None else report.warnings
        true = replace(
            ledger,
            layers=report.layers,
            residuals=report.residuals,
            warnings=warnings,
            summary=report.summary(),
            origin=self.origin,
        )
        return Beside(
            made.source,
            true,
            self._located(FAKE_QUANT, made.fake_quant, report.layers),
            self._located(DEPLOY, made.deploy, report.layers),
            left_out=made.left_out,
            quantized=made.quantized,
            ledger_changes=self.ledger_changes,
            healthy={m: written for m, written in self._written.items() if self._changes.get(m, True)},
        )

    def _located(self, model: str, written: ir.Model, layers: Sequence[LayerEntry]) -> tuple[Located, ...]:
        """The changes of a file with their places; of a file that is not this conversion's, that alone."""
        nodes = {n.name or "": n for n in nodes_of(written)}
        owner = _owners(layers, model)
        if model in self._files.unreadable:
            return (_of_file(UNREADABLE, self._files.unreadable[model], layers),)
        made = self._changes[model]
        other = len({c.node for c in made} & nodes.keys())
        if other >= OTHER_NODES and 2 * other > len(nodes):
            text = (
                f"{self._files.paths[model]}: was not made from this model: {other} of the {len(nodes)} nodes that the "
                "conversion writes are missing in it or others."
            )
            return (_of_file(OTHER_MODEL, text, layers),)
        return tuple(_locate(c, nodes, owner, layers) for c in made)


def _owners(layers: Sequence[LayerEntry], model: str) -> dict[str, int]:
    """The layer that holds a node of a model, by the node's name."""
    owner: dict[str, int] = {}
    for index, entry in enumerate(layers):
        for name in (entry.deploy_nodes if model == DEPLOY else entry.fake_quant_nodes) or (entry.name,):
            owner.setdefault(name, index)
    return owner


def _of_file(cause: FaultCause, text: str, layers: Sequence[LayerEntry]) -> Located:
    """What is said of a file as a whole stands before the first layer."""
    return Located(Change("", "", cause, text), 0, layers[0].name if layers else "", BEFORE)


def _contradictions(ledger: Ledger) -> dict[str, tuple[Located, ...]]:
    """Layers whose nodes in a model are not those that the ledger lists, where nothing tells which is right.

    A function that no conversion writes is one as well: sessions that show tensors may run without it.
    """
    files = _Files(ledger)
    found: dict[str, tuple[Located, ...]] = {
        m: (_of_file(UNREADABLE, text, ledger.layers),) for m, text in files.unreadable.items()
    }
    for model, graph in files.models.items():
        deploy = model == DEPLOY
        told = unpaired(ledger, graph, model, deploy=deploy)
        nodes, owner = {n.name or "": n for n in nodes_of(graph)}, _owners(ledger.layers, model)
        own = tuple(_locate(c, nodes, owner, ledger.layers) for c in function_changes(None, graph, model))
        found[model] = own + tuple(
            Located(Change(node, "", LEDGER, text), index, entry.name, AT)
            for index, entry, problem in (*told, *(out_of_order(ledger, graph) if deploy else ()))
            for node, text in problem
        )
    return found


def _locate(change: Change, nodes: dict[str, ir.Node], owner: dict[str, int], layers: Sequence[LayerEntry]) -> Located:
    """At the layer that holds the node, else before the first layer that it leads to."""
    if change.node in owner:
        index = owner[change.node]
        return Located(change, index, layers[index].name, AT)
    holders = {owner.get(n) for n in change.beside if n in nodes}
    holder = holders.pop() if len(holders) == 1 else None
    if change.cause == ADDED and holder is not None:
        return Located(change, holder, layers[holder].name, AT)
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
