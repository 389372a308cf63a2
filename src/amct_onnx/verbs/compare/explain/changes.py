"""What in an output model is not what the conversion writes: node by node, attribute by attribute, number by number.

The conversion is made once more in memory, under the options that the ledger holds. Whatever differs was changed
afterwards. This asks no data, so that a fault shows that the samples do not reach; what the conversion itself makes of
the source is judged by numbers (``local_errors``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.device.ascend_arithmetic import unpack_deq_scale
from amct_onnx.graph.edit import nodes_of
from amct_onnx.verbs.compare.causes import FaultCause
from amct_onnx.verbs.compare.explain.body_changes import (
    SWAPPED,
    exchanged,
    interface_changes,
    paired_bodies,
    paired_inputs,
)
from amct_onnx.verbs.compare.explain.change import (
    ADDED,
    ATTRIBUTE,
    BIAS,
    CONSTANT,
    DECLARATION,
    MISSING,
    REPLACED,
    SCALE,
    SIGN,
    TYPE,
    WEIGHT,
    WIRING,
    ZERO_POINT,
    Change,
)
from amct_onnx.verbs.compare.explain.declarations import declaration_changes, other_rank, other_sizes
from amct_onnx.verbs.compare.explain.differing_values import (
    array_change,
    array_of,
    constant_of,
    differs,
    numbers_of,
    same_attribute,
    told_apart,
)
from amct_onnx.verbs.compare.explain.function_changes import function_changes

INPUT_NAMES = {
    "Conv": ("input", "weights", "bias"),
    "ConvTranspose": ("input", "weights", "bias"),
    "Gemm": ("input", "weights", "bias"),
    "MatMul": ("input", "weights"),
    "AscendDequant": ("input", "scales"),
}
QUANTIZING = {"scale": SCALE, "offset": ZERO_POINT}
QUANTIZERS = frozenset({"AscendQuant", "AscendAntiQuant"})


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
        bodies = [b for was, node in self._pairs.items() for b in paired_bodies(was, node)]
        self._inputs = dict(pair for _, was, now in bodies for pair in paired_inputs(was, now))
        ends = zip(written.graph.inputs, found.graph.inputs, strict=False)
        self._same_inputs = not any(other_sizes(a, b) for a, b in ends)

    def changes(self) -> list[Change]:
        made = [(0, c) for c in declaration_changes(self._written, self._found, self._model, self._back)]
        made += [(0, c) for c in function_changes(self._written, self._found, self._model)]
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
                made.append((last, _at_producer(old, WIRING, text)))
            if old.dtype is not None and new.dtype is not None and old.dtype != new.dtype:
                text = f"Output '{new.name}' is {new.dtype}; the conversion gives {old.dtype}."
                made.append((last, Change(new.name or "", "", TYPE, text)))
            if other_rank(old, new) or self._same_inputs and other_sizes(old, new):
                text = f"Output '{new.name}' is declared with shape {new.shape}; the conversion writes {old.shape}."
                made.append((last, _at_producer(old, DECLARATION, text)))
        return [c for _, c in sorted(made, key=lambda m: m[0])]

    def _of_tensors(self, old: ir.Node, new: ir.Node) -> Iterator[Change]:
        """What a file declares of the tensors between its nodes: a session refuses a model of false ones.

        Only of what both declare. Sizes count where the inputs have theirs: they follow a batch that was fixed.
        """
        order = exchanged(old.outputs, new.outputs)
        if order:
            text = f"Outputs {order} of {old.op_type} '{old.name}'{SWAPPED}"
            yield Change(old.name or "", old.op_type, WIRING, text)
            return
        for a, b in zip(old.outputs, new.outputs, strict=False):
            if a.dtype is not None and b.dtype is not None and a.dtype != b.dtype and not b.is_graph_output():
                text = f"Tensor '{b.name}', which {new.op_type} '{new.name}' gives, is declared as {b.dtype}; the "
                yield Change(old.name or "", old.op_type, TYPE, f"{text}conversion writes {a.dtype}.")
            elif self._same_inputs and other_sizes(a, b) and not b.is_graph_output():
                text = f"Tensor '{b.name}', which {new.op_type} '{new.name}' gives, is declared with shape {b.shape}; "
                yield Change(old.name or "", old.op_type, DECLARATION, f"{text}the conversion writes {a.shape}.")

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
            meant, given = old.op_type, new.op_type
            if meant == given:
                meant, given = (f"{n.op_type} of {n.domain or 'ai.onnx'}" for n in (old, new))
            text = f"'{name}' is {meant} in {whose} and {given} in the {self._model} model."
            yield Change(name, old.op_type, REPLACED, text)
            return
        yield from self._of_attributes(old, new)
        yield from self._of_inputs(old, new)
        yield from self._of_tensors(old, new)
        if len(old.outputs) != len(new.outputs):
            has = counted(len(new.outputs), "output")
            text = f"{old.op_type} '{name}' has {has}; the conversion writes {len(old.outputs)}."
            yield Change(name, old.op_type, WIRING, text)
        for key, was, now in paired_bodies(old, new):
            yield from interface_changes(old, key, was, now, sizes=self._same_inputs)
            for a, b in zip(was.outputs, now.outputs, strict=False):
                if not self._same(a, b) and not self._explained(a, b):
                    text = f"The {key} of '{name}' gives {self._named(b)} as '{b.name}'; the source {self._named(a)}."
                    yield Change(name, old.op_type, WIRING, text)

    def _of_attributes(self, old: ir.Node, new: ir.Node) -> Iterator[Change]:
        for key in sorted(old.attributes.keys() | new.attributes.keys()):
            a, b = old.attributes.get(key), new.attributes.get(key)
            if a is not None and b is not None and same_attribute(a, b):
                continue
            cause = QUANTIZING.get(key, ATTRIBUTE) if old.op_type in QUANTIZERS else ATTRIBUTE
            cause = CONSTANT if old.op_type == "Constant" else cause
            arrays = [numbers_of(x) for x in (a, b)]
            if arrays[0] is not None and arrays[1] is not None:
                made = array_change(old, f"The {key} of {old.op_type} '{old.name}'", cause, arrays[0], arrays[1])
                if made is not None:
                    yield made
                continue
            said, held = told_apart(a, b)
            if cause == SCALE and a is not None and b is not None and held == f"-{said}":
                cause = SIGN
            has, wrote = f"no {key}" if b is None else f"{key} {held}", "none" if a is None else said
            text = f"{old.op_type} '{old.name}' has {has}; the conversion writes {wrote}."
            yield Change(old.name or "", old.op_type, cause, text)

    def _of_inputs(self, old: ir.Node, new: ir.Node) -> Iterator[Change]:
        was, now = (_trimmed(n.inputs) for n in (old, new))
        name = old.name or ""
        wrong = []
        for index in range(max(len(was), len(now))):
            a, b = (v[index] if index < len(v) else None for v in (was, now))
            fixed = [constant_of(v) for v in (a, b)]
            if a is not None and b is not None and all(c is not None for c in fixed):
                node = a.producer()
                if node is not None and self._pairs.get(node) is b.producer():
                    continue  # the node Constant is compared itself
                change = self._of_constant(old, index, array_of(fixed[0]), array_of(fixed[1]))
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
                given, meant = self._named(b), self._named(a)
                if given == meant:
                    given, meant = f"{given} ('{b.name}')", f"{meant} ('{a.name}')"
                text = f"The {what} of {old.op_type} '{name}' is {given}; the conversion gives it {meant}."
                cause = WIRING
            yield Change(name, old.op_type, cause, text)

    def _of_constant(self, node: ir.Node, index: int, old: Array, new: Array) -> Change | None:
        what = _input_name(node.op_type, index)
        if what == "scales" and old.dtype == new.dtype == np.uint64:
            scales = [unpack_deq_scale(v.reshape(-1))[0] for v in (old, new)]
            if old.shape == new.shape and differs(*scales).any():  # else the fields beside them differ
                old, new = scales
        cause = {"weights": WEIGHT, "bias": BIAS, "scales": SCALE}.get(what, CONSTANT)
        if cause == CONSTANT:
            cause = _cause_by_name(node.name or "")
        return array_change(node, f"The {what} of {node.op_type} '{node.name}'", cause, old, new)

    def _same(self, old: ir.Value | None, new: ir.Value | None) -> bool:
        """Whether a tensor is the counterpart of another: what the same node gives, the same input, equal constants."""
        if old is None or new is None:
            return old is new
        fixed = constant_of(old), constant_of(new)
        if fixed[0] is not None and fixed[1] is not None:
            one, other = array_of(fixed[0]), array_of(fixed[1])
            return one.dtype == other.dtype and one.shape == other.shape and not differs(one, other).any()
        was, now = old.producer(), new.producer()
        if was is None or now is None:
            if old in self._inputs:
                return self._inputs[old] is new
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
        if constant_of(value) is not None:
            return f"constant '{value.name}'"
        producer = value.producer()
        if producer is None:
            return f"input '{value.name}'"
        which = f" as output {value.index()}" if len(producer.outputs) > 1 else ""
        return f"what {producer.op_type} '{producer.name}' gives{which}"


def _at_producer(output: ir.Value, cause: FaultCause, text: str) -> Change:
    producer = output.producer()
    return Change((producer.name or "") if producer else "", "", cause, text)


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


def _input_name(op_type: str, index: int) -> str:
    names = INPUT_NAMES.get(op_type, ())
    return names[index] if index < len(names) else f"input {index}"


def _cause_by_name(node: str) -> FaultCause:
    """What a constant is that a node reads which the conversion put in, and named itself."""
    if node.endswith((".weight.cast", ".bias.cast")):
        return WEIGHT if node.endswith(".weight.cast") else BIAS
    part = node.rpartition(".")[2]
    if ".fakequant" in node or ".fakedequant" in node or node.endswith(".rescale"):
        return (
            ZERO_POINT if part in ("add", "sub") else SCALE if part in ("mul", "rescale", "fakedequant") else CONSTANT
        )
    return CONSTANT
