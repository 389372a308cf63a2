"""A fault that the numbers show and the node that was changed, as one divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amct_onnx.verbs.compare.causes import AT, BEFORE, BEHIND, Side
from amct_onnx.verbs.compare.explain.beside_ledger import Located
from amct_onnx.verbs.compare.explain.change import ADDED, CHANGES, DECLARATION, MISSING, REPLACED
from amct_onnx.verbs.compare.explain.faults import CONVERT_AGAIN, OVERFLOW, SATURATION
from amct_onnx.verbs.compare.report import Divergence

EFFECTS = frozenset({SATURATION, OVERFLOW})
"""What the numbers tell of another factor or constant better than its name: what it does."""
MAX_NAMED = 3
"""Further changes that are named."""


def with_changes(
    model: str, found: Divergence | None, located: Sequence[Located], *, judged: bool
) -> Divergence | None:
    """The divergence of a model whose file is not what the conversion writes.

    The changed node comes first, and its cause; that of the numbers is kept where it tells what the change does.

    Args:
        model: key of the model.
        found: what the numbers show, or None.
        located: the changes in the order of the network.
        judged: whether the numbers of all layers could be compared.
    """
    if not located:
        return found
    shown = found if found is not None and found.is_fault else None
    near = [c for c in located if shown is not None and c.index == shown.index]
    first = near[0] if near and near[0].index <= located[0].index else _most_telling(located)
    change = first.change
    other = _nearer(shown, first, located) if shown is not None else None
    more = _also(located, [first] if other is None else [first, other])
    if shown is None or other is not None:
        alone = " With these data the numbers alone do not tell it from quantization." if judged else ""
        text = f"{change.text}{more}{alone}"
        if shown is not None and other is not None:
            text = f"{change.text}{alone} Besides: {other.change.text} {shown.text}{more}"
        here = (first.place, change.node)
        return Divergence(model, first.layer, first.index, change.cause, text, CONVERT_AGAIN, 0.0, 0.0, *here)
    if shown.index < first.index:  # the conversion itself is wrong before it
        return replace(shown, text=f"{shown.text} Besides: {change.text}{more}")
    cause, place = change.cause, first.place
    if shown.index == first.index and change.cause not in CHANGES and shown.cause in EFFECTS:
        cause, place = shown.cause, shown.place
    return replace(
        shown,
        layer=first.layer,
        index=first.index,
        cause=cause,
        place=place,
        node=change.node,
        text=f"{change.text} {shown.text}{more}",
        advice=CONVERT_AGAIN,
    )


def _nearer(shown: Divergence, first: Located, located: Sequence[Located]) -> Located | None:
    """Another change, between the first and what the numbers show, to which the numbers belong; None without one.

    What is judged by its own numbers inherits nothing. What a file declares changes none.
    """
    start, end = _order(first.index, first.place), _order(shown.index, shown.place)
    between = (c for c in located if c.change.cause != DECLARATION and start < _order(c.index, c.place) <= end)
    return max(between, key=lambda c: _order(c.index, c.place), default=None)


def _order(index: int, place: Side) -> tuple[int, int]:
    return index, (BEFORE, AT, BEHIND).index(place)


def _also(located: Sequence[Located], told: Sequence[Located]) -> str:
    """The further changes, each node and cause once."""
    known = {(c.change.node, c.change.cause) for c in told}
    rest = [o for o in dict.fromkeys((c.change.node, c.change.cause) for c in located) if o not in known]
    if not rest:
        return ""
    names = ", ".join(
        f"'{node}' ({cause})" if node else f"the model as a whole ({cause})" for node, cause in rest[:MAX_NAMED]
    )
    unnamed = f" and {len(rest) - MAX_NAMED} more" if len(rest) > MAX_NAMED else ""
    return f" Other than converted are also {names}{unnamed}."


def _most_telling(located: Sequence[Located]) -> Located:
    """The first of the network; of those at one place, a node that is missing or new before what it leaves behind."""
    here = [c for c in located if c.index == located[0].index and c.place == located[0].place]
    return next((c for c in here if c.change.cause in (MISSING, ADDED, REPLACED)), here[0])
