"""The first faulty piece of each model on the first batch, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.files.read import read_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.compare.explain.beside_ledger import Beside
from amct_onnx.verbs.compare.explain.cut_source import CutSource, Places, Segment, segment
from amct_onnx.verbs.compare.explain.diagnosis import Examined, diagnose, examine
from amct_onnx.verbs.compare.explain.faults import Place, contradiction, fault
from amct_onnx.verbs.compare.explain.local_errors import Piece, pieces
from amct_onnx.verbs.compare.explain.noise import gains
from amct_onnx.verbs.compare.explain.source_grids import Grid
from amct_onnx.verbs.compare.explain.strange_nodes import unknown_nodes
from amct_onnx.verbs.compare.job import DEPLOY, FAKE_QUANT, Job, Tracked, input_keys, layer_lsb
from amct_onnx.verbs.compare.key import LAYER
from amct_onnx.verbs.compare.measure.batch import Batch, Results
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.report import Divergence
from amct_onnx.verbs.convert.read_ledger import Ledger


class Search:
    """What the search in every model needs.

    Args:
        layers: see ``make_job``.
        ledger: of the conversion.
        first: the first batch.
        probe: a job with the device ``reference``.
        shown: its tensors on the first batch, by model and name.
        cut: a session of the cut source.
        source: the graph of the source that the probe runs.
        grids: see ``source_grids``.
        beside: what the files are not.
        instead: models in the place of files.
    """

    def __init__(
        self,
        layers: Sequence[Paired],
        ledger: Ledger,
        first: Batch,
        probe: Job,
        shown: Mapping[str, Mapping[str, Array]],
        cut: CutSource,
        source: ir.Model,
        grids: Mapping[str, Grid],
        beside: Beside,
        instead: Mapping[str, ir.Model],
    ) -> None:
        self._grids = grids
        self.not_judged: list[str] = []
        """What no bound exists for, and why."""
        self._positions = {v.name or "": i for i, n in enumerate(source.graph) for v in n.outputs}
        self._layers, self._first, self._probe, self._shown, self._cut = layers, first, probe, shown, cut
        self._graphs, self._ledger = _Graphs(ledger, instead), ledger
        self._source_names = {n.name or "" for m in (source, beside.source) for n in nodes_of(m)}
        self._held = not beside.not_judged
        self._gain = gains(ledger.layers, self._graphs.deploy)
        self._lsb = [layer_lsb(pair)[0] for pair in layers]

    def by_statistics(self, model: str, job: Job, results: Results) -> Divergence | None:
        """What the statistics of all batches show."""
        return diagnose(model, self._layers, self._examined(model, job, results), results, self._lsb, None)

    def exactly(self, model: str, job: Job, results: Results) -> Divergence | None:
        """The same, and the fault that the first batch shows piece by piece."""
        examined = self._examined(model, job, results)
        worst = self._first_faulty(model)
        if worst is not None:
            named: Divergence | None = fault(worst, model, self._layers, self._place(worst, model, examined, results))
        else:
            named = contradiction(model, self._layers, self._graphs.members) if model != FAKE_QUANT else None
        return diagnose(model, self._layers, examined, results, self._lsb, named)

    def _examined(self, model: str, job: Job, results: Results) -> list[Examined]:
        return examine(model, self._layers, results, input_keys(job, self._layers), self._gain, self._lsb)

    def _first_faulty(self, model: str) -> Piece | None:
        """The first piece that is wrong by itself."""
        other = self._shown[model]
        own = self._cut.run(self._first.feeds, other, self._probe, model)
        shown = {**self._first.feeds, **other}
        probe = replace(self._probe, tracked=tuple(self._alike(own, other, model)))
        found = pieces(probe, self._layers, self._gain, model, own, shown, self._grids, self._positions)
        judged = []
        for piece in found:
            hidden = self._graphs.hides(piece, self._probe, self._layers, model)
            if hidden:
                reason = self._why_hidden(hidden)
                self.not_judged.append(f"In {model}, what makes '{piece.tracked.others[model]}': {reason}")
            else:
                judged.append(piece)
        return next((p for p in judged if p.faulty), None)

    def _alike(self, own: Mapping[str, Array], other: Mapping[str, Array], model: str) -> Iterator[Tracked]:
        """The tensors of which the piece of the source selects as many elements as the model does."""
        for t in self._probe.tracked:
            if own[t.source].size == other[t.others[model]].size:
                yield t
            else:
                self.not_judged.append(
                    f"In {model}, what makes '{t.others[model]}': of the same numbers the source makes "
                    f"{counted(own[t.source].size, 'element')}, the model {other[t.others[model]].size}."
                )

    def _why_hidden(self, layer: str) -> str:
        """Why an int8 layer has no tensor of its own."""
        unlike = next((m for m, key, _ in self._probe.unlike if self._layers[key.index].entry.name == layer), "")
        if unlike:
            return f"int8 layer '{layer}' has another size in {unlike}, so that its numbers have no counterpart."
        return (
            f"int8 layer '{layer}' stands in a body or in no form that can be shown, so that nothing bounds what its "
            "rounding does."
        )

    def _place(self, piece: Piece, model: str, examined: Sequence[Examined], results: Results) -> Place:
        in_deploy_layer = piece.kind == LAYER and model != FAKE_QUANT
        return Place(
            members=self._graphs.members(self._layers[piece.index]) if in_deploy_layer else (),
            segment=lambda: self._graphs.segment(piece, self._probe, model),
            unknown=lambda: self._unknown(piece, model),
            counts=results.quantizers.get((piece.index, model)),
            extra_saturation=next((e.extra_saturation for e in examined if e.index == piece.index), 0.0),
            leads_to=lambda: self._graphs.first_reader(piece.tracked.others[model], self._layers, model),
        )

    def _unknown(self, piece: Piece, model: str) -> tuple[ir.Node, ...]:
        """Nodes that nobody knows; where the file was held against its conversion, that tells them better."""
        if self._held:
            return ()
        nodes = self._graphs.segment(piece, self._probe, model).nodes
        return unknown_nodes(nodes, self._ledger.layers, self._source_names)


class _Graphs:
    """The output models' graphs, read when a question needs them."""

    def __init__(self, ledger: Ledger, instead: Mapping[str, ir.Model]) -> None:
        self._ledger, self._instead = ledger, instead
        self._integer_layers = {e.name for e in ledger.layers if e.verdict == CONVERTED}

    @cached_property
    def deploy(self) -> ir.Model:
        """The deploy model."""
        return self._instead.get(DEPLOY) or read_model(self._ledger.deploy_model)

    @cached_property
    def fake_quant(self) -> ir.Model:
        """The fake-quant model."""
        return self._instead.get(FAKE_QUANT) or read_model(self._ledger.fake_quant_model)

    @cached_property
    def _deploy_places(self) -> Places:
        return Places(self.deploy)

    @cached_property
    def _fake_quant_places(self) -> Places:
        return Places(self.fake_quant)

    def _places(self, model: str) -> Places:
        return self._fake_quant_places if model == FAKE_QUANT else self._deploy_places

    @cached_property
    def _deploy_nodes(self) -> dict[str, list[ir.Node]]:
        """By name; a damaged file may hold a name twice."""
        found: dict[str, list[ir.Node]] = {}
        for node in self.deploy.graph:
            found.setdefault(node.name or "", []).append(node)
        return found

    def members(self, pair: Paired) -> tuple[ir.Node, ...]:
        """The nodes of a layer in the deploy model."""
        named = (n for name in set(pair.entry.deploy_nodes) for n in self._deploy_nodes.get(name, ()))
        return tuple(sorted(named, key=self._deploy_places.of_node.__getitem__))

    def segment(self, piece: Piece, job: Job, model: str) -> Segment:
        """What makes a piece in a model."""
        cuts = frozenset(t.others[model] for t in job.tracked if t is not piece.tracked)
        ratios = {r.read_scale / r.scale for r in self._ledger.residuals if r.read_scale and r.scale}
        return replace(
            segment(self._places(model), piece.tracked.others[model], cuts), ratios=frozenset({1.0, *ratios})
        )

    def first_reader(self, tensor: str, layers: Sequence[Paired], model: str) -> int | None:
        """The first layer that a tensor of a model leads to, by its number; None when it leads to outputs alone."""
        number = {p.entry.name: i for i, p in enumerate(layers)}
        value = self._places(model).tensors.get(tensor)
        waiting, seen, found = [value] if value is not None else [], set(), []
        while waiting:
            for use in waiting.pop().uses():
                name = use.node.name or ""
                if name in number:
                    found.append(number[name])
                elif use.node not in seen:
                    seen.add(use.node)
                    waiting.extend(use.node.outputs)
        return min(found, default=None)

    def hides(self, piece: Piece, job: Job, layers: Sequence[Paired], model: str) -> str:
        """An int8 layer that stands in a piece between two layers, as in the body of an If; "" for none."""
        if piece.kind == LAYER and layers[piece.index].entry.verdict == CONVERTED:
            return ""
        inside = self.segment(piece, job, model).nodes
        return next((n.name or "" for n in inside if n.name in self._integer_layers), "")
