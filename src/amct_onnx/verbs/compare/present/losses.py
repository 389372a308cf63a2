"""What the models lose of the source's right answers, in words, and what the samples leave open of it."""

from __future__ import annotations

from collections.abc import Sequence

from amct_onnx.verbs.compare.explain.chance import by_chance, samples_for
from amct_onnx.verbs.compare.job import SOURCE
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.present.figures import percent
from amct_onnx.verbs.compare.present.found import Found, listed_models
from amct_onnx.verbs.compare.report import Metric, ModelEntry

DEFAULT_POINTS = 1.0
"""Loss of right answers, in points, that the samples should bound when no ``max_drop`` says otherwise."""
SMALLEST_MARGIN = 1e-4
"""Share: a loss nearer to ``max_drop`` would need millions of samples."""
SIGNIFICANT = 0.05
"""Below this probability of chance, a loss of right answers is called real."""


def cost_of_fault(found: Found, drops: Sequence[str]) -> str:
    """What a fault costs in accuracy, and how much may be lost; "" without labels and evaluator."""
    kept = kept_metric(found.models).removeprefix(": ")
    if not kept:
        return ""
    if drops:
        return f"Accuracy: {', '.join(drops)}; {kept}."
    limit = "" if found.max_drop is None else f", limit of a loss {_points(found.max_drop)}"
    return f"Accuracy: {kept}{limit}."


def _points(number: float) -> str:
    return f"{number:g} {'point' if number == 1 else 'points'}"


def kept_metric(models: Sequence[ModelEntry]) -> str:
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


def too_large(found: Found) -> tuple[list[str], list[str]]:
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


def of_loss(found: Found, losing: Sequence[str]) -> list[str]:
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


def too_few(found: Found) -> str:
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
        f"{listed_models(who)} {'loses' if len(who) == 1 else 'lose'} {100 * low:.3g} to {100 * high:.3g} points"
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


def figures_of(model: ModelEntry, found: Accuracy | None) -> str:
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
