"""The answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erfc, sqrt

from amct_onnx.plan.ledger import REFUSED, LayerEntry
from amct_onnx.verbs.compare.job import SOURCE
from amct_onnx.verbs.compare.measure.batch import Accuracy
from amct_onnx.verbs.compare.report import (
    DIVERGES,
    EQUAL,
    INCOMPLETE,
    NOISE,
    BoardResult,
    Divergence,
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
NAMED = 5
"""Refused layers named in the verdict."""
SIGNIFICANT = 0.05
"""Below this probability of chance, a loss of right answers is called real."""
EXACT_CHANGES = 1 << 14
"""Changed answers whose binomial coefficients are added up, in milliseconds; the time grows with the square."""


def by_chance(lost: int, gained: int) -> float:
    """Two-sided sign test (McNemar's exact test): the probability of so uneven a split of the changed answers.

    Up to ``EXACT_CHANGES`` changed answers it is counted out in integers. Beyond, the binomial distribution is taken as
    normal with Yates's continuity correction: ``erfc((|lost - gained| - 1) / sqrt(2 * changed))``. There the error is
    below 1e-5, and below 1% of the probability while that exceeds 1e-9.
    """
    changed, smaller = lost + gained, min(lost, gained)
    if changed > EXACT_CHANGES:
        return erfc(max(0, abs(lost - gained) - 1) / sqrt(2 * changed))
    tail = ways = 1
    for k in range(1, smaller + 1):
        ways = ways * (changed - k + 1) // k
        tail += ways
    return min(1.0, float(2 * tail / 2**changed))


def verdict(
    models: Sequence[ModelEntry],
    outputs: Sequence[OutputEntry],
    divergences: Sequence[Divergence],
    layers: Sequence[LayerEntry],
    accuracy: Mapping[str, Accuracy],
    *,
    witness: str,
    complete: bool,
    board: BoardResult | None,
    not_judged: Sequence[str] = (),
) -> Verdict:
    """The headline, what was found, and what to do.

    Args:
        models: of the report.
        outputs: of the report.
        divergences: of the report.
        layers: of the ledger.
        accuracy: by model, empty without labels.
        witness: a sentence about onnxruntime's default settings, or "".
        complete: False for a partial run.
        board: what a board's dumps gave, or None.
        not_judged: parts of the models that nothing could be said of.
    """
    level, headline = _headline(models, outputs, [d for d in divergences if d.is_fault], accuracy, board)
    if not_judged and level != DIVERGES:
        parts = "1 part" if len(not_judged) == 1 else f"{len(not_judged)} parts"
        level, headline = INCOMPLETE, f"Incomplete: no fault found, but {parts} of the models could not be judged."
    if not complete:
        headline = f"(Partial run.) {headline}"
    faults_first = sorted(divergences, key=lambda d: not d.is_fault)
    sentences = [_figures(m, accuracy.get(m.key)) for m in models if m.metrics]
    sentences += [d.text for d in faults_first]
    advice = [d.advice for d in faults_first]
    sentences += [f"Not judged: {text}" for text in not_judged]
    if board is not None:
        sentences.append(board.text)
        advice.append(board.advice)
    if witness:
        sentences.append(witness)
        advice.append(WITNESS_ADVICE)
    refused = [e for e in layers if e.verdict == REFUSED]
    if refused:
        sentences.append(_stay_float(refused))
    return Verdict(level, headline, tuple(sentences), tuple(dict.fromkeys(filter(None, advice))))


def _headline(
    models: Sequence[ModelEntry],
    outputs: Sequence[OutputEntry],
    faults: Sequence[Divergence],
    accuracy: Mapping[str, Accuracy],
    board: BoardResult | None,
) -> tuple[str, str]:
    """The level and its sentence: the first of fault, loss of accuracy, board and rounding that there is."""
    if faults:
        index = min(d.index for d in faults)
        first = [d for d in faults if d.index == index]
        who = _listed([d.model for d in first])
        return DIVERGES, f"{who} wrong {first[0].place} layer '{first[0].layer}' ({first[0].cause})."
    drops = [m.key for m in models[1:] if m.key in accuracy and _drops(accuracy[m.key])]
    if drops:
        return DIVERGES, (
            f"Accuracy drops in {', '.join(drops)}, more than chance explains, although each layer errs no more "
            "than quantization explains."
        )
    if board is not None and board.fault:
        return DIVERGES, f"The board goes wrong at layer '{board.layer}' ({board.tensor})."
    differences = [d for o in outputs for d in o.differences if not d.exact]
    if any(d.sqnr_db is None or d.sqnr_db < FLOAT_ROUNDING_DB for d in differences):
        kept = ", and accuracy does not drop beyond chance" if accuracy else ""
        return NOISE, f"The models differ, but no layer by more than quantization explains{kept}."
    return EQUAL, "All models give the source's results up to float rounding."


def _drops(found: Accuracy) -> bool:
    return found.lost > found.gained and by_chance(found.lost, found.gained) < SIGNIFICANT


def _figures(model: ModelEntry, found: Accuracy | None) -> str:
    """The metrics of a model, and which of the source's right answers it changes."""
    figures = ", ".join(
        f"{m.name} {m.value:.2%} ({m.right} of {m.total})" if m.total else f"{m.name} {m.value:.6g}"
        for m in model.metrics
    )
    if model.key == SOURCE or found is None or not found.right:
        return f"{model.key}: {figures}."
    chance = by_chance(found.lost, found.gained)
    changed = f"{found.lost} of the source's right answers lost, {found.gained} gained (p = {chance:.2g})"
    return f"{model.key}: {figures}; {changed}."


def _stay_float(refused: Sequence[LayerEntry]) -> str:
    named = ", ".join(f"'{e.name}' ({e.reason})" for e in refused[:NAMED])
    more = f", and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    stay = "1 layer stays" if len(refused) == 1 else f"{len(refused)} layers stay"
    return f"{stay} float: {named}{more}."


def _listed(models: Sequence[str]) -> str:
    if len(models) == 1:
        return f"{models[0]} goes"
    return f"{', '.join(models[:-1])} and {models[-1]} go"
