"""Which quantizers of a model restore the integers of the pairs in front of them."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.device.restored_integers import restores
from amct_onnx.plan.factors import Quantizer
from amct_onnx.plan.pair_graph import PairGraph


def restoring_pairs(graph: PairGraph) -> set[ir.Value]:
    """Vertices whose quantizer restores all integers of the pairs in front of it, which are others."""
    pairs = graph.pairs.items()
    return {graph.of(node.outputs[0]) for node, (source, quantizer) in pairs if _restores(graph, source, quantizer)}


def restoring_outputs(graph: PairGraph) -> set[ir.Value]:
    """Graph outputs of integers that are those of the pairs in front."""
    outputs = graph.outputs.items()
    return {n.outputs[0] for n, q in outputs if q.per_tensor_int8 and n.inputs[0] and _restores(graph, n.inputs[0], q)}


def _restores(graph: PairGraph, source: ir.Value, quantizer: Quantizer) -> bool:
    track = graph.tracks.get(source)
    if track is None or (track.quantizer.same_grid(quantizer) and not track.steps):
        return False
    first = track.quantizer
    alike = first.zero_point == quantizer.zero_point and first.float_type == quantizer.float_type
    return alike and restores(first, track.steps, quantizer)
