"""The first divergence of each model.

A fault is looked for on the first batch, piece by piece against the cut source (``local_errors``), and without a
device's rounding, whose bound is so wide that it would hide many: the device ``reference`` rounds as the source does.
When it was not asked for, it runs the first batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from amct_onnx.common.arrays import Array
from amct_onnx.errors import AmctError
from amct_onnx.verbs.compare.causes import AT, BEFORE, BEHIND
from amct_onnx.verbs.compare.explain.beside_ledger import Beside, Located
from amct_onnx.verbs.compare.explain.change import OF_FILES
from amct_onnx.verbs.compare.explain.cut_source import CutSource
from amct_onnx.verbs.compare.explain.doubts import Doubt
from amct_onnx.verbs.compare.explain.faults import BETWEEN, CONVERT_AGAIN
from amct_onnx.verbs.compare.explain.finer import finer, without
from amct_onnx.verbs.compare.explain.name_changes import with_changes
from amct_onnx.verbs.compare.explain.search import Search
from amct_onnx.verbs.compare.explain.source_grids import source_grids
from amct_onnx.verbs.compare.job import (
    DEPLOY,
    FAKE_QUANT,
    SOURCE,
    Job,
    deploy_key,
    make_job,
)
from amct_onnx.verbs.compare.key import LAYER
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.measure.evaluator import EvaluatorCode
from amct_onnx.verbs.compare.measure.sessions import opened
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.report import Divergence
from amct_onnx.verbs.convert.read_ledger import Ledger

REFERENCE = "reference"


def find_divergences(
    job: Job,
    layers: Sequence[Paired],
    ledger: Ledger,
    results: Results,
    first: Batch,
    source_file: str | os.PathLike[str],
    beside: Beside,
    unreliable: Doubt | None = None,
    stage: Callable[[str], None] = lambda what: None,
) -> tuple[tuple[Divergence, ...], tuple[str, ...]]:
    """At most one divergence for each model but the source, and what could not be judged.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        ledger: of the conversion.
        results: of all batches.
        first: the first batch.
        source_file: the source.
        beside: what the files are not.
        unreliable: why the source's numbers judge nothing; then only the files are judged. None when they do.
        stage: is told what is being done.
    """
    judge = _Judge(ledger, results, first, beside, stage)
    found: dict[str, Divergence | None] = {}
    not_judged = [] if unreliable is None else [unreliable.why]
    whole = {c.change.cause for c in (*beside.fake_quant, *beside.deploy)} & OF_FILES
    by_numbers = [] if unreliable is not None or job.left_out or whole else list(job.models)
    if beside.healthy and unreliable is None:
        # a model that was not changed is judged beside what the conversion writes: it has all its tensors
        unchanged = [m for m in job.asked if _name(m) not in beside.healthy]
        by_numbers = [m for m in by_numbers if m not in unchanged]
        if unchanged:
            made = make_job(
                source_file, ledger, job.devices, threads=job.threads, canonical=beside.source, instead=beside.healthy
            )
            found |= judge.judged(*made, unchanged, job)
    obstacle = "another model cannot be run."
    if by_numbers:
        try:
            found |= judge.judged(job, layers, by_numbers, job)
        except AmctError as error:  # each model runs, but not in pieces
            obstacle = f"they cannot be run piece by piece: {error}"
    for model in job.asked:
        if model not in found:
            found[model], open_question = _by_file(job, beside, model, obstacle)
            not_judged += [open_question] if open_question and unreliable is None else []
        found[model] = _of_sizes(found[model], job, layers, model, beside.of(model))
    told = tuple(d for m in job.asked if (d := found[m]) is not None)
    return told, tuple(dict.fromkeys((*not_judged, *judge.not_judged)))


def _of_sizes(
    found: Divergence | None, job: Job, layers: Sequence[Paired], model: str, changed: Sequence[Located]
) -> Divergence | None:
    """A tensor or an output of another size is a fault, also where no piece shows one.

    At a layer it comes before what is found behind it; a change of the file tells it better.
    """
    fault = found if found is not None and found.is_fault else None
    unlike = [(key.index, key.kind == LAYER, text) for m, key, text in job.unlike if m == model]
    if unlike and not (changed and fault):
        index, at_layer, text = min(unlike)
        if fault is None or index < fault.index:
            place = AT if at_layer else BEFORE
            name = layers[index].entry.name
            return Divergence(model, name, index, BETWEEN, text, CONVERT_AGAIN, 0.0, 0.0, place)
    text = dict(job.other_sizes).get(_name(model), "")
    if not text or fault is not None:
        return found
    last = len(layers) - 1
    layer = layers[last].entry.name if layers else ""
    return Divergence(model, layer, last, BETWEEN, text, CONVERT_AGAIN, 0.0, 0.0, BEHIND)


def _name(model: str) -> str:
    """Of the file that a key stands for."""
    return FAKE_QUANT if model == FAKE_QUANT else DEPLOY


def _by_file(job: Job, beside: Beside, model: str, obstacle: str) -> tuple[Divergence | None, str]:
    """What the file of a model alone tells, or why nothing is known of it."""
    why = job.cannot_run(model)
    changed = with_changes(model, None, beside.of(model), judged=False)
    if changed is not None:
        cannot = f" It cannot be run: {why}" if why and why not in changed.text else ""
        return replace(changed, text=f"{changed.text}{cannot}"), ""
    if why:
        return None, f"{model} cannot be run: {why}"
    return None, f"the layers of {model} by their numbers, since {obstacle}"


class _Judge:
    """Judges models by the numbers of the first batch, piece by piece.

    Args:
        ledger, results, first, beside, stage: see ``find_divergences``.
    """

    def __init__(
        self,
        ledger: Ledger,
        results: Results,
        first: Batch,
        beside: Beside,
        stage: Callable[[str], None],
    ) -> None:
        self._ledger, self._results, self._first, self._beside, self._stage = ledger, results, first, beside, stage
        self.not_judged: list[str] = []
        """What no bound exists for, and why."""

    def judged(
        self, pieces_of: Job, layers: Sequence[Paired], models: Sequence[str], measured: Job
    ) -> dict[str, Divergence | None]:
        """The divergence of each of some models.

        Args:
            pieces_of: a job whose models are cut.
            layers: of it.
            models: keys.
            measured: the job of the results.
        """
        beside, stage = self._beside, self._stage
        probe, runner, shown = _probe(pieces_of, layers, self._first, stage, changed=beside.changed)
        same = pieces_of is measured and REFERENCE in measured.devices
        probed = self._results if same else runner.statistics(self._first, shown)
        stage("reading the source with its pieces")
        source = opened(probe.source)
        source.graph.sort()  # its file need not be in order, a copy must be
        grids = source_grids(beside.source, source)
        stage("cutting the source into pieces")
        cut = CutSource(probe, source.clone(), shown[SOURCE], grids, beside.left_out, beside.quantized, stage)
        instead = {} if pieces_of is measured else beside.healthy
        search = Search(layers, self._ledger, self._first, probe, shown, cut, source, grids, beside, instead)
        sharp = None
        if any(m != FAKE_QUANT for m in models):
            stage("the deploy model, piece by piece")
            sharp = search.exactly(deploy_key(REFERENCE), probe, probed)
        paired = all(p.fake_quant is not None and p.deploy is not None for p in layers)
        found = {}
        for model in models:
            stage(f"{model}, piece by piece")
            if model == deploy_key(REFERENCE):
                own = sharp
            elif model == FAKE_QUANT:
                own = search.exactly(model, measured, self._results)
            else:
                own = _with_fault_of(sharp, model, search.by_statistics(model, measured, self._results))
            found[model] = with_changes(model, own, beside.of(model), judged=paired and not search.not_judged)
        named = deploy_key(REFERENCE) if REFERENCE in measured.devices else "the deploy model"
        self.not_judged += [text.replace(f"In {deploy_key(REFERENCE)},", f"In {named},") for text in search.not_judged]
        return found


def _with_fault_of(sharp: Divergence | None, model: str, own: Divergence | None) -> Divergence | None:
    """What a device shows, unless the device ``reference`` shows a fault that does not lie behind it."""
    if sharp is None or not sharp.is_fault:
        return own
    if own is not None and own.is_fault and own.index < sharp.index:
        return own
    text = f"{sharp.text.replace(sharp.model, model)} Seen with the rounding of the device {REFERENCE}."
    return replace(sharp, model=model, text=text)


def _probe(
    job: Job, layers: Sequence[Paired], first: Batch, stage: Callable[[str], None], *, changed: bool
) -> tuple[Job, Runner, dict[str, dict[str, Array]]]:
    """The job on the device ``reference`` with every tensor that the models share, its sessions, and the tensors.

    In a model that was changed, tensors may have become what no output can be; then the job's own are what there is.
    """
    coarse = _with_reference(job)
    try:
        return _run(finer(coarse, layers, stage), first, stage)
    except AmctError:
        if not changed:
            raise
        return _run(coarse, first, stage)


def _run(probe: Job, first: Batch, stage: Callable[[str], None]) -> tuple[Job, Runner, dict[str, dict[str, Array]]]:
    runner = Runner(probe, stage)
    stage("running the pieces on the first batch")
    shown = runner.tensors(first)
    runner.job = probe = without(probe, shown, SOURCE)
    return probe, runner, shown


def _with_reference(job: Job) -> Job:
    """The same comparison on the device ``reference`` alone."""
    name = deploy_key(job.devices[0])
    tracked = tuple(
        replace(t, others={FAKE_QUANT: t.others[FAKE_QUANT], deploy_key(REFERENCE): t.others[name]})
        for t in job.tracked
    )
    return replace(job, devices=(REFERENCE,), tracked=tracked, evaluator=EvaluatorCode(), float_model=None)
