"""Declared shapes and element types held against those that follow from the graph.

A model's value_info is a claim: tools that edit a model may leave it as it was. ONNX Runtime computes from the inputs,
initializers and operators, and so does everything here. A claim is used only where inference cannot tell; a claim that
contradicts the graph is replaced, with a warning that names tensor, claim and truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.graph.believed_shapes import BELIEVED
from amct_onnx.graph.edit import MADE, bodies, nodes_of
from amct_onnx.graph.inferred_shapes import keep_inferred
from amct_onnx.graph.marks import marks_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.shapes import infer_shapes
from amct_onnx.normalise.declared_content import (
    Contradiction,
    carried_values,
    check_contents,
    check_turns,
    infer_with_turns,
)

Size = int | ir.SymbolicDim

UNVERIFIED = "amct_onnx.unverified_shapes"
"""Key in a graph's meta: there is a claim that inference could not check."""


TRIED_SIZES = (96, 131)
"""Numbers that stand for a free size: large enough for most kernels and strides, one even and one odd."""
MAX_WARNINGS = 8
"""Tensors named one by one, outputs of the graph first; the others are counted."""


@dataclass(frozen=True)
class _Claim:
    """What the file declares of one tensor."""

    shape: ir.Shape | None
    type: ir.TypeProtocol | None


def check_declared_shapes(model: ir.Model, *, last: bool = False) -> None:
    """Replace what the graph contradicts, in place; a model that declares nothing costs nothing.

    Args:
        model: without functions, its nodes sorted.
        last: whether claims about what foreign nodes make are judged now, not left for ``recheck_declared_shapes``.
    """
    contradictions = check_contents(model)
    _check_results(model, contradictions, last=last)
    outputs = set(model.graph.outputs)
    contradictions.sort(key=lambda c: c.value not in outputs)
    for contradiction in contradictions[:MAX_WARNINGS]:
        warn(model, f"{contradiction} The declaration is ignored.")
    if len(contradictions) > MAX_WARNINGS:
        more = len(contradictions) - MAX_WARNINGS
        warn(model, f"{more} more declarations contradict the graph and are ignored. Infer the model's shapes again.")


def _check_results(model: ir.Model, contradictions: list[Contradiction], *, last: bool) -> None:
    """The same for what nodes make; contradictions are added."""
    results = list(_results(model))
    outputs = set(model.graph.outputs)
    if not any(v.shape is not None for v in results if v not in outputs) and not _outputs_tell(model):
        return
    claims = {v: _Claim(v.shape, v.type) for v in results}
    believed: set[str] = set()
    model.graph.meta[BELIEVED] = believed
    for value in results:
        value.shape = value.type = None
    infer_shapes(model, strict=False, outputs=True)
    contradictions += check_turns(model)
    if any(v.shape is None for v in _free_inputs(model)) or any(_tells_an_open_size(claims[v], v) for v in results):
        claims = _without_free_sizes(model, claims, contradictions)
    # the dialects' nodes become standard ones, which inference knows
    foreign = not last and any(node.domain not in ("", "ai.onnx") for node in nodes_of(model))
    # what follows from an unchecked claim contradicts no other
    waiting = {v for v in results if foreign and _is_open(v)}
    if any(_is_open(v) for v in results):
        # what inference cannot tell is believed, and tells more
        for value in _roots(model, results):
            _believe(value, claims[value])
            if claims[value].shape is not None and value.name:
                believed.add(value.name)
        infer_shapes(model, strict=False, outputs=True)
    keep_inferred(model, (v for v in results if not _is_open(v)))
    for value, claim in claims.items():
        if value in waiting:
            value.shape, value.type = claim.shape, claim.type
        else:
            _settle(value, claim, contradictions)
    model.graph.meta[UNVERIFIED] = any(claims[v] != _Claim(None, None) for v in waiting)


def recheck_declared_shapes(model: ir.Model) -> None:
    """Once more, when every node is one that inference knows and claims are left that could not be checked."""
    if model.graph.meta.pop(UNVERIFIED, False):
        check_declared_shapes(model, last=True)
        model.graph.meta.pop(UNVERIFIED, None)


def _results(model: ir.Model) -> Iterator[ir.Value]:
    for node in nodes_of(model):
        yield from (v for v in node.outputs if v.name)


def _outputs_tell(model: ir.Model) -> bool:
    """Whether a graph output is declared with a size that its maker may contradict."""
    return any(v.shape is not None and any(isinstance(d, int) for d in v.shape) for v in model.graph.outputs)


def _is_open(value: ir.Value) -> bool:
    return value.shape is None or value.type is None or any(_is_unknown(d) for d in value.shape)


def _is_unknown(dim: Size) -> bool:
    """A size without a name, or under one that inference made up."""
    return not isinstance(dim, int) and (dim.value is None or dim.value.startswith("unk__"))


def _roots(model: ir.Model, results: Iterable[ir.Value]) -> list[ir.Value]:
    """Open results of nodes all of whose inputs are known: what follows from them is inferred, not believed."""
    sequence_types = (ir.SequenceType, ir.OptionalType)
    found = []
    for value in results:
        node = value.producer()
        assert node is not None
        known = all(v is None or v.is_initializer() or not _is_open(v) for v in node.inputs)
        foreign = node.domain not in ("", "ai.onnx")
        if _is_open(value) and (known or foreign or isinstance(value.type, sequence_types)):
            found.append(value)
    inside = {v for body in bodies(model.graph) for v in body.inputs}
    return [v for v in found if v not in inside]


def _tells_an_open_size(claim: _Claim, true: ir.Value) -> bool:
    """Whether a claim states a size, but for the 1 of an example, that inference leaves open."""
    if claim.shape is None or true.shape is None or len(claim.shape) != len(true.shape):
        return False
    return any(
        isinstance(told, int) and told != 1 and _is_unknown(d) for told, d in zip(claim.shape, true.shape, strict=True)
    )


def _without_free_sizes(
    model: ir.Model, claims: dict[ir.Value, _Claim], contradictions: list[Contradiction]
) -> dict[ir.Value, _Claim]:
    """The claims without sizes that follow from a graph input whose size is free: no one number can be true of them.

    Such a size differs between two inferences with different numbers in the place of the free ones.
    """
    inferred = {v: v.shape for v in claims}
    declared = {v: v.shape for v in _free_inputs(model)}
    decider = "a graph input of free size"
    if not all(v.is_graph_input() and v.graph is model.graph for v in declared):
        decider = "a graph input or a Loop of free size"
    # of an input without a shape the number of axes is free as well: those that claims have are tried
    ranks = {len(c.shape) for c in claims.values() if c.shape is not None} if None in declared.values() else {0}
    for rank in sorted(ranks) if declared else ():
        tried = []
        for number in TRIED_SIZES:
            for value in claims:
                value.shape = None
            for value, shape in declared.items():
                sizes = (None,) * rank if shape is None else shape
                value.shape = ir.Shape([d if isinstance(d, int) else number for d in sizes])
            infer_with_turns(model)
            tried.append({v: v.shape for v in claims})
        claims = {v: _without(v, c, [t[v] for t in tried], decider, contradictions) for v, c in claims.items()}
    for value, shape in (*inferred.items(), *declared.items()):
        value.shape = shape
    return claims


def _free_inputs(model: ir.Model) -> list[ir.Value]:
    """Tensors that come from outside, or from the turn before of a Loop, and have a free size or no shape."""
    given = [v for v in (*model.graph.inputs, *carried_values(model)) if isinstance(v.type, ir.TensorType)]
    return [v for v in given if v.shape is None or not all(isinstance(d, int) for d in v.shape)]


def _without(
    value: ir.Value, claim: _Claim, tried: list[ir.Shape | None], decider: str, contradictions: list[Contradiction]
) -> _Claim:
    shapes = [s for s in tried if s is not None]
    if claim.shape is None or len(shapes) < len(TRIED_SIZES) or {len(s) for s in shapes} != {len(claim.shape)}:
        return claim
    free = [all(isinstance(d, int) for d in sizes) and len(set(sizes)) > 1 for sizes in zip(*shapes, strict=True)]
    kept = [None if f and isinstance(d, int) else d for d, f in zip(claim.shape, free, strict=True)]
    if any(f and isinstance(d, int) and d != 1 for d, f in zip(claim.shape, free, strict=True)):
        _tell(value, f"declared with shape {_text(claim.shape)}, and {decider} decides it", contradictions)
    return _Claim(ir.Shape(kept), claim.type)


def _believe(value: ir.Value, claim: _Claim) -> None:
    """Take over what the claim says beyond what is inferred; a claim that contradicts that says nothing."""
    if value.type is None:
        value.type = claim.type
    if value.shape is None or (claim.shape is not None and not _differ(claim.shape, value.shape)):
        value.shape = claim.shape


def _differ(told: ir.Shape, true: ir.Shape) -> bool:
    return len(told) != len(true) or any(_contradicts(*pair) for pair in zip(told, true, strict=True))


def _settle(value: ir.Value, claim: _Claim, contradictions: list[Contradiction]) -> None:
    """Leave the claim where nothing contradicts it, else the truth."""
    true_shape, true_type = value.shape, value.type
    value.shape, value.type = claim.shape, claim.type
    if claim.type is not None and true_type is not None and claim.type != true_type:
        value.type = true_type
        _tell(value, f"declared as {claim.type}, the graph makes it {true_type}", contradictions)
    if claim.shape is None or true_shape is None:
        return
    pairs = list(zip(claim.shape, true_shape, strict=False))
    if _differ(claim.shape, true_shape):
        value.shape = ir.Shape([None if _is_unknown(d) else d for d in true_shape])
        if len(claim.shape) != len(true_shape) or not all(_is_example(*p) for p in pairs if _contradicts(*p)):
            told = f"declared with shape {_text(claim.shape)}, the graph makes {_text(value.shape)}"
            _tell(value, told, contradictions)


def _tell(value: ir.Value, told: str, contradictions: list[Contradiction]) -> None:
    """Add the contradiction, unless a rule made the tensor: it was given what the file declares of another."""
    if MADE not in marks_of(value):
        contradictions.append(Contradiction(value, told))


def _is_example(told: Size, true: Size) -> bool:
    """A 1 where an input leaves the size free: the batch with which the model was exported."""
    return told == 1 and not isinstance(true, int)


def _contradicts(told: Size, true: Size) -> bool:
    return isinstance(told, int) and told != true and not _is_unknown(true)


def _text(shape: ir.Shape) -> str:
    return "[" + ", ".join("?" if _is_unknown(d) else str(d) for d in shape) + "]"
