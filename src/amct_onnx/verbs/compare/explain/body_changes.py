"""The bodies of If, Loop and Scan side by side: bodies by the attribute's name, their inputs by name and order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from amct_onnx.verbs.compare.explain.change import DECLARATION, TYPE, WIRING, Change
from amct_onnx.verbs.compare.explain.declarations import other_sizes

SWAPPED = " have exchanged their places."


def paired_bodies(old: ir.Node, new: ir.Node) -> Iterator[tuple[str, ir.Graph, ir.Graph]]:
    """Name of the attribute, body of the one node, body of the other; the order of the attributes means nothing."""
    for key, a in old.attributes.items():
        b = new.attributes.get(key)
        if b is None or a.type != b.type or a.is_ref() or b.is_ref():
            continue
        if a.type == ir.AttributeType.GRAPH:
            yield key, a.as_graph(), b.as_graph()
        elif a.type == ir.AttributeType.GRAPHS:
            for was, now in zip(a.as_graphs(), b.as_graphs(), strict=False):
                yield key, was, now


def paired_inputs(was: ir.Graph, now: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The inputs of two bodies: of the same name; by their place where they have other names."""
    names = {v.name: v for v in now.inputs}
    if {v.name for v in was.inputs} == names.keys():
        yield from ((v, names[v.name]) for v in was.inputs)
    else:
        yield from zip(was.inputs, now.inputs, strict=False)


def interface_changes(node: ir.Node, key: str, was: ir.Graph, now: ir.Graph, *, sizes: bool) -> Iterator[Change]:
    """Number, order, types and declared sizes of what enters and leaves a body.

    Args:
        node: holds the body, as the conversion writes it.
        key: name of the attribute.
        was: what the conversion writes.
        now: what the model has.
        sizes: whether sizes can be compared, see ``other_sizes``.
    """
    name = node.name or ""
    for kind, before, after in (("input", was.inputs, now.inputs), ("output", was.outputs, now.outputs)):
        if len(before) != len(after):
            text = f"The {key} of '{name}' has {len(after)} {kind}s; the conversion writes {len(before)}."
            yield Change(name, node.op_type, WIRING, text)
            continue
        order = exchanged(before, after) if kind == "input" else ""  # what leaves is held against what makes it
        if order:
            yield Change(name, node.op_type, WIRING, f"Inputs {order} of the {key} of {node.op_type} '{name}'{SWAPPED}")
            continue
        for a, b in zip(before, after, strict=True):
            start = f"The {kind} '{b.name}' of the {key} of '{name}' is declared"
            if None not in (a.dtype, b.dtype) and a.dtype != b.dtype:
                text = f"{start} as {b.dtype}; the conversion writes {a.dtype}."
                yield Change(name, node.op_type, TYPE, text)
            elif sizes and other_sizes(a, b):
                text = f"{start} with shape {b.shape}; the conversion writes {a.shape}."
                yield Change(name, node.op_type, DECLARATION, text)


def exchanged(before: Sequence[ir.Value], after: Sequence[ir.Value]) -> str:
    """``'a' and 'b'`` when the same names stand in another order, else ""."""
    names = [v.name for v in before], [v.name for v in after]
    if names[0] == names[1] or sorted(map(str, names[0])) != sorted(map(str, names[1])):
        return ""
    moved = [f"'{a}'" for a, b in zip(*names, strict=True) if a != b]
    return f"{', '.join(moved[:-1])} and {moved[-1]}"
