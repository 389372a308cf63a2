"""The answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amct_onnx.common.counted import counted
from amct_onnx.errors import as_typed
from amct_onnx.plan.ledger import REFUSED, LayerEntry
from amct_onnx.verbs.compare.explain.chance import by_chance, samples_for
from amct_onnx.verbs.compare.explain.doubts import Doubt
from amct_onnx.verbs.compare.explain.unlike_outputs import Unlike
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.job import SOURCE
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.present.figures import percent
from amct_onnx.verbs.compare.report import (
    DIVERGES,
    EQUAL,
    INCOMPLETE,
    NOISE,
    BoardResult,
    Divergence,
    Level,
    Metric,
    ModelEntry,
    OutputEntry,
    Verdict,
)

FLOAT_ROUNDING_DB = 90.0
"""SQNR of an output from which on two models differ by float32's rounding alone (about 2^-15 of the RMS)."""
WITNESS_ADVICE = (
    "Measure the source with session.disable_quant_qdq=1 and optimisations off (amct_onnx.AMCT_SO); 'amct_onnx doctor' "
    "shows each setting's error on this CPU."
)
LABELS_TELL = (
    "What to do: give --labels, or --evaluator and --max_drop: what the answers lose tells whether this is fit."
)
NODES = ("node-missing", "node-added", "node-replaced")
"""Causes that a node's name tells best."""
OF_FILES = {
    "file-unreadable": ("is not a readable model", "are not readable models"),
    "other-model": ("was not made from this model", "were not made from this model"),
}
"""What is said of one file and of several, where it is no node that is wrong."""
MAX_BRIEF = 4
"""Sentences below the headline on a terminal: where, what it costs, why, what to do."""
NAMED_MODELS = 2
"""Models that a headline names; of more it tells the number."""
NAMED = 5
"""Refused layers named in the verdict."""
DEFAULT_POINTS = 1.0
"""Loss of right answers, in points, that the samples should bound when no ``max_drop`` says otherwise."""
SMALLEST_MARGIN = 1e-4
"""Share: a loss nearer to ``max_drop`` would need millions of samples."""
SIGNIFICANT = 0.05
"""Below this probability of chance, a loss of right answers is called real."""


@dataclass(frozen=True)
class Found:
    """What the verdict is made of.

    Attributes:
        models, outputs, divergences: of the report.
        layers: of the ledger.
        accuracy: by model, empty without labels.
        doubts: about the source and the data, the most telling first: they come before all else.
        warnings: what else is odd about data and files.
        witness: a sentence about onnxruntime's default settings, or "".
        complete: False for a partial run.
        board: what a board's dumps gave, or None.
        not_judged: parts of the models that nothing could be said of.
        float_model: the float model before quantization, which is measured and not judged, or None.
        unlike: outputs that do not resemble the source's.
        dropped: quantizers that the conversion left out on request, so that other numbers are meant.
        max_drop: what the first metric may lose, in points (1 point is 1 % of a share, else 1); None to leave that to
            chance.
    """

    models: Sequence[ModelEntry]
    outputs: Sequence[OutputEntry]
    divergences: Sequence[Divergence]
    layers: Sequence[LayerEntry]
    accuracy: Mapping[str, Accuracy]
    warnings: Sequence[str] = ()
    witness: str = ""
    complete: bool = True
    board: BoardResult | None = None
    not_judged: Sequence[str] = ()
    max_drop: float | None = None
    float_model: ModelEntry | None = None
    doubts: Sequence[Doubt] = ()
    unlike: Sequence[Unlike] = ()
    dropped: int = 0

    @property
    def faults(self) -> list[Divergence]:
        """In the order of the network."""
        return sorted((d for d in self.divergences if d.is_fault), key=lambda d: d.index)


def verdict(found: Found) -> Verdict:
    """The headline, what was found, and what to do."""
    level, headline, lines = _of_models(found)
    if found.doubts:
        level, headline, lines = _doubted(found, level, headline, lines)
    if not found.complete:
        headline = f"(Partial run.) {headline}"
    noise = [d for d in found.divergences if not d.is_fault]
    sentences = [*(d.why for d in found.doubts), *found.warnings]
    measured = [m for m in (found.float_model, *found.models) if m is not None]
    sentences += [_figures(m, found.accuracy.get(m.key)) for m in measured if m.metrics]
    few = _too_few(found)
    sentences += [few]
    sentences += [f"{_models(who)}: {d.text}" for d, who in _grouped(found.faults)]
    sentences += [d.text for d in noise]
    advice = [d.todo for d in found.doubts]
    advice += [f"{_models(who)}: {d.advice}" for d, who in _grouped(found.faults) if d.advice]
    if not found.faults:
        advice += [d.advice for d in noise]
    sentences += [f"Not judged: {text}" for text in found.not_judged if text not in sentences]
    if found.board is not None:
        sentences.append(found.board.text)
        advice.append(found.board.advice)
    if found.witness:
        sentences.append(found.witness)
        advice.append(WITNESS_ADVICE)
    refused = [e for e in found.layers if e.verdict == REFUSED]
    if refused:
        sentences.append(_stay_float(refused))
    last = [] if found.faults or found.doubts else [*found.warnings, few]
    brief = [line for line in (*lines, *last) if line][:MAX_BRIEF]
    texts = (sentences, dict.fromkeys(advice), brief)
    return Verdict(level, as_typed(headline), *(tuple(as_typed(t) for t in part if t) for part in texts))


def _doubted(found: Found, level: Level, headline: str, lines: list[str]) -> tuple[Level, str, list[str]]:
    """The doubt first, then what is said of the models: it means less beside a wrong source."""
    doubt = found.doubts[0]
    why = [f"Why: {doubt.why}", f"What to do: {doubt.todo}"]
    if level == DIVERGES:
        return DIVERGES, f"First: {doubt.headline}.", [f"Besides: {headline}", *why]
    besides = [] if doubt.why in found.not_judged else [f"Besides: {headline}"]
    return INCOMPLETE, f"Incomplete: {doubt.headline}.", [*why, *besides]


def _of_models(found: Found) -> tuple[Level, str, list[str]]:
    """The level, its sentence and the lines below it: the first of fault, loss, board, and rounding that there is."""
    losing, drops = _too_large(found)
    if found.faults:
        level, headline, (where, *lines) = _of_faults(found.faults, len(found.models) - 1)
        return level, headline, [where, _cost(found, drops), *lines]
    if drops:
        return DIVERGES, f"Accuracy drops: {'; '.join(drops)}.", _of_loss(found, losing)
    if found.board is not None and found.board.fault:
        where = f"The board goes wrong at layer '{found.board.layer}' ({found.board.tensor})."
        return DIVERGES, where, [f"Why: {found.board.text}", f"What to do: {found.board.advice}"]
    unlike = _undecided(found)
    if found.not_judged:
        parts = counted(len(found.not_judged), "part")
        open_question = f"Not judged: {found.not_judged[0]}"
        if unlike:
            headline = f"Incomplete: {_resembles(unlike)}, and {parts} of the models could not be judged."
            return INCOMPLETE, headline, [f"Why: SQNR {_decibels(unlike)}.", open_question, LABELS_TELL]
        headline = f"Incomplete: no fault found, but {parts} of the models could not be judged."
        return INCOMPLETE, headline, [open_question]
    if unlike:
        return _of_unlike(found, unlike)
    who = _models([m.key for m in found.models[1:]])
    one = len(found.models) == 2
    kept = _kept(found.models)
    differences = [d for o in found.outputs for d in o.differences if not d.exact and d.model != FLOAT]
    if any(d.sqnr_db is None or d.sqnr_db < FLOAT_ROUNDING_DB for d in differences):
        if found.dropped:
            left_out = (
                f"{'leaves' if one else 'leave'} out {counted(found.dropped, 'quantizer')} of the source, as asked"
            )
            return NOISE, f"No fault found. {who} {left_out}, and so other numbers come out{kept}.", _of_dropped(found)
        arithmetic = "its int8 arithmetic allows" if one else "their int8 arithmetic allows"
        follow = "follows" if one else "follow"
        return NOISE, f"No fault found. {who} {follow} the source as closely as {arithmetic}{kept}.", []
    give = "gives" if one else "give"
    return EQUAL, f"No fault found. {who} {give} the source's results up to the last bits of float{kept}.", []


def _undecided(found: Found) -> Sequence[Unlike]:
    """Outputs that do not resemble the source's, unless what the answers lose is measured well enough to decide."""
    measured = all(m.metrics for m in found.models)
    if measured and (found.max_drop is not None or (found.accuracy and not _too_few(found))):
        return ()
    return found.unlike


def _of_unlike(found: Found, unlike: Sequence[Unlike]) -> tuple[Level, str, list[str]]:
    """The verdict on outputs that do not resemble the source's though every layer agrees."""
    headline = f"Incomplete: no layer is wrong by itself, but {_resembles(unlike)}."
    reason = (
        "Every layer agrees when it reads the source's numbers: the source itself makes large differences of the "
        "rounding that no two int8 arithmetics share."
    )
    if found.dropped:
        reason = _dropped(found)
    return INCOMPLETE, headline, [f"Why: SQNR {_decibels(unlike)}. {reason}", LABELS_TELL]


def _resembles(unlike: Sequence[Unlike]) -> str:
    who = [u.model for u in unlike]
    return f"{_models(who)} {'does' if len(who) == 1 else 'do'} not resemble the source"


def _decibels(unlike: Sequence[Unlike]) -> str:
    return ", ".join(f"{u.sqnr_db:.1f} dB in '{u.output}' ({u.model})" for u in unlike)


def _dropped(found: Found) -> str:
    count, whose = ("1 quantizer was", "its") if found.dropped == 1 else (f"{found.dropped} quantizers were", "their")
    return f"{count} dropped on request (--residual_quantizers drop); {whose} readers get other numbers."


def _of_dropped(found: Found) -> list[str]:
    """What dropped quantizers cost, in SQNR, and what tells more; nothing of what int8 allows: it asks for none."""
    pairs = [(d, o.name) for o in found.outputs for d in o.differences if not d.exact and d.model != FLOAT]
    known = [(d.sqnr_db, name, d.model) for d, name in pairs if d.sqnr_db is not None]
    worst = ""
    if known:
        sqnr, name, model = min(known)
        worst = f"SQNR {sqnr:.1f} dB in '{name}' ({model}), the least. "
    measured = all(m.metrics for m in found.models)
    return [f"Why: {worst}{_dropped(found)}", *([] if measured else [LABELS_TELL])]


def _cost(found: Found, drops: Sequence[str]) -> str:
    """What a fault costs in accuracy, and how much may be lost; "" without labels and evaluator."""
    kept = _kept(found.models).removeprefix(": ")
    if not kept:
        return ""
    if drops:
        return f"Accuracy: {', '.join(drops)}; {kept}."
    limit = "" if found.max_drop is None else f", limit of a loss {_points(found.max_drop)}"
    return f"Accuracy: {kept}{limit}."


def _points(number: float) -> str:
    return f"{number:g} {'point' if number == 1 else 'points'}"


def _of_faults(faults: Sequence[Divergence], models: int) -> tuple[Level, str, list[str]]:
    groups = _grouped(faults)
    first, who = groups[0]
    goes = "goes" if len(who) == 1 else "go"
    node = f" ({first.node})" if first.node and first.node != first.layer else ""
    what = f"{first.cause}: '{first.node}'" if first.cause in NODES else first.cause
    headline = f"{_crowd(who, models)} {goes} wrong {first.place} layer '{first.layer}' ({what})"
    where = f"{first.place} layer {first.index + 1}, '{first.layer}'{node}"
    if first.cause in OF_FILES:
        headline = f"{_crowd(who, models)} {OF_FILES[first.cause][len(who) > 1]}"
        where = "the whole file"
    also = [model for _, others in groups[1:] for model in others]
    if also:
        headline += f"; {_crowd(also, models)} {'goes' if len(also) == 1 else 'go'} wrong as well"
    headline += "."
    others = "".join(
        f"; {_crowd(who, models)} {d.place} layer {d.index + 1}, '{d.layer}' ({d.cause})" for d, who in groups[1:]
    )
    lines = [f"Where: {where}{others}.", f"Why: {first.text}"]
    if first.advice:
        lines.append(f"What to do: {first.advice}")
    return DIVERGES, headline, lines


def _crowd(keys: Sequence[str], models: int) -> str:
    """The models' names where they are few."""
    if len(keys) <= NAMED_MODELS:
        return _models(keys)
    return f"All {models} models" if len(keys) == models else f"{keys[0]} and {len(keys) - 1} more models"


def _grouped(divergences: Sequence[Divergence]) -> list[tuple[Divergence, list[str]]]:
    """What several models have alike is said once."""
    groups: dict[tuple[int, str, str, str], tuple[Divergence, list[str]]] = {}
    for d in divergences:
        text = d.node if d.cause in NODES else d.text.replace(d.model, "")
        groups.setdefault((d.index, d.place, d.cause, text), (d, []))[1].append(d.model)
    return list(groups.values())


def _kept(models: Sequence[ModelEntry]) -> str:
    """``: top-1 99.2 % -> 99.2 %``, of the first metric."""
    metrics = [m.metrics[0] for m in models if m.metrics]
    if len(metrics) != len(models) or not metrics:
        return ""
    texts = [percent(m.value, 1) if m.total else f"{m.value:.6g}" for m in metrics]
    after = texts[1:]
    if len(set(after)) == 1:
        return f": {metrics[0].name} {texts[0]} → {after[0]}"
    named = ", ".join(f"{m.key} {t}" for t, m in zip(after, models[1:], strict=True))
    return f": {metrics[0].name} {texts[0]} → {named}"


def _of_loss(found: Found, losing: Sequence[str]) -> list[str]:
    """Why accuracy drops where no layer is wrong, as far as figures tell, and what to do."""
    why = "Why: no layer errs more than quantization explains"
    changed = {key: a for key in losing if (a := found.accuracy.get(key)) is not None and a.right}
    told = "; ".join(
        f"{key} loses {a.lost} of the source's right answers and gains {a.gained} "
        f"(p = {by_chance(a.lost, a.gained):.2g})"
        for key, a in changed.items()
    )
    if changed and not any(map(_drops, changed.values())):
        why += f"; {told}, which chance explains."
        return [why, "What to do: give more samples, or a larger --max_drop."]
    why += f"; {told}." if told else "."
    return [why, "What to do: train longer with quantization, or leave the layers with the largest errors float."]


def _too_large(found: Found) -> tuple[list[str], list[str]]:
    """The models that lose more than is allowed, or more than chance explains when nothing is said of it.

    Their keys, and what is said of them.
    """
    lost: dict[str, str] = {}
    unit = ""
    for model in found.models[1:]:
        accuracy = found.accuracy.get(model.key)
        if found.max_drop is None:
            if accuracy is not None and _drops(accuracy):
                lost[model.key] = f"{model.key} loses more right answers than chance explains"
        elif model.metrics and found.models[0].metrics:
            before, after = found.models[0].metrics[0], model.metrics[0]
            points = (before.value - after.value) * (100 if before.total else 1)
            if points > found.max_drop:
                unit = f"{' points' if before.total else ''} of {before.name}, limit {found.max_drop:g}"
                lost[model.key] = f"{model.key} loses {points:.3g}"
    return list(lost), [", ".join(lost.values()) + unit] if unit else list(lost.values())


def _too_few(found: Found) -> str:
    """What so many samples leave open of the loss of right answers; "" when they bound it well enough."""
    limit = DEFAULT_POINTS if found.max_drop is None else found.max_drop
    open_losses: dict[tuple[float, float], list[str]] = {}
    needed = samples = 0
    decidable = True
    for model in found.models[1:]:
        metric, accuracy = next(iter(model.metrics), None), found.accuracy.get(model.key)
        if metric is None or accuracy is None or metric.least_loss is None or metric.most_loss is None:
            continue
        measured = (accuracy.lost - accuracy.gained) / accuracy.samples
        if found.max_drop is None:
            decided = _drops(accuracy) or 100 * (metric.most_loss - measured) <= limit
            margin = limit / 100
        else:
            decided = not 100 * metric.least_loss <= limit < 100 * metric.most_loss
            margin = abs(limit / 100 - measured)
        if decided:
            continue
        open_losses.setdefault((metric.least_loss, metric.most_loss), []).append(model.key)
        samples = accuracy.samples
        if limit and margin >= SMALLEST_MARGIN:
            needed = max(needed, samples_for(accuracy.lost, accuracy.gained, samples, margin))
        else:
            decidable = False
    if not open_losses:
        return ""
    bounds = "; ".join(
        f"{_models(who)} {'loses' if len(who) == 1 else 'lose'} {100 * low:.3g} to {100 * high:.3g} points"
        for (low, high), who in open_losses.items()
    )
    if not limit:
        these = "this 1 sample" if samples == 1 else f"these {samples:,} samples"
        return (
            f"--max_drop 0 judges {these} alone: on others {bounds} of top-1 (95 % intervals), and no number of "
            "samples shows that nothing is lost."
        )
    noun = "sample is" if samples == 1 else "samples are"
    would_do = f"About {float(f'{needed:.1e}'):,.0f} would do."
    if not decidable:
        would_do = "What was measured lies so near that limit that more samples hardly decide."
    return (
        f"{samples:,} {noun} too few to tell a loss of {_points(limit)} of top-1 (95 % intervals: {bounds}). {would_do}"
    )


def _drops(found: Accuracy) -> bool:
    return found.lost > found.gained and by_chance(found.lost, found.gained) < SIGNIFICANT


def _figures(model: ModelEntry, found: Accuracy | None) -> str:
    """The metrics of a model, and which of the source's right answers it changes."""
    figures = ", ".join(map(_metric, model.metrics))
    if model.key == SOURCE or found is None or not found.right:
        return f"{model.key}: {figures}."
    chance = by_chance(found.lost, found.gained)
    changed = f"{found.lost} of the source's right answers lost, {found.gained} gained (p = {chance:.2g})"
    return f"{model.key}: {figures}; {changed}."


def _metric(metric: Metric) -> str:
    """With its interval, when it is a share."""
    if metric.total is None or metric.low is None or metric.high is None:
        return f"{metric.name} {metric.value:.6g}"
    interval = f"95 % interval {percent(metric.low, 2)} to {percent(metric.high, 2)}"
    return f"{metric.name} {percent(metric.value, 2)} ({metric.right} of {metric.total}; {interval})"


def _stay_float(refused: Sequence[LayerEntry]) -> str:
    named = ", ".join(f"'{e.name}' ({e.reason})" for e in refused[:NAMED])
    more = f", and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    return f"{counted(len(refused), 'layer stays', 'layers stay')} float: {named}{more}."


def _models(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"
