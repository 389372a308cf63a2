"""The answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

from amct_onnx.comparison.batch import Accuracy
from amct_onnx.comparison.job import SOURCE
from amct_onnx.comparison.report import (
    DIVERGES,
    EQUAL,
    NOISE,
    BoardResult,
    Divergence,
    ModelEntry,
    OutputEntry,
    Verdict,
)
from amct_onnx.report import REFUSED, LayerEntry

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


def by_chance(lost: int, gained: int) -> float:
    """Two-sided sign test (McNemar's exact test): the probability of so uneven a split of the changed answers."""
    changed = lost + gained
    if changed == 0:
        return 1.0
    tail = sum(comb(changed, k) for k in range(min(lost, gained) + 1))
    return min(1.0, float(2 * tail / 2**changed))


def verdict(
    models: Sequence[ModelEntry],
    outputs: Sequence[OutputEntry],
    divergences: Sequence[tuple[Divergence, bool]],
    layers: Sequence[LayerEntry],
    accuracy: Mapping[str, Accuracy],
    *,
    witness: str,
    complete: bool,
    board: BoardResult | None,
) -> Verdict:
    """The headline, what was found, and what to do.

    Args:
        models: of the report.
        outputs: of the report.
        divergences: with whether each is a fault.
        layers: of the ledger.
        accuracy: by model, empty without labels.
        witness: a sentence about onnxruntime's default settings, or "".
        complete: False for a partial run.
        board: what a board's dumps gave, or None.
    """
    sentences: list[str] = []
    drops = []
    for model in models[1:]:
        found = accuracy.get(model.key)
        if found is not None and found.lost > found.gained and by_chance(found.lost, found.gained) < SIGNIFICANT:
            drops.append(model.key)
    faults = [d for d, fault in divergences if fault]
    different = [
        d
        for o in outputs
        for d in o.differences
        if not d.exact and (d.sqnr_db is None or d.sqnr_db < FLOAT_ROUNDING_DB)
    ]
    if faults:
        index = min(d.index for d in faults)
        first = [d for d in faults if d.index == index]
        level = DIVERGES
        headline = (
            f"{_listed([d.model for d in first])} wrong {first[0].place} layer '{first[0].layer}' ({first[0].cause})."
        )
    elif drops:
        level = DIVERGES
        headline = f"Accuracy drops in {', '.join(drops)}, more than chance explains, although each layer errs no more "
        headline += "than quantization explains."
    elif board is not None and board.fault:
        level = DIVERGES
        headline = f"The board goes wrong at layer '{board.layer}' ({board.tensor})."
    elif different:
        level = NOISE
        headline = "The models differ, but no layer by more than quantization explains"
        headline += ", and accuracy does not drop beyond chance." if accuracy else "."
    else:
        level = EQUAL
        headline = "All models give the source's results up to float rounding."
    if not complete:
        headline = f"(Partial run.) {headline}"
    for model in models:
        if model.metrics:
            figures = ", ".join(
                f"{m.name} {m.value:.2%} ({m.right} of {m.total})" if m.total else f"{m.name} {m.value:.6g}"
                for m in model.metrics
            )
            found = accuracy.get(model.key)
            changed = ""
            if model.key != SOURCE and found is not None and found.right:
                chance = by_chance(found.lost, found.gained)
                changed = f"; {found.lost} of the source's right answers lost, {found.gained} gained (p = {chance:.2g})"
            sentences.append(f"{model.key}: {figures}{changed}.")
    sentences += [d.text for d, _ in sorted(divergences, key=lambda p: not p[1])]
    if board is not None:
        sentences.append(board.text)
    if witness:
        sentences.append(witness)
    refused = [e for e in layers if e.verdict == REFUSED]
    if refused:
        named = ", ".join(f"'{e.name}' ({e.reason})" for e in refused[:NAMED])
        more = f", and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        stay = "1 layer stays" if len(refused) == 1 else f"{len(refused)} layers stay"
        sentences.append(f"{stay} float: {named}{more}.")
    advice = [d.advice for d, _ in sorted(divergences, key=lambda p: not p[1])]
    if board is not None:
        advice.append(board.advice)
    if witness:
        advice.append(WITNESS_ADVICE)
    return Verdict(level, headline, tuple(sentences), tuple(dict.fromkeys(filter(None, advice))))


def _listed(models: Sequence[str]) -> str:
    if len(models) == 1:
        return f"{models[0]} goes"
    return f"{', '.join(models[:-1])} and {models[-1]} go"
