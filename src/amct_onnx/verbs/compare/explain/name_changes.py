"""A fault that the numbers show and the node that was changed, as one divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amct_onnx.verbs.compare.explain.beside_ledger import Located
from amct_onnx.verbs.compare.explain.change import ADDED, CHANGES, MISSING, REPLACED
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
    others = dict.fromkeys((c.change.node, c.change.cause) for c in located)
    rest = [o for o in others if o != (change.node, change.cause)]
    more = ""
    if rest:
        names = ", ".join(f"'{node}' ({cause})" for node, cause in rest[:MAX_NAMED])
        unnamed = f" and {len(rest) - MAX_NAMED} more" if len(rest) > MAX_NAMED else ""
        more = f" Other than converted are also {names}{unnamed}."
    if shown is None:
        text = f"{change.text}{more}"
        text += " With these data the numbers alone do not tell it from quantization." if judged else ""
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


def _most_telling(located: Sequence[Located]) -> Located:
    """The first of the network; of those at one place, a node that is missing or new before what it leaves behind."""
    here = [c for c in located if c.index == located[0].index and c.place == located[0].place]
    return next((c for c in here if c.change.cause in (MISSING, ADDED, REPLACED)), here[0])
