"""What in an output model is not what the conversion writes: node by node, attribute by attribute, number by number.

The conversion is made once more in memory, under the options that the ledger holds. Whatever differs was changed
afterwards. This asks no data, so that a fault shows that the samples do not reach; what the conversion itself makes of
the source is judged by numbers (``local_errors``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.device.ascend_arithmetic import unpack_deq_scale
from amct_onnx.graph.edit import bodies_of, nodes_of

MISSING, ADDED, REPLACED = "node-missing", "node-added", "node-replaced"
ATTRIBUTE, WIRING, TYPE = "attribute-changed", "wiring-changed", "type-changed"
DECLARATION = "declaration-changed"
SCALE, ZERO_POINT, BIAS, WEIGHT, SIGN, CONSTANT = (
    "scale-fault",
    "zero-point-fault",
    "bias-fault",
    "weight-fault",
    "sign-fault",
    "constant-changed",
)
CHANGES = frozenset({MISSING, ADDED, REPLACED, ATTRIBUTE, WIRING, TYPE, DECLARATION, SIGN, CONSTANT})
"""Causes that only this comparison gives."""
ROUNDED = 2.0**-20
"""Relative: attributes are float32 numbers that were written as text or float64 once."""
INPUT_NAMES = {
    "Conv": ("input", "weights", "bias"),
    "ConvTranspose": ("input", "weights", "bias"),
    "Gemm": ("input", "weights", "bias"),
    "MatMul": ("input", "weights"),
    "AscendDequant": ("input", "scales"),
}
QUANTIZING = {"scale": SCALE, "offset": ZERO_POINT}
QUANTIZERS = frozenset({"AscendQuant", "AscendAntiQuant"})


@dataclass(frozen=True)
class Change:
    """One place where a model is not what the conversion writes.

    Attributes:
        node: its name.
        op_type: of it.
        cause: one of the constants above.
        text: one sentence, without a model's name in front.
        beside: names of nodes beside it in the converted model: the readers of a node that is missing.
    """

    node: str
    op_type: str
    cause: str
    text: str
    beside: tuple[str, ...] = ()


def changes(written: ir.Model, found: ir.Model, source: ir.Model, model: str) -> list[Change]:
    """Every change, in the order of the network.

    Args:
        written: what the conversion writes.
        found: the model beside the ledger.
        source: the normalised source, which tells whether a node is the user's own.
        model: what the model is called.
    """
    return _Comparison(written, found, source, model).changes()


class _Comparison:
    def __init__(self, written: ir.Model, found: ir.Model, source: ir.Model, model: str) -> None:
        self._written, self._found, self._model = written, found, model
        self._source = {n.name or "": n.op_type for n in nodes_of(source)}
        self._is, self._was = nodes_of(found), nodes_of(written)
        self._pairs = _paired(self._was, self._is)
        self._back = {node: was for was, node in self._pairs.items()}

    def changes(self) -> list[Change]:
        made = [(0, c) for c in self._of_declarations()]
        places = {node: i for i, node in enumerate(self._was)}
        for node in self._was:
            at, other = places[node], self._pairs.get(node)
            if other is None:
                made.append((at, self._missing(node)))
                continue
            made += [(at, c) for c in self._of_node(node, other)]
        for node in self._is:
            if node not in self._back:
                made.append((self._place_of_added(node, places), self._added(node)))
        last = len(places)
        for old, new in zip(self._written.graph.outputs, self._found.graph.outputs, strict=False):
            if not self._same(old, new) and not self._explained(old, new):
                text = f"Output '{new.name}' is {self._named(new)}; the conversion gives {self._named(old)}."
                producer = old.producer()
                made.append((last, Change((producer.name or "") if producer else "", "", WIRING, text)))
            if old.dtype is not None and new.dtype is not None and old.dtype != new.dtype:
                text = f"Output '{new.name}' is {new.dtype}; the conversion gives {old.dtype}."
                made.append((last, Change(new.name or "", "", TYPE, text)))
        return [c for _, c in sorted(made, key=lambda m: m[0])]

    def _of_declarations(self) -> Iterator[Change]:
        """The versions of the operators, and the names under which a program feeds and reads the model.

        Shapes are left out: to fix a free batch is no fault, and a session refuses feeds of any other shape.
        """
        was, now = (dict(m.opset_imports) for m in (self._written, self._found))
        if was != now:
            said, held = (", ".join(f"{d or 'ai.onnx'} {v}" for d, v in sorted(o.items())) for o in (was, now))
            text = f"The {self._model} model declares the operators of {held}; the conversion writes {said}."
            yield Change("", "", DECLARATION, text, tuple(n.name or "" for n in self._was[:1]))
        for kind, old, new in (
            ("input", self._written.graph.inputs, self._found.graph.inputs),
            ("output", self._written.graph.outputs, self._found.graph.outputs),
        ):
            for a, b in zip(old, new, strict=False):
                if a.name != b.name:
                    text = f"The {self._model} model's {kind} '{b.name}' is '{a.name}' in the source."
                    producer, readers = a.producer(), tuple(u.node.name or "" for u in a.uses())
                    node = (producer.name or "") if producer else ""
                    yield Change(node, "", DECLARATION, text, tuple(dict.fromkeys(readers)))

    def _missing(self, node: ir.Node) -> Change:
        name = node.name or ""
        if self._source.get(name) == node.op_type:
            text = f"The source has {node.op_type} '{name}' here, the {self._model} model has nothing."
        else:
            text = f"The conversion writes {node.op_type} '{name}' here, the {self._model} model has nothing."
        readers = tuple(dict.fromkeys(u.node.name or "" for v in node.outputs for u in v.uses()))
        return Change(name, node.op_type, MISSING, text, readers)

    def _added(self, node: ir.Node) -> Change:
        around = [u.node for v in node.outputs for u in v.uses()]
        behind = [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
        where = " and ".join(
            f"{side} '{nodes[0].name}'" for side, nodes in (("behind", behind), ("before", around)) if nodes
        )
        where = f" ({where})" if where else ""
        text = f"The {self._model} model has {node.op_type} '{node.name}' here, the source has nothing{where}."
        around += behind
        return Change(node.name or "", node.op_type, ADDED, text, tuple(dict.fromkeys(n.name or "" for n in around)))

    def _place_of_added(self, node: ir.Node, places: Mapping[ir.Node, int]) -> int:
        """In front of the first known node that reads it, directly or not."""
        waiting, seen, best = [node], {node}, len(places)
        while waiting:
            for value in waiting.pop().outputs:
                for use in value.uses():
                    reader = use.node
                    if reader in self._back:
                        best = min(best, places[self._back[reader]])
                    elif reader not in seen:
                        seen.add(reader)
                        waiting.append(reader)
        return best

    def _of_node(self, old: ir.Node, new: ir.Node) -> Iterator[Change]:
        name = old.name or ""
        if (old.op_type, old.domain) != (new.op_type, new.domain):
            whose = "the source" if self._source.get(name) == old.op_type else "the conversion"
            text = f"'{name}' is {old.op_type} in {whose} and {new.op_type} in the {self._model} model."
            yield Change(name, old.op_type, REPLACED, text)
            return
        yield from self._of_attributes(old, new)
        yield from self._of_inputs(old, new)
        if len(old.outputs) != len(new.outputs):
            text = f"{old.op_type} '{name}' has {len(new.outputs)} outputs; the conversion writes {len(old.outputs)}."
            yield Change(name, old.op_type, WIRING, text)
        for was, now in zip(bodies_of(old), bodies_of(new), strict=False):
            for a, b in zip(was.outputs, now.outputs, strict=False):
                if not self._same(a, b) and not self._explained(a, b):
                    text = f"A body of '{name}' gives {self._named(b)} as '{b.name}'; the source {self._named(a)}."
                    yield Change(name, old.op_type, WIRING, text)

    def _of_attributes(self, old: ir.Node, new: ir.Node) -> Iterator[Change]:
        for key in sorted(old.attributes.keys() | new.attributes.keys()):
            a, b = old.attributes.get(key), new.attributes.get(key)
            if a is not None and b is not None and _same_attribute(a, b):
                continue
            cause = QUANTIZING.get(key, ATTRIBUTE) if old.op_type in QUANTIZERS else ATTRIBUTE
            held, said = (_attribute_text(x) for x in (b, a))
            if cause == SCALE and a is not None and b is not None and held == f"-{said}":
                cause = SIGN
            text = f"{old.op_type} '{old.name}' has {key} {held}; the conversion writes {said}."
            yield Change(old.name or "", old.op_type, cause, text)

    def _of_inputs(self, old: ir.Node, new: ir.Node) -> Iterator[Change]:
        was, now = (_trimmed(n.inputs) for n in (old, new))
        name = old.name or ""
        wrong = []
        for index in range(max(len(was), len(now))):
            a, b = (v[index] if index < len(v) else None for v in (was, now))
            fixed = [_constant(v) for v in (a, b)]
            if a is not None and b is not None and all(c is not None for c in fixed):
                change = self._of_constant(old, index, _array(fixed[0]), _array(fixed[1]))
                if change is not None:
                    yield change
            elif not self._same(a, b) and not self._explained(a, b):
                wrong.append((index, a, b))
        if len(wrong) == 2 and len({i for i, _, _ in wrong}) == 2:
            (i, a, b), (j, c, d) = wrong
            if self._same(a, d) and self._same(c, b):
                yield Change(name, old.op_type, WIRING, f"Inputs {i} and {j} of {old.op_type} '{name}' are swapped.")
                return
        for index, a, b in wrong:
            what = _input_name(old.op_type, index)
            if b is None:
                text = f"{old.op_type} '{name}' has no {what}; the conversion gives it {self._named(a)}."
                cause = BIAS if what == "bias" else WIRING
            elif a is None:
                text = f"{old.op_type} '{name}' has a {what}, {self._named(b)}; the conversion writes none."
                cause = BIAS if what == "bias" else WIRING
            else:
                text = f"The {what} of {old.op_type} '{name}' is {self._named(b)}; the conversion gives it "
                text += f"{self._named(a)}."
                cause = WIRING
            yield Change(name, old.op_type, cause, text)

    def _of_constant(self, node: ir.Node, index: int, old: Array, new: Array) -> Change | None:
        what, name = _input_name(node.op_type, index), node.name or ""
        start = f"The {what} of {node.op_type} '{name}'"
        if old.dtype != new.dtype:
            text = f"{start} is {new.dtype}; the conversion writes {old.dtype}."
            return Change(name, node.op_type, TYPE, text)
        if old.shape != new.shape:
            text = f"{start} has shape {list(new.shape)}; the conversion writes {list(old.shape)}."
            return Change(name, node.op_type, ATTRIBUTE, text)
        if what == "scales" and old.dtype == np.uint64:
            scales = [unpack_deq_scale(v.reshape(-1))[0] for v in (old, new)]
            if _differs(*scales).any():  # else it is the fields beside them that differ
                old, new = scales
        differs = _differs(old, new)
        count = int(np.count_nonzero(differs))
        if not count:
            return None
        first = tuple(int(i) for i in np.argwhere(differs)[0]) if old.ndim else ()
        a, b = (_scalar(v[first]) for v in (old, new))
        where = f"all {count}" if count == old.size > 1 else f"{count} of {old.size}"
        text = f"{start}: {where} elements are not what the conversion writes, {b} instead of {a}"
        text += f" at {list(first)}." if first else "."
        if old.size == 1:
            text = f"{start} is {b}; the conversion writes {a}."
        cause = {"weights": WEIGHT, "bias": BIAS, "scales": SCALE}.get(what, CONSTANT)
        if cause == CONSTANT:
            cause = _cause_by_name(name)
        if _negated(old, new, differs):
            cause = SIGN
            text = f"{start}: {where} elements have the other sign, {b} instead of {a}"
            text += f" at {list(first)}." if first else "."
        return Change(name, node.op_type, cause, text)

    def _same(self, old: ir.Value | None, new: ir.Value | None) -> bool:
        """Whether a tensor is the counterpart of another: what the same node gives, the same input, equal constants."""
        if old is None or new is None:
            return old is new
        fixed = _constant(old), _constant(new)
        if fixed[0] is not None and fixed[1] is not None:
            one, other = _array(fixed[0]), _array(fixed[1])
            return one.dtype == other.dtype and one.shape == other.shape and not _differs(one, other).any()
        was, now = old.producer(), new.producer()
        if was is None or now is None:
            return was is now and fixed == (None, None) and old.name == new.name
        return self._pairs.get(was) is now and old.index() == new.index()

    def _explained(self, old: ir.Value | None, new: ir.Value | None) -> bool:
        """Whether a node that is missing or added in between, which is named itself, says enough."""
        if old is None or new is None:
            return False
        for _ in range(len(self._was)):
            producer = old.producer()
            if producer is None or producer in self._pairs or not producer.inputs or producer.inputs[0] is None:
                break
            old = producer.inputs[0]
        for _ in range(len(self._is)):
            producer = new.producer()
            if producer is None or producer in self._back or not producer.inputs or producer.inputs[0] is None:
                break
            new = producer.inputs[0]
        return self._same(old, new)

    def _named(self, value: ir.Value | None) -> str:
        if value is None:
            return "nothing"
        if _constant(value) is not None:
            return f"constant '{value.name}'"
        producer = value.producer()
        if producer is None:
            return f"input '{value.name}'"
        return f"what {producer.op_type} '{producer.name}' gives"


def _paired(was: Sequence[ir.Node], now: Sequence[ir.Node]) -> dict[ir.Node, ir.Node]:
    """Nodes of the same name; a second one of that name has no counterpart."""
    by_name: dict[str, list[ir.Node]] = {}
    for node in now:
        by_name.setdefault(node.name or "", []).append(node)
    found = {}
    for node in was:
        same = by_name.get(node.name or "", [])
        best = next((n for n in same if n.op_type == node.op_type and _output(n) == _output(node)), None)
        best = best or next((n for n in same if n.op_type == node.op_type), None) or next(iter(same), None)
        if best is not None:
            same.remove(best)
            found[node] = best
    return found


def _output(node: ir.Node) -> str:
    return (node.outputs[0].name or "") if node.outputs else ""


def _trimmed(inputs: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """Without the empty inputs at the end."""
    kept = list(inputs)
    while kept and kept[-1] is None:
        kept.pop()
    return kept


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of a node Constant."""
    if value is None:
        return None
    if value.const_value is not None and value.producer() is None:
        return value.const_value
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].as_tensor()
    return None


def _array(tensor: ir.TensorProtocol | None) -> Array:
    assert tensor is not None
    return np.asarray(tensor.numpy())


def _differs(a: Array, b: Array) -> Array:
    """Elementwise; NaN equals NaN, and -0 equals 0."""
    different = np.asarray(a != b)
    if a.dtype.kind == "f":
        different &= ~(np.isnan(a) & np.isnan(b))
    return different


def _negated(a: Array, b: Array, differs: Array) -> bool:
    """Whether every element that differs has changed its sign alone (of -128, int8 keeps 127 at most)."""
    if a.dtype.kind not in "fi" or a.dtype.itemsize > 4 and a.dtype.kind == "i" and a.ndim == 0:
        return False
    one, other = a[differs].astype(np.float64), b[differs].astype(np.float64)
    if a.dtype == np.int8:
        return bool((np.clip(-one, -128, 127) == other).all())
    return bool((one == -other).all())


def _scalar(value: Array) -> str:
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _input_name(op_type: str, index: int) -> str:
    names = INPUT_NAMES.get(op_type, ())
    return names[index] if index < len(names) else f"input {index}"


def _cause_by_name(node: str) -> str:
    """What a constant of a quantizer written as standard operators is; the conversion names these nodes itself."""
    part = node.rpartition(".")[2]
    if ".fakequant" in node or ".fakedequant" in node or node.endswith(".rescale"):
        return (
            ZERO_POINT if part in ("add", "sub") else SCALE if part in ("mul", "rescale", "fakedequant") else CONSTANT
        )
    return CONSTANT


def _same_attribute(a: ir.Attr, b: ir.Attr) -> bool:
    if a.type != b.type:
        return False
    if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return True  # their nodes are compared themselves
    if a.is_ref() or b.is_ref():
        return a.ref_attr_name == b.ref_attr_name
    if a.type == ir.AttributeType.TENSOR:
        one, other = _array(a.as_tensor()), _array(b.as_tensor())
        return one.dtype == other.dtype and one.shape == other.shape and not _differs(one, other).any()
    if a.type == ir.AttributeType.FLOAT:
        return bool(np.isclose(a.as_float(), b.as_float(), rtol=ROUNDED, atol=0, equal_nan=True))
    if a.type == ir.AttributeType.FLOATS:
        one, other = np.asarray(a.as_floats()), np.asarray(b.as_floats())
        return one.shape == other.shape and bool(np.allclose(one, other, rtol=ROUNDED, atol=0, equal_nan=True))
    if a.type in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
        return list(a.value) == list(b.value)
    return bool(a.value == b.value)


def _attribute_text(attribute: ir.Attr | None) -> str:
    if attribute is None:
        return "nothing"
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype}{list(tensor.shape)}" if tensor.size > 1 else _scalar(_array(tensor).reshape(-1)[0])
    if attribute.type == ir.AttributeType.FLOAT:
        return f"{attribute.as_float():.6g}"
    return repr(attribute.value) if isinstance(attribute.value, str) else str(attribute.value)
