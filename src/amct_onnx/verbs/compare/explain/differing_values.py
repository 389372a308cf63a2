"""Two values of a constant or an attribute, and the text that tells them apart."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.verbs.compare.causes import FaultCause
from amct_onnx.verbs.compare.explain.change import SIGN, TYPE, Change

DIGITS = (6, 9, 17)
"""Significant digits: as few as tell two numbers apart. 9 tell any two float32 numbers apart, 17 any float64."""
MAX_SHOWN = 8
"""Numbers of a list that are shown."""


def array_change(node: ir.Node, start: str, cause: FaultCause, old: Array, new: Array) -> Change | None:
    """Where the numbers of a constant differ; None when they do not."""
    name = node.name or ""
    if old.dtype != new.dtype:
        text = f"{start}: the type is {new.dtype}; the conversion writes {old.dtype}."
        return Change(name, node.op_type, TYPE, text)
    if old.shape != new.shape:
        text = f"{start}: the shape is {list(new.shape)}; the conversion writes {list(old.shape)}."
        return Change(name, node.op_type, cause, text)
    changed = differs(old, new)
    count = int(np.count_nonzero(changed))
    if not count:
        return None
    first = tuple(int(i) for i in np.argwhere(changed)[0]) if old.ndim else ()
    a, b = _two_numbers(old[first], new[first])
    where = "1 element is" if count == 1 else f"{count} of {old.size} elements are"
    where = f"all {count} elements are" if count == old.size > 1 else where
    at = f" at {list(first)}" if first else ""
    if _negated(old, new, changed):
        sign = where.replace(" is", " has").replace(" are", " have")
        return Change(name, node.op_type, SIGN, f"{start}: {sign} the other sign, {b} instead of {a}{at}.")
    text = f"{start}: {where} not what the conversion writes, {b} instead of {a}{at}."
    if old.size == 1:
        text = f"{start}: {b}; the conversion writes {a}."
    return Change(name, node.op_type, cause, text)


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of a node Constant."""
    if value is None:
        return None
    if value.const_value is not None and value.producer() is None:
        return value.const_value
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor()
    return None


def array_of(tensor: ir.TensorProtocol | None) -> Array:
    """The numbers of a tensor that is there."""
    assert tensor is not None
    return np.asarray(tensor.numpy())


def differs(a: Array, b: Array) -> Array:
    """Elementwise; NaN equals NaN, and -0 equals 0."""
    different = np.asarray(a != b)
    if a.dtype.kind == "f":
        different &= ~(np.isnan(a) & np.isnan(b))
    return different


def _negated(a: Array, b: Array, changed: Array) -> bool:
    """Whether every element that differs has changed its sign alone (of -128, int8 keeps 127 at most)."""
    if a.dtype.kind not in "fi" or a.dtype.itemsize > 4 and a.dtype.kind == "i" and a.ndim == 0:
        return False
    one, other = a[changed].astype(np.float64), b[changed].astype(np.float64)
    if a.dtype == np.int8:
        return bool((np.clip(-one, -128, 127) == other).all())
    return bool((one == -other).all())


def _scalar(value: Array, digits: int = DIGITS[0]) -> str:
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.{digits}g}" if isinstance(number, float) else str(number)


def _two_numbers(one: Array, other: Array) -> tuple[str, str]:
    """Two numbers that differ, with as many digits as show it."""
    texts = [(_scalar(one, digits), _scalar(other, digits)) for digits in DIGITS]
    return next(((a, b) for a, b in texts if a != b), texts[-1])


def same_attribute(a: ir.Attr, b: ir.Attr) -> bool:
    """Whether two attributes say the same; floats are those of a file, float32, to the last bit."""
    if a.type != b.type:
        return False
    if a.is_ref() or b.is_ref():
        return a.ref_attr_name == b.ref_attr_name
    if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):  # their nodes are compared themselves
        return a.type == ir.AttributeType.GRAPH or len(a.as_graphs()) == len(b.as_graphs())
    if a.type == ir.AttributeType.TENSOR:
        return _equal(array_of(a.as_tensor()), array_of(b.as_tensor()))
    if a.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        return _equal(np.asarray(a.value, np.float32), np.asarray(b.value, np.float32))
    if a.type in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
        return list(a.value) == list(b.value)
    return bool(a.value == b.value)


def _equal(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and not differs(a, b).any()


def numbers_of(attribute: ir.Attr | None) -> Array | None:
    """The numbers of a tensor, or of a list that is too long to be shown; None for another attribute."""
    if attribute is None or attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        return array_of(attribute.as_tensor())
    lists = {ir.AttributeType.INTS: np.int64, ir.AttributeType.FLOATS: np.float32}
    if attribute.type in lists and len(attribute.value) > MAX_SHOWN:
        return np.asarray(attribute.value, lists[attribute.type])
    return None


def told_apart(a: ir.Attr | None, b: ir.Attr | None) -> tuple[str, str]:
    """Two attributes that differ, in texts that differ as well."""
    texts = [(_attribute_text(a, digits), _attribute_text(b, digits)) for digits in DIGITS]
    one, other = next(((x, y) for x, y in texts if x != y), texts[-1])
    if one == other and a is not None and b is not None:
        return f"{one} ({a.type.name})", f"{other} ({b.type.name})"
    return one, other


def _attribute_text(attribute: ir.Attr | None, digits: int) -> str:
    if attribute is None:
        return "nothing"
    if attribute.is_ref():
        return f"a reference to '{attribute.ref_attr_name}'"
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        shown = f"{tensor.dtype}{list(tensor.shape)}"
        return shown if tensor.size != 1 else _scalar(array_of(tensor).reshape(-1)[0], digits)
    if attribute.type == ir.AttributeType.FLOAT:
        return f"{attribute.as_float():.{digits}g}"
    if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
        shown = ", ".join(f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in attribute.value[:MAX_SHOWN])
        return f"[{shown}{', ...' if len(attribute.value) > MAX_SHOWN else ''}]"
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "a body"
    return repr(attribute.value) if isinstance(attribute.value, str) else str(attribute.value)
