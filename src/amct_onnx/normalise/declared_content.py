"""What the file declares of initializers and of a Loop's turns, held against the contents and the outer graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.graph.edit import bodies, bodies_of, nodes_of
from amct_onnx.graph.shapes import infer_shapes

MAX_DEPTH = 4
"""Loops within loops whose turns are followed; what an inner one is told by its outer one needs a turn more."""
LOOP_CONTROL = 2
"""A Loop's first inputs, trip count and condition; its body's are turn number and condition."""


@dataclass(frozen=True)
class Contradiction:
    """A tensor and what the file says of it beside what is true, as the rest of a sentence."""

    value: ir.Value
    told: str

    def __str__(self) -> str:
        """One sentence that names the tensor."""
        return f"Tensor '{self.value.name}' is {self.told}."


def check_contents(model: ir.Model) -> list[Contradiction]:
    """Replace what is declared of initializers by what they hold, in place; returns the contradictions."""
    contradictions = []
    for graph in (model.graph, *bodies(model.graph)):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                continue
            told = value.shape
            if told is not None and told is not tensor.shape and told != (shape := ir.Shape(tensor.shape.numpy())):
                if any(isinstance(d, int) for d in told) or len(told) != len(shape):
                    text = f"declared with shape {list(told)}, its content has {list(shape)}"
                    contradictions.append(Contradiction(value, text))
                value.shape = shape
            if value.dtype not in (None, tensor.dtype):
                text = f"declared as {value.dtype}, it holds {tensor.dtype}"
                contradictions.append(Contradiction(value, text))
                value.type = ir.TensorType(tensor.dtype)
    return contradictions


def check_turns(model: ir.Model) -> list[Contradiction]:
    """Open, in place, the sizes declared of what a Loop carries that its first turn or a later one contradicts.

    onnx's inference believes what a body declares of its inputs. The shapes outside are inferred already.
    """
    contradictions: list[Contradiction] = []
    carried = _carried(model)
    for _ in range(MAX_DEPTH if carried else 0):
        pairs = [(c.value, true.shape) for c in carried for true in (c.first, c.later) if true is not None]
        texts = [(value, _opened(value, shape)) for value, shape in pairs]
        found = [Contradiction(value, text) for value, text in texts if text is not None]
        contradictions += [c for c in found if c.told]
        for value in (v for node in nodes_of(model) for v in node.outputs):
            value.shape = None
        infer_with_turns(model)
        if not found:
            break
    return contradictions


def infer_with_turns(model: ir.Model) -> None:
    """Infer shapes; a Loop hands out what it carries, of which onnx's inference tells no shape."""
    infer_shapes(model, strict=False, outputs=True)
    open_results = [c for c in _carried(model) if c.result.shape is None and c.value.shape is not None]
    for each in open_results:
        each.result.shape = each.value.shape
    if open_results:
        infer_shapes(model, strict=False, outputs=True)


def carried_values(model: ir.Model) -> list[ir.Value]:
    """The inputs of Loop bodies that one turn gets from the turn before."""
    return [c.value for c in _carried(model)]


@dataclass(frozen=True)
class _Carried:
    """A tensor that a Loop carries: outside before the first turn, in the body, behind a turn, outside after all."""

    first: ir.Value | None
    value: ir.Value
    later: ir.Value
    result: ir.Value


def _carried(model: ir.Model) -> list[_Carried]:
    return [
        _Carried(*values)
        for node in nodes_of(model)
        if node.op_type == "Loop" and node.domain == ""
        for body in bodies_of(node)
        for values in zip(
            node.inputs[LOOP_CONTROL:], body.inputs[LOOP_CONTROL:], body.outputs[1:], node.outputs, strict=False
        )
    ]


def _opened(value: ir.Value, true: ir.Shape | None) -> str | None:
    told = value.shape
    if told is None or true is None:
        return None
    if len(told) != len(true):
        value.shape = None
    else:
        kept = [None if isinstance(d, int) and d != t else d for d, t in zip(told, true, strict=True)]
        if kept == list(told):
            return None
        value.shape = ir.Shape(kept)
        if all(d in (1, k) for d, k in zip(told, kept, strict=True)):
            return ""
    return f"declared with shape {_text(told)}, the loop around it carries {_text(true)}"


def _text(shape: ir.Shape) -> str:
    return "[" + ", ".join(str(d) if isinstance(d, int) else "?" for d in shape) + "]"
