"""The ledger's rows of quantizers that belong to no int8 layer."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.edit import bodies, nodes_of
from amct_onnx.plan.factors import Pair, Plan, Quantizer
from amct_onnx.plan.ledger import ResidualAction, ResidualEntry
from amct_onnx.verbs.convert.remedies import LayerUses, known_name, stays_as_pair, why_it_stays


def tensor_names(model: ir.Model) -> frozenset[str]:
    """Names of the tensors of a model as it was read."""
    graphs = (model.graph, *bodies(model.graph))
    ends = (v for g in graphs for v in (*g.inputs, *g.initializers.values()))
    return frozenset(v.name for v in (*ends, *(v for n in nodes_of(model) for v in n.outputs)) if v.name)


def residual_entries(plan: Plan, tensors: Set[str]) -> tuple[ResidualEntry, ...]:
    """One entry for each quantizer that is left, under the name of a tensor that the user's file holds.

    Args:
        plan: of the conversion.
        tensors: see ``tensor_names``.
    """
    uses = LayerUses(plan)
    # a pair that only the conversion made, and removed again, is none of the user's
    left = [p for p in plan.pairs if not p.merged and (not p.elided or not tensors.isdisjoint(p.names))]
    entries = [_residual(p, uses, known_name(p.names, tensors)) for p in (*left, *plan.moved)]
    for name, source, quantizer in plan.outputs:
        detail = f"graph output '{name}' holds its integers. Export that output as floats to be without it"
        entry = ResidualEntry(known_name((source, name), tensors), "quant", detail)
        entries.append(_with_factors(entry, quantizer))
    return tuple(entries)


def _residual(pair: Pair, uses: LayerUses, tensor: str) -> ResidualEntry:
    """What became of one pair.

    Args:
        pair: of the plan.
        uses: of tensors by int8 layers.
        tensor: under which the user knows it.
    """
    quantizer = pair.quantizer
    assert quantizer is not None
    if pair.elided:
        detail = "what reads it needs no other numbers than those in front of it give: removing it is exact"
        entry = ResidualEntry(tensor, "elided", detail)
    elif pair.dropped:
        detail = "it feeds no int8 layer: its readers get unrounded numbers"
        if pair.shared:
            detail = "int8 layers round for themselves: its other readers get unrounded numbers"
        if pair.clip is not None:
            detail += ", in its range" if np.isfinite(pair.clip).all() else ", cut at 0"
        entry = ResidualEntry(tensor, "dropped", detail)
    else:
        action: ResidualAction = "anti-quant" if stays_as_pair(pair) else "float-chain"
        entry = ResidualEntry(tensor, action, why_it_stays(pair, uses.of(pair)))
    read = pair.read_scale
    rescaled = read is not None and np.float32(read) != quantizer.scale_d
    return replace(_with_factors(entry, quantizer), read_scale=read if rescaled else None)


def _with_factors(entry: ResidualEntry, quantizer: Quantizer) -> ResidualEntry:
    """The entry with step and range of its quantizer."""
    step = min(quantizer.scale)
    if len(quantizer.scale) > 1 or quantizer.small_float is not None:
        return replace(entry, scale=step)
    low, high = (step * (limit - quantizer.offset_d) for limit in (quantizer.low, quantizer.high))
    return replace(entry, scale=step, low=low, high=high)
