"""The first divergence of each model.

A fault is looked for on the first batch, piece by piece against the cut source (``local_errors``), and without a
device's rounding, whose bound is so wide that it would hide many: the device ``reference`` rounds as the source does.
When it was not asked for, it runs the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.files.read import read_model
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.compare.explain.cut_source import CutSource, Segment, segment
from amct_onnx.verbs.compare.explain.diagnosis import Examined, diagnose, examine
from amct_onnx.verbs.compare.explain.faults import Place, contradiction, fault
from amct_onnx.verbs.compare.explain.local_errors import LAYER, Piece, pieces
from amct_onnx.verbs.compare.explain.noise import gains
from amct_onnx.verbs.compare.job import FAKE_QUANT, SOURCE, Job, deploy_key, input_keys, layer_lsb
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.report import Divergence
from amct_onnx.verbs.convert.read_ledger import Ledger

REFERENCE = "reference"

Tensors = Callable[[], dict[str, dict[str, Array]]]


def find_divergences(
    job: Job, layers: Sequence[Paired], ledger: Ledger, results: Results, first: Batch, tensors: Tensors
) -> list[tuple[Divergence, bool]]:
    """At most one divergence for each model but the source, and whether it is a fault.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        ledger: of the conversion.
        results: of all batches.
        first: the first batch.
        tensors: of the first batch, by model and name.
    """
    graphs = _Graphs(ledger)
    gain = gains(ledger.layers, graphs.deploy)
    lsb = [layer_lsb(pair)[0] for pair in layers]
    sharp = deploy_key(REFERENCE)
    cut = CutSource(job, tensors()[SOURCE])
    probe, probed, shown = job, results, tensors()
    if REFERENCE not in job.devices:
        probe = _with_reference(job)
        runner = Runner(probe)
        probed, shown = runner.run(first), runner.tensors(first)

    def examined_in(asked: Job, model: str, found: Results) -> list[Examined]:
        return examine(model, layers, found, input_keys(asked, layers), gain, lsb)

    def of(model: str, examined: Sequence[Examined], found: Results) -> tuple[Divergence | None, bool]:
        own = cut.run(first.feeds, shown[model], probe, model)
        worst = next(
            (
                p
                for p in pieces(probe, layers, gain, model, own, shown[model])
                if p.faulty and graphs.judges(p, probe, layers, model)
            ),
            None,
        )
        named = None
        if worst is not None:
            extra = next((e.extra_saturation for e in examined if e.index == worst.index), 0.0)
            members = graphs.members(layers[worst.index]) if worst.kind == LAYER and model != FAKE_QUANT else ()
            place = Place(
                members,
                lambda: graphs.segment(worst, probe, model),
                found.quantizers.get((worst.index, model)),
                extra,
            )
            named = fault(worst, model, layers, place)
        elif model != FAKE_QUANT:
            named = contradiction(model, layers, graphs.members)
        return diagnose(model, layers, examined, found, lsb, named)

    sharp_fault, is_fault = of(sharp, examined_in(probe, sharp, probed), probed)
    divergences = []
    for model in job.models:
        examined = examined_in(job, model, results)
        if model == sharp:
            own, wrong = sharp_fault, is_fault
        elif model == FAKE_QUANT:
            own, wrong = of(model, examined, results)
        else:
            own, wrong = diagnose(model, layers, examined, results, lsb, None)
            if sharp_fault is not None and is_fault and (own is None or not wrong or own.index >= sharp_fault.index):
                text = f"The deploy model is wrong, seen without the rounding of a device: {sharp_fault.text}"
                own, wrong = replace(sharp_fault, model=model, text=text), True
        if own is not None:
            divergences.append((own, wrong))
    return divergences


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
