"""What in a ledger is not what its conversion writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amct_onnx.verbs.convert.report import ConversionReport

NOT_COMPARED = frozenset({"model_file", "deploy_model", "fake_quant_model", "ledger_file", "record_file", "check"})
"""Paths, which may be others; and what ``amct_onnx check`` found, which depends on the chip and nothing here uses."""
ROUNDED = 2.0**-20
"""Relative: sums of float64 numbers, which another CPU adds in another order."""
MAX_TEXT = 60
NAMES = ("name", "tensor")
"""Fields that tell which entry of a list it is."""


def ledger_changes(stated: Mapping[str, Any], made: ConversionReport) -> list[str]:
    """One text for each value that differs, in the order of the ledger.

    Args:
        stated: the ledger's content.
        made: what the conversion writes.
    """
    left_out = NOT_COMPARED
    if made.origin is not None and made.origin.record is not None:
        left_out |= {"warnings"}  # those of the float model's file are not told again
    wanted = made.to_dict()
    return [t for key in wanted if key not in left_out for t in _differing(f"$.{key}", stated.get(key), wanted[key])]


def _differing(place: str, stated: Any, wanted: Any) -> Iterator[str]:
    """Where two JSON values differ."""
    if isinstance(wanted, Mapping) and isinstance(stated, Mapping):
        for key in dict.fromkeys((*wanted, *stated)):
            yield from _differing(f"{place}.{key}", stated.get(key), wanted.get(key))
    elif _is_list(wanted) and _is_list(stated):
        if len(wanted) != len(stated):
            yield f"{place} has {_entries(stated)}; the conversion writes {len(wanted)}"
        for index, (a, b) in enumerate(zip(stated, wanted, strict=False)):
            yield from _differing(f"{place}[{index}]{_name(b)}", a, b)
    elif not _same(stated, wanted):
        yield f"{place} is {_short(stated)}; the conversion writes {_short(wanted)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same(stated: Any, wanted: Any) -> bool:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (stated, wanted))
    if numbers and (isinstance(stated, float) or isinstance(wanted, float)):
        return math.isclose(stated, wanted, rel_tol=ROUNDED)
    return type(stated) is type(wanted) and bool(stated == wanted)


def _entries(value: Sequence[Any]) -> str:
    return "1 entry" if len(value) == 1 else f"{len(value)} entries"


def _name(value: Any) -> str:
    if not isinstance(value, Mapping):
        return ""
    named = next((value[n] for n in NAMES if value.get(n)), "")
    return f" ('{named}')" if named else ""


def _short(value: Any) -> str:
    if isinstance(value, Mapping) or _is_list(value):
        return _entries(list(value)) if len(value) else "empty"
    text = repr(value) if isinstance(value, str) else "null" if value is None else str(value).lower()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
