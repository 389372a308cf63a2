"""From statistics to the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache

from amct_onnx.common.arrays import Array
from amct_onnx.common.versions import library_versions
from amct_onnx.device.profiles import PROFILES
from amct_onnx.files.read import read_model
from amct_onnx.verbs.compare.explain.beside_ledger import Beside
from amct_onnx.verbs.compare.explain.chance import loss_interval, share_interval
from amct_onnx.verbs.compare.explain.default_settings import default_settings_witness
from amct_onnx.verbs.compare.explain.divergences import find_divergences
from amct_onnx.verbs.compare.explain.doubts import (
    Doubt,
    clipped_input,
    edited_ledger,
    guessing,
    poor_source,
    preparation,
)
from amct_onnx.verbs.compare.explain.guessing import guesses
from amct_onnx.verbs.compare.explain.preprocessing import preprocessing_hints
from amct_onnx.verbs.compare.explain.unlike_outputs import unlike_outputs
from amct_onnx.verbs.compare.explain.unreliable_source import unreliable_source
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.job import (
    DEPLOY,
    FAKE_QUANT,
    SOURCE,
    Job,
    Quantized,
    Tracked,
    deploy_key,
    layer_lsb,
    step_of,
)
from amct_onnx.verbs.compare.key import LAYER, OUTPUT, Key
from amct_onnx.verbs.compare.layer_details import InputHistogram
from amct_onnx.verbs.compare.measure.accuracy import TOP, Accuracy
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.measure.sessions import pinned_settings
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.channels import channel_errors
from amct_onnx.verbs.compare.present.found import Found
from amct_onnx.verbs.compare.present.histograms import histograms
from amct_onnx.verbs.compare.present.surroundings import Surroundings
from amct_onnx.verbs.compare.present.unlike_sizes import unlike_sizes
from amct_onnx.verbs.compare.present.verdict import verdict
from amct_onnx.verbs.compare.report import (
    AS_GIVEN,
    BoardResult,
    CompareReport,
    FlippedSample,
    FlippedSamples,
    LayerResult,
    Metric,
    ModelEntry,
    OutputEntry,
    QuantizerCounts,
)
from amct_onnx.verbs.convert.read_ledger import Ledger

RECORDED = "The source is the float model with the quantizers of the record that the ledger holds."


@dataclass(frozen=True)
class Run:
    """What was run, and how far.

    Attributes:
        model: the file of the source, see ``Request.quantized``.
        job, layers, ledger: see ``make_job``.
        runner: with the sessions of this process.
        results: of all batches so far.
        first: the first batch, for a closer look.
        again: gives the batches once more, from the first on.
        complete: whether there are no more batches.
        total: samples in the data set, None when unknown.
        seconds: of running.
        beside: what the files beside the ledger are not.
        board: what a board's dumps gave, or None.
        max_drop: see ``Found``.
        stage: is told what is being done.
    """

    model: str | os.PathLike[str]
    job: Job
    layers: tuple[Paired, ...]
    ledger: Ledger
    runner: Runner
    results: Results
    first: Batch
    again: Callable[[], Iterable[Batch]]
    complete: bool
    total: int | None
    seconds: float
    beside: Beside
    board: BoardResult | None = None
    max_drop: float | None = None
    stage: Callable[[str], None] = lambda what: None


def assemble(run: Run, *, model: str, save_path: str, data: str, settings: Mapping[str, str]) -> CompareReport:
    """The report of a run; the first batch is run once more where a closer look is needed.

    Args:
        run: what was run.
        model: as the user gave it.
        save_path: as the user gave it.
        data: as the user gave it.
        settings: of the comparison.
    """
    job, results = run.job, run.results
    run.stage("the source once more")
    tensors = cache(lambda: run.runner.tensors(run.first))
    pinned = [tensors()[SOURCE][t.source] for t in _outputs(job)]
    named = {t.source: values for t, values in zip(_outputs(job), pinned, strict=True)}
    unreliable = unreliable_source(run.model, run.runner, run.first, named)
    divergences, not_judged = find_divergences(
        job, run.layers, run.ledger, results, run.first, run.model, run.beside, unreliable, run.stage
    )
    if run.board is not None and not run.board.tensors:
        not_judged += run.board.not_judged
    not_judged = (*_unverified(run.beside), *not_judged, *map(_sequence, job.sequences))
    run.stage("preparation of the data")
    doubts, warnings = _doubted(run, unreliable)
    run.stage("figures of each layer")
    outputs, layers = _output_entries(run), _layers(run, tensors())
    run.stage("default settings of ONNX Runtime")
    witness = default_settings_witness(run.model, _outputs(job), pinned, run.first)
    models = _models(run, model, witness)
    never, other_sizes = unlike_sizes(job, results)
    if all(m.metrics for m in models):  # what the answers lose tells more than elements
        warnings = (*warnings, *never, *other_sizes)
    else:
        not_judged, warnings = (*not_judged, *never), (*warnings, *other_sizes)
    return CompareReport(
        model=model,
        save_path=save_path,
        data=data,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        complete=run.complete,
        samples=results.samples,
        samples_total=results.samples if run.complete else run.total,
        seconds=run.seconds,
        verdict=verdict(
            Found(
                models=[m for m in models if m.key != FLOAT],
                float_model=next((m for m in models if m.key == FLOAT), None),
                outputs=outputs,
                divergences=divergences,
                layers=run.ledger.layers,
                accuracy=results.accuracy,
                warnings=warnings,
                witness=witness,
                complete=run.complete,
                board=run.board,
                not_judged=not_judged,
                doubts=doubts,
                unlike=unlike_outputs(outputs, named),
                dropped=sum(r.action == "dropped" for r in run.ledger.residuals),
                max_drop=run.max_drop,
            )
        ),
        models=models,
        outputs=outputs,
        layers=layers,
        divergences=divergences,
        histograms=histograms(layers, deploy_key(job.devices[0])),
        residuals=run.ledger.residuals,
        cost=run.ledger.cost,
        ledger_warnings=run.ledger.warnings,
        ledger_summary=run.ledger.summary,
        settings=dict(settings),
        versions=library_versions(),
        board=run.board,
        not_judged=not_judged,
        flips=_flips(job, results),
    )


def _flips(job: Job, results: Results) -> FlippedSamples | None:
    """None when nothing was classified."""
    if not any(a.right for a in results.accuracy.values()):
        return None
    found = results.flips
    listed = (FlippedSample(f.index, f.label, dict(zip(job.answering, f.answers, strict=True))) for f in found.first)
    return FlippedSamples(found.count, tuple(listed))


def _doubted(run: Run, unreliable: Doubt | None) -> tuple[tuple[Doubt, ...], tuple[str, ...]]:
    """What is doubtful about source and data, and what else is odd about data and files; the most telling first."""
    hints = preprocessing_hints(run.job, run.layers, run.results, run.runner, run.first, run.again)
    guessed = guesses(run.job, run.results)
    edited = edited_ledger(run.ledger.path, run.beside.ledger_changes) if run.beside.ledger_changes else None
    doubts = [edited, unreliable, *map(preparation, hints.prepared)]
    doubts.append(clipped_input(hints.outside) if hints.outside else None)
    doubts.append(guessing(guessed) if guessed else None)
    if not guessed and run.max_drop is None:  # a user who says what may be lost knows what there is
        doubts.append(poor_source(run.job, run.results))
    recorded = run.ledger.origin is not None and run.ledger.origin.record is not None
    warnings = (hints.untried, RECORDED if recorded else "", *_of_float_model(run.job))
    return tuple(filter(None, doubts)), tuple(filter(None, warnings))


def _unverified(beside: Beside) -> list[str]:
    """What stays open when the files could not be held against the conversion."""
    if not beside.not_judged:
        return []
    return [
        f"whether the files are what the conversion writes: {beside.not_judged}. By numbers alone a change that this "
        "data does not show, or that is smaller than a step, stays unseen."
    ]


def _sequence(name: str) -> str:
    return f"output '{name}': it is a sequence, which is not compared; what is read of its tensors elsewhere is."


def _of_float_model(job: Job) -> list[str]:
    """What speaks against the float model, or tells how it was matched."""
    return [f"Float model: {note}" for note in job.float_model.notes] if job.float_model is not None else []


def _outputs(job: Job) -> tuple[Tracked, ...]:
    return tuple(t for t in job.tracked if t.key.kind == OUTPUT)


def _output_entries(run: Run) -> tuple[OutputEntry, ...]:
    tensors = run.results.tensors
    return tuple(
        OutputEntry(
            t.source,
            t.lsb,
            tuple(tensors[t.key, m].difference(m, t.lsb) for m in (*t.others, FLOAT) if (t.key, m) in tensors),
        )
        for t in _outputs(run.job)
    )


def _layers(run: Run, tensors: Mapping[str, Mapping[str, Array]]) -> tuple[LayerResult, ...]:
    made = []
    source = Surroundings(read_model(run.model) if run.job.form == AS_GIVEN else run.beside.source)
    deploy = None if run.job.cannot_run(DEPLOY) else Surroundings(read_model(run.ledger.deploy_model))
    channels = channel_errors(run.job, run.layers, tensors)
    inputs = {q.layer: q for q in run.job.quantizers}
    kernel_bounds = {f.name: f.worst_accumulator for s in list(run.runner.deploy.values())[:1] for f in s.facts}
    for index, pair in enumerate(run.layers):
        entry = pair.entry
        lsb, lsb_of = layer_lsb(pair)
        step = step_of(pair)
        key = Key(LAYER, index)
        differences = tuple(
            run.results.tensors[key, m].difference(m, step) for m in run.job.models if (key, m) in run.results.tensors
        )
        counts = tuple(
            QuantizerCounts(m, q.values, q.saturated, q.ties, None if m == SOURCE else q.largest_accumulator)
            for m in (SOURCE, *run.job.models)
            if (q := run.results.quantizers.get((index, m))) is not None
        )
        made.append(
            LayerResult(
                name=entry.name,
                op_type=entry.op_type,
                verdict=entry.verdict,
                granularity=entry.granularity,
                scale_d=entry.scale_d,
                read_scale=entry.read_scale,
                offset_d=entry.offset_d,
                scale_w=entry.scale_w,
                second_scale_d=entry.second_scale_d,
                reason=entry.reason,
                detail=entry.detail,
                remedy=entry.remedy,
                lsb=lsb,
                lsb_of=lsb_of,
                compared=bool(differences),
                differences=differences,
                counts=counts,
                bias_error=entry.bias_error,
                kernel_bound=kernel_bounds.get(entry.name),
                input=_input(inputs.get(index), run.results),
                channels=channels.get(index, ()),
                source_nodes=source.of_source(pair),
                deploy_nodes=() if deploy is None else deploy.of_deploy(pair),
            )
        )
    return tuple(made)


def _input(quantizer: Quantized | None, results: Results) -> InputHistogram | None:
    met = results.quantizers.get((quantizer.layer, SOURCE)) if quantizer is not None else None
    if quantizer is None or met is None:
        return None
    return InputHistogram(quantizer.low, quantizer.high, met.binned, met.bins)


def _models(run: Run, model: str, witness: str) -> tuple[ModelEntry, ...]:
    job, pins = run.job, pinned_settings(run.job.threads)
    evaluator = job.evaluator.open()

    def metrics(key: str) -> tuple[Metric, ...]:
        accuracy = run.results.accuracy.get(key, Accuracy())
        made = [_share(n, right, accuracy, key) for n, right in accuracy.right.items()]
        if evaluator is not None and accuracy.sums:
            sums = {n: s.value for n, s in accuracy.sums.items()}
            made += [Metric(n, v) for n, v in evaluator.finish(sums, accuracy.samples).items()]
        if evaluator is not None:
            made += [Metric(n, v) for n, v in evaluator.score(accuracy.records, accuracy.samples).items()]
        return tuple(made)

    source = ModelEntry(SOURCE, model, None, job.form, pins, metrics(SOURCE), (witness,) if witness else ())
    notes = _cannot_run(job, FAKE_QUANT)
    fake_quant = ModelEntry(FAKE_QUANT, job.fake_quant.label, settings=pins, metrics=metrics(FAKE_QUANT), notes=notes)
    deploy = []
    for device in job.devices:
        key = deploy_key(device)
        if key not in run.runner.deploy:
            deploy.append(ModelEntry(key, job.deploy.label, device, notes=_cannot_run(job, key)))
            continue
        session = run.runner.deploy[key]
        notes = (*session.warnings, *PROFILES[device].undecided)
        settings = {**session.pinned, "intra_op_num_threads": str(job.threads)}
        deploy.append(ModelEntry(key, job.deploy.label, device, settings=settings, metrics=metrics(key), notes=notes))
    if job.float_model is not None:
        held = job.float_model
        deploy.append(ModelEntry(FLOAT, held.model.label, settings=pins, metrics=metrics(FLOAT), notes=held.notes))
    return (source, fake_quant, *deploy)


def _cannot_run(job: Job, model: str) -> tuple[str, ...]:
    why = job.cannot_run(model)
    return (f"Not run: {why}",) if why else ()


def _share(name: str, right: int, accuracy: Accuracy, model: str) -> Metric:
    """A share of right answers, and how far so many samples bound it."""
    samples = accuracy.samples
    loss: tuple[float | None, float | None] = (None, None)
    if name == f"top-{TOP[0]}" and model != SOURCE:
        loss = loss_interval(accuracy.lost, accuracy.gained, samples)
    return Metric(name, right / samples, right, samples, *share_interval(right, samples), *loss)
