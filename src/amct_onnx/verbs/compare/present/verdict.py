"""The answer in words."""

from __future__ import annotations

from collections.abc import Sequence

from amct_onnx.common.counted import counted
from amct_onnx.errors import as_typed
from amct_onnx.plan.ledger import REFUSED, LayerEntry
from amct_onnx.verbs.compare.explain.unlike_outputs import Unlike
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.present.fault_words import grouped, of_faults
from amct_onnx.verbs.compare.present.found import Found, listed_models
from amct_onnx.verbs.compare.present.losses import (
    cost_of_fault,
    figures_of,
    kept_metric,
    of_loss,
    too_few,
    too_large,
)
from amct_onnx.verbs.compare.report import DIVERGES, EQUAL, INCOMPLETE, NOISE, Level, Verdict

FLOAT_ROUNDING_DB = 90.0
"""SQNR of an output from which on two models differ by float32's rounding alone (about 2^-15 of the RMS)."""
WITNESS_ADVICE = (
    "Measure the source with session.disable_quant_qdq=1 and optimisations off (amct_onnx.AMCT_SO); 'amct_onnx doctor' "
    "shows each setting's error on this CPU."
)
LABELS_TELL = (
    "What to do: give --labels, or --evaluator and --max_drop: what the answers lose tells whether this is fit."
)
MAX_BRIEF = 4
"""Sentences below the headline on a terminal: where, what it costs, why, what to do."""
NAMED = 5
"""Refused layers named in the verdict."""


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
    sentences += [figures_of(m, found.accuracy.get(m.key)) for m in measured if m.metrics]
    few = too_few(found)
    sentences += [few]
    sentences += [f"{listed_models(who)}: {d.text}" for d, who in grouped(found.faults)]
    sentences += [d.text for d in noise]
    advice = [d.todo for d in found.doubts]
    advice += [f"{listed_models(who)}: {d.advice}" for d, who in grouped(found.faults) if d.advice]
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
    losing, drops = too_large(found)
    if found.faults:
        level, headline, (where, *lines) = of_faults(found.faults, len(found.models) - 1)
        return level, headline, [where, cost_of_fault(found, drops), *lines]
    if drops:
        return DIVERGES, f"Accuracy drops: {'; '.join(drops)}.", of_loss(found, losing)
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
    who = listed_models([m.key for m in found.models[1:]])
    one = len(found.models) == 2
    kept = kept_metric(found.models)
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
    if measured and (found.max_drop is not None or (found.accuracy and not too_few(found))):
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
    return f"{listed_models(who)} {'does' if len(who) == 1 else 'do'} not resemble the source"


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


def _stay_float(refused: Sequence[LayerEntry]) -> str:
    named = ", ".join(f"'{e.name}' ({e.reason})" for e in refused[:NAMED])
    more = f", and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    return f"{counted(len(refused), 'layer stays', 'layers stay')} float: {named}{more}."
