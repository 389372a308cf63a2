"""What an output model declares otherwise than the conversion: versions, and names and types of inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx_ir as ir

from amct_onnx.verbs.compare.explain.change import DECLARATION, TYPE, Change


def declaration_changes(
    written: ir.Model, found: ir.Model, model: str, known: Mapping[ir.Node, ir.Node]
) -> Iterator[Change]:
    """The versions of the operators, and the names under which a program feeds and reads the model.

    Of the shapes of inputs those that contradict: to fix a free batch is no fault.
    """
    first = tuple(n.name or "" for n in list(written.graph)[:1])
    versions = [m.ir_version for m in (written, found)]
    if versions[1] != versions[0]:
        text = f"The {model} model declares IR version {versions[1]}; the conversion writes {versions[0]}."
        yield Change("", "", DECLARATION, text, first)
    was, now = (dict(m.opset_imports) for m in (written, found))
    if was != now:
        said, held = (", ".join(f"{d or 'ai.onnx'} {v}" for d, v in sorted(o.items())) for o in (was, now))
        text = f"The {model} model declares the operators of {held}; the conversion writes {said}."
        yield Change("", "", DECLARATION, text, first)
    for kind, old, new in (
        ("input", written.graph.inputs, found.graph.inputs),
        ("output", written.graph.outputs, found.graph.outputs),
    ):
        for a, b in zip(old, new, strict=False):
            if a.name != b.name:
                text = f"The {model} model's {kind} '{b.name}' is '{a.name}' in the source."
                yield _declared(text, a)
            elif kind == "input" and a.dtype is not None and a.dtype != b.dtype:
                declared = "declared without a type" if b.dtype is None else b.dtype
                text = f"Input '{b.name}' is {declared}; the conversion writes {a.dtype}."
                yield replace(_declared(text, a), cause=TYPE)
            elif kind == "input" and other_sizes(a, b):
                text = f"Input '{b.name}' is declared with shape {b.shape}; the conversion writes {a.shape}."
                yield _declared(text, a)
        for a in old[len(new) :]:
            yield _declared(f"The source has the {kind} '{a.name}', the {model} model has not.", a)
        for b in new[len(old) :]:
            text = f"The {model} model has the {kind} '{b.name}', the source has not."
            yield _declared(text, b, known)


def other_sizes(a: ir.Value, b: ir.Value) -> bool:
    """Whether two tensors are declared with sizes that contradict each other; a free dimension contradicts none."""
    if a.shape is None or b.shape is None:
        return False
    pairs = zip(a.shape, b.shape, strict=False)
    return other_rank(a, b) or any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in pairs)


def other_rank(a: ir.Value, b: ir.Value) -> bool:
    """Whether two tensors are declared with another number of axes."""
    return a.shape is not None and b.shape is not None and len(a.shape) != len(b.shape)


def _declared(text: str, value: ir.Value, known: Mapping[ir.Node, ir.Node] | None = None) -> Change:
    """A change of an input or output, at the node that makes it, else at the first that reads it.

    ``known`` leads from nodes of the model to those of the converted one.
    """
    around = [p for p in (value.producer(), *(u.node for u in value.uses())) if p is not None]
    if known is not None:
        around = [known[n] for n in around if n in known]
    names = tuple(dict.fromkeys(n.name or "" for n in around))
    return Change(names[0] if names else "", "", DECLARATION, text, names)
