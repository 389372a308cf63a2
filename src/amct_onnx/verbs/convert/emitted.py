"""One output model: rewritten, examined, serialised."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import onnx_ir as ir

from amct_onnx.emit.quantizing_nodes import QuantizingNodes
from amct_onnx.emit.rewrite import PlanEmitter
from amct_onnx.files.compose import Composition, compose
from amct_onnx.graph.believed_shapes import forget_beliefs
from amct_onnx.plan.factors import Plan

Verdict = TypeVar("Verdict")


@dataclass(frozen=True)
class Emitted(Generic[Verdict]):
    """What remains of an output model after its graph is freed.

    Attributes:
        composition: what is written.
        nodes: name of a candidate layer -> names of the nodes that stand for it.
        verdict: what was found in the graph.
    """

    composition: Composition
    nodes: dict[str, tuple[str, ...]]
    verdict: Verdict


def emitted(
    emitter: PlanEmitter,
    plan: Plan,
    path: Path,
    inline: frozenset[str],
    examine: Callable[[ir.Model, dict[str, tuple[str, ...]], QuantizingNodes], Verdict],
    believed: Set[str],
) -> Emitted[Verdict]:
    """Rewrite, examine and serialise; the rewritten graph ends with this call, so that only one is alive at a time.

    Args:
        emitter: makes the model; it is freed when the caller keeps no reference.
        plan: of the conversion.
        path: of the file.
        inline: names of the initializers that stay in it.
        examine: called with the model, its nodes by layer, and those that quantize outside of layers.
        believed: tensors of which nothing confirms the declared shape; the file does not repeat it.
    """
    model = emitter.rewrite()
    nodes, quantizing = nodes_by_layer(emitter, plan), emitter.quantizing
    del emitter  # its tables of names are larger than the file
    verdict = examine(model, nodes, quantizing)
    forget_beliefs(model, believed)
    return Emitted(compose(model, path, inline), nodes, verdict)


def nodes_by_layer(emitter: PlanEmitter, plan: Plan) -> dict[str, tuple[str, ...]]:
    """Name of a candidate layer -> names of the nodes that stand for it in the model that was rewritten."""
    return {e.name: emitter.nodes_of(plan.parts.get(e.name, e.name)) for e in plan.entries}
