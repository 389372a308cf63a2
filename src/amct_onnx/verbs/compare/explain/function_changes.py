"""Local functions of an output model that the conversion does not write.

A function takes the place of the operator whose name it has, also of one of ONNX itself: then every node that calls it
computes something else, though no node differs.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of
from amct_onnx.verbs.compare.explain.change import ADDED, MISSING, REPLACED, Change


def function_changes(written: ir.Model | None, found: ir.Model, model: str) -> Iterator[Change]:
    """Functions that one of two models has alone, or with another content.

    Args:
        written: what the conversion writes; None when that is not known: it inlines all functions.
        found: the model beside the ledger.
        model: what the model is called.
    """
    was = dict(written.functions) if written is not None else {}
    calls = nodes_of(found)
    for key in dict.fromkeys((*was, *found.functions)):
        old, new = was.get(key), found.functions.get(key)
        if old is not None and new is not None and _content(old) == _content(new):
            continue
        callers = [n.name or "" for n in calls if n.op_identifier() == key]
        domain, name, _ = key
        which = f"'{name}' of {domain or 'ai.onnx'}"
        if new is None:
            text, cause = f"The conversion writes the function {which}, the {model} model has none.", MISSING
        elif old is None:
            text = f"The {model} model has a function {which} of its own; the conversion writes none."
            cause = REPLACED if callers else ADDED
        else:
            text, cause = f"The function {which} of the {model} model is not what the conversion writes.", REPLACED
        if callers:
            more = f" and {len(callers) - 1} more" if len(callers) > 1 else ""
            text += f" It computes '{callers[0]}'{more}."
        yield Change(callers[0] if callers else "", name, cause, text, tuple(callers))


def _content(function: ir.Function) -> bytes:
    content: bytes = ir.serde.serialize_function(function).SerializeToString(deterministic=True)
    return content
