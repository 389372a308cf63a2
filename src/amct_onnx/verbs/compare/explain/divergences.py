"""The first divergence of each model.

A fault is looked for on the first batch, piece by piece against the cut source (``local_errors``), and without a
device's rounding, whose bound is so wide that it would hide many: the device ``reference`` rounds as the source does.
When it was not asked for, it runs the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.files.read import read_model
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.compare.explain.beside_ledger import Beside
from amct_onnx.verbs.compare.explain.cut_source import CutSource, Segment, segment
from amct_onnx.verbs.compare.explain.diagnosis import Examined, diagnose, examine
from amct_onnx.verbs.compare.explain.faults import Place, contradiction, fault
from amct_onnx.verbs.compare.explain.local_errors import Piece, pieces
from amct_onnx.verbs.compare.explain.name_changes import with_changes
from amct_onnx.verbs.compare.explain.noise import gains
from amct_onnx.verbs.compare.job import FAKE_QUANT, SOURCE, Job, deploy_key, input_keys, layer_lsb
from amct_onnx.verbs.compare.key import LAYER
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.report import Divergence
from amct_onnx.verbs.convert.read_ledger import Ledger

REFERENCE = "reference"

Tensors = Callable[[], dict[str, dict[str, Array]]]


def find_divergences(
    job: Job,
    layers: Sequence[Paired],
    ledger: Ledger,
    results: Results,
    first: Batch,
    tensors: Tensors,
    beside: Beside,
) -> tuple[Divergence, ...]:
    """At most one divergence for each model but the source.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        ledger: of the conversion.
        results: of all batches.
        first: the first batch.
        tensors: of the first batch, by model and name.
        beside: what the files are not.
    """
    if REFERENCE in job.devices:
        probe, probed, shown = job, results, tensors()
    else:
        probe = _with_reference(job)
        runner = Runner(probe)
        probed, shown = runner.run(first), runner.tensors(first)
    search = _Search(layers, ledger, first, probe, shown, CutSource(job, tensors()[SOURCE]))
    sharp = search.exactly(deploy_key(REFERENCE), probe, probed)
    divergences = []
    for model in job.models:
        if model == deploy_key(REFERENCE):
            found = sharp
        elif model == FAKE_QUANT:
            found = search.exactly(model, job, results)
        else:
            found = _with_fault_of(sharp, model, search.by_statistics(model, job, results))
        found = with_changes(model, found, beside.fake_quant if model == FAKE_QUANT else beside.deploy)
        if found is not None:
            divergences.append(found)
    return tuple(divergences)


def _with_fault_of(sharp: Divergence | None, model: str, own: Divergence | None) -> Divergence | None:
    """What a device shows, unless the device ``reference`` shows a fault that does not lie behind it."""
    if sharp is None or not sharp.is_fault:
        return own
    if own is not None and own.is_fault and own.index < sharp.index:
        return own
    text = f"The deploy model is wrong, seen without the rounding of a device: {sharp.text}"
    return replace(sharp, model=model, text=text)


class _Search:
    """What the search in every model needs.

    Args:
        layers: see ``make_job``.
        ledger: of the conversion.
        first: the first batch.
        probe: a job with the device ``reference``.
        shown: its tensors on the first batch, by model and name.
        cut: a session of the cut source.
    """

    def __init__(
        self,
        layers: Sequence[Paired],
        ledger: Ledger,
        first: Batch,
        probe: Job,
        shown: Mapping[str, Mapping[str, Array]],
        cut: CutSource,
    ) -> None:
        self._layers, self._first, self._probe, self._shown, self._cut = layers, first, probe, shown, cut
        self._graphs = _Graphs(ledger)
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
        found = pieces(self._probe, self._layers, self._gain, model, own, other)
        judges = self._graphs.judges
        return next((p for p in found if p.faulty and judges(p, self._probe, self._layers, model)), None)

    def _place(self, piece: Piece, model: str, examined: Sequence[Examined], results: Results) -> Place:
        in_deploy_layer = piece.kind == LAYER and model != FAKE_QUANT
        return Place(
            members=self._graphs.members(self._layers[piece.index]) if in_deploy_layer else (),
            segment=lambda: self._graphs.segment(piece, self._probe, model),
            counts=results.quantizers.get((piece.index, model)),
            extra_saturation=next((e.extra_saturation for e in examined if e.index == piece.index), 0.0),
        )


class _Graphs:
    """The output models' graphs, read when a question needs them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._integer_layers = {e.name for e in ledger.layers if e.verdict == CONVERTED}

    @cached_property
    def deploy(self) -> ir.Model:
        """The deploy model."""
        return read_model(self._ledger.deploy_model)

    @cached_property
    def fake_quant(self) -> ir.Model:
        """The fake-quant model."""
        return read_model(self._ledger.fake_quant_model)

    def members(self, pair: Paired) -> tuple[ir.Node, ...]:
        """The nodes of a layer in the deploy model."""
        return tuple(n for n in self.deploy.graph if n.name in pair.entry.deploy_nodes)

    def segment(self, piece: Piece, job: Job, model: str) -> Segment:
        """What makes a piece in a model."""
        cuts = frozenset(t.others[model] for t in job.tracked if t is not piece.tracked)
        graph = self.fake_quant if model == FAKE_QUANT else self.deploy
        return segment(graph, piece.tracked.others[model], cuts)

    def judges(self, piece: Piece, job: Job, layers: Sequence[Paired], model: str) -> bool:
        """Whether a piece's error is its own: between two layers no int8 layer may hide, as in the body of an If."""
        if piece.kind == LAYER and layers[piece.index].entry.verdict == CONVERTED:
            return True
        return not any(n.name in self._integer_layers for n in self.segment(piece, job, model).nodes)


def _with_reference(job: Job) -> Job:
    """The same comparison on the device ``reference`` alone."""
    name = deploy_key(job.devices[0])
    tracked = tuple(
        replace(t, others={FAKE_QUANT: t.others[FAKE_QUANT], deploy_key(REFERENCE): t.others[name]})
        for t in job.tracked
    )
    return replace(job, devices=(REFERENCE,), tracked=tracked, evaluator="")
