"""plan(graph), a pure function: one verdict per candidate layer and one action per remaining quantizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.errors import NoQuantizerError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import STANDS_FOR, known_as, nodes_of
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.marks import marks_of
from amct_onnx.graph.model_warnings import warnings_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op
from amct_onnx.graph.refused import Refusal
from amct_onnx.graph.unknown_quantizers import EXPORT_QDQ, no_quantizer, unknown_quantizers
from amct_onnx.plan.bias_errors import bias_error_of
from amct_onnx.plan.dropped_pairs import DroppedPairs
from amct_onnx.plan.factors import Pair, Plan, Quantizer, Reader, Site
from amct_onnx.plan.float_operators import QuantizedReaders
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.layers import plan_layer
from amct_onnx.plan.ledger import CONVERTED, REFUSED, LayerEntry
from amct_onnx.plan.output_scales import next_scale
from amct_onnx.plan.pair_ends import PairEnds
from amct_onnx.plan.pairs import Quantization, plan_pairs
from amct_onnx.plan.quantizers import RANGES, blocks_of, raw_factors
from amct_onnx.plan.settings import DROP, PlanSettings


def make_plan(model: ir.Model, settings: PlanSettings | None = None) -> Plan:
    """Decide on every candidate layer and every quantizer, also in the bodies of If, Loop and Scan.

    The model is not modified.

    Raises:
        NoQuantizerError: The model has no Q/DQ nodes.
        FactorError: A quantizer outside the candidate layers has unusable factors.
    """
    settings = settings or PlanSettings()
    constants = ConstantEvaluator(opset_of(model))
    grids = Grids(constants)
    nodes = nodes_of(model)
    if not any(is_op(n, QUANTIZE, DEQUANTIZE) for n in nodes):
        text = no_quantizer(nodes)
        raise NoQuantizerError(f"{text}")
    sites, refused = _plan_layers(nodes, grids, constants, settings)
    outputs = _plan_outputs(nodes, constants)
    layers = {reader: quantizer for s in sites for reader, quantizer in s.quantized.items()}
    apart = [reader for s in sites if s.as_2d or s.transpose_input for reader in s.quantized]
    drop = settings.residual_quantizers == DROP
    decided = plan_pairs(nodes, model, layers, outputs, grids, constants, apart, drop=drop)
    sites = [_with_quantizations(s, decided.readers) for s in sites]
    pairs, lazy = _other_pairs(nodes, layers, decided.pairs, grids, constants)
    if drop:
        dropped = DroppedPairs(grids, constants)
        values = {v.name: v for n in nodes for v in n.outputs}
        pairs = [dropped.drop(p, values[p.output], decided=p.output in decided.pairs) for p in pairs]
    ends = PairEnds(nodes, sites)
    pairs, moved = ends.merged(pairs, decided.moved), tuple(ends.told(p) for p in decided.moved)
    entries = _entries(nodes, sites, refused, {p.output: p.source for p in moved})
    quantized_outputs = [_quantized_output(n, q, decided.readers) for n, q in outputs.items()]
    warnings = warnings_of(model) + tuple(
        f"Graph output '{name}' was uint8 and is int8 now: its values are the source's minus 128."
        for name, _, q in quantized_outputs
        if q.shift == 128
    )
    unknown = unknown_quantizers(nodes)
    if unknown:
        warnings += (f"The model holds {unknown}, which are not known here: they stay as they are. {EXPORT_QDQ}",)
    readers = QuantizedReaders(grids, constants)
    entries += readers.refused_layers(nodes)
    made = {known_as(n): n.name or "" for n in nodes if known_as(n) != n.name}
    parts = {e.name: made[e.name] for e in entries if e.name in made}
    told = {parts.get(e.name, e.name) for e in entries} | {name for s in sites for name in s.absorbed}
    rounded = {p.output for p in pairs if not p.elided and not p.dropped}
    # at a place where the source has no pair, all readers of what it rounds
    rounded |= {p.source for p in moved if not p.elided and not p.dropped}
    others = tuple(readers.others(nodes, told, rounded))
    return Plan(
        *(tuple(sites), tuple(entries), tuple(pairs), tuple(quantized_outputs), lazy, warnings, moved, others, parts)
    )


def _plan_layers(
    nodes: list[ir.Node], grids: Grids, constants: ConstantEvaluator, settings: PlanSettings
) -> tuple[list[Site], dict[str, LayerEntry]]:
    """The layers that become int8, and the entry of each that does not, by its name."""
    sites: list[Site] = []
    refused: dict[str, LayerEntry] = {}
    for node in nodes:
        if node.op_type not in LAYER_KINDS or node.domain != "":
            continue
        try:
            sites.append(plan_layer(node, grids, constants, settings))
        except Refusal as refusal:
            refused[node.name or ""] = _refused(node, refusal, constants)
    return sites, refused


def _entries(
    nodes: list[ir.Node], sites: list[Site], refused: dict[str, LayerEntry], moved: Mapping[str, str]
) -> list[LayerEntry]:
    """The entry of every candidate, in the order of the nodes.

    Args:
        nodes: of the model.
        sites: its int8 layers.
        refused: entries of layers that stay float, by their name.
        moved: what a pair makes at a place where the source has none -> the source's tensor at that place.
    """
    by_name = {s.node: s for s in sites}
    found = []
    for node in nodes:
        name = node.name or ""
        if name in by_name:
            found.append(_converted(node, by_name[name], moved))
        elif name in refused:
            found.append(refused[name])
    return found


def _with_quantizations(site: Site, readers: Mapping[Reader, Quantization]) -> Site:
    """A layer that reads what the pairs' plan says, as the float types of its own tensors."""
    activations = list(site.activations)
    for index, own in enumerate(activations):
        taken = readers.get((site.node, index))
        if taken is not None:
            quantizer = dataclasses.replace(taken.quantizer, float_type=own.quantizer.float_type)
            activations[index] = dataclasses.replace(own, source=taken.source, quantizer=quantizer)
    return dataclasses.replace(site, activations=tuple(activations))


def _other_pairs(
    nodes: list[ir.Node],
    layers: Mapping[Reader, Quantizer],
    decided: Mapping[str, Pair],
    grids: Grids,
    constants: ConstantEvaluator,
) -> tuple[list[Pair], dict[str, Callable[[], npt.NDArray[np.generic]]]]:
    """Every DequantizeLinear that no layer takes: the pairs on activations, and constants in float.

    Args:
        nodes: nodes of the model.
        layers: the quantizer of each input of an int8 layer that has one.
        decided: the pairs of 8 bits, by the name of their output.
        grids: grids of the model.
        constants: constants of the model.
    """
    pairs: list[Pair] = []
    lazy: dict[str, Callable[[], npt.NDArray[np.generic]]] = {}
    for node in nodes:
        if not is_op(node, DEQUANTIZE):
            continue
        output = node.outputs[0]
        name = output.name or ""
        if constants.is_constant(output):
            lazy[name] = _dequantized(output, constants)
            continue
        if not output.is_graph_output() and all((u.node.name, u.idx) in layers for u in output.uses()):
            continue  # it belongs to the layers that read it
        pair = grids.pair(node)
        if name in decided and pair is not None:
            pairs.append(dataclasses.replace(decided[name], names=_names(pair[0], node)))
        elif pair is None:
            pairs.append(Pair(name, "", _without_quantize(node, constants), names=_names(None, node)))
        else:
            pairs.append(Pair(name, pair[0].name or "", pair[1], names=_names(pair[0], node)))
    return pairs, lazy


def _names(source: ir.Value | None, dq: ir.Node) -> tuple[str, ...]:
    """Tensors that a user may know a quantizer by: the float one, the integers, the result, those behind the float one.

    A rule may have made the first three in the place of one node; what that node read is the user's.
    """
    values = [source, dq.inputs[0], dq.outputs[0]]
    producer = source.producer() if source is not None else None
    while (
        producer is not None and STANDS_FOR in marks_of(producer) and producer.inputs and producer.inputs[0] is not None
    ):
        values.append(producer.inputs[0])
        producer = producer.inputs[0].producer()
    return tuple(v.name for v in values if v is not None and v.name)


def _plan_outputs(nodes: list[ir.Node], constants: ConstantEvaluator) -> dict[ir.Node, Quantizer]:
    """The QuantizeLinear nodes that make graph outputs, and their quantizers, of 8 bits and one scale."""
    outputs = {}
    for node in nodes:
        if is_op(node, QUANTIZE) and node.outputs[0].is_graph_output() and node.inputs[0] is not None:
            outputs[node] = _output_quantizer(node, constants)
    return outputs


def _quantized_output(
    node: ir.Node, quantizer: Quantizer, readers: Mapping[Reader, Quantization]
) -> tuple[str, str, Quantizer]:
    """A quantized graph output: its name, the float tensor behind it, its quantizer."""
    source = node.inputs[0]
    assert source is not None
    taken = readers.get((node.name or "", 0), Quantization(source.name or "", quantizer))
    # of the source's integer type, which decides the output's
    quantizer = dataclasses.replace(taken.quantizer, shift=quantizer.shift, float_type=quantizer.float_type)
    return node.outputs[0].name or "", taken.source, quantizer


def _output_quantizer(node: ir.Node, constants: ConstantEvaluator) -> Quantizer:
    scale, zero, axis = raw_factors(node, constants)
    integers = integer_type(node, constants)
    low, high, shift, bits = RANGES[integers]
    assert node.inputs[0] is not None
    kind = float_type_of(node.inputs[0])
    return Quantizer(tuple(scale.tolist()), tuple(int(z) - shift for z in zero), low, high, axis, bits, shift, kind)


def _refused(node: ir.Node, refusal: Refusal, constants: ConstantEvaluator) -> LayerEntry:
    return LayerEntry(
        name=known_as(node),
        op_type=node.op_type,
        verdict=REFUSED,
        reason=refusal.reason,
        detail=refusal.detail,
        remedy=refusal.remedy,
        source_output=node.outputs[0].name or "",
        output_scale=next_scale(node.outputs[0], constants),
    )


def _converted(node: ir.Node, site: Site, moved: Mapping[str, str]) -> LayerEntry:
    first, second = site.activations[0], site.activations[1] if len(site.activations) > 1 else None
    return LayerEntry(
        name=node.name or "",
        op_type=node.op_type,
        verdict=CONVERTED,
        granularity="per-channel" if site.deq_scale.size > 1 else "per-tensor",
        scale_d=float(first.quantizer.scale_d),
        read_scale=first.read_scale,
        offset_d=first.quantizer.offset_d,
        scale_w=tuple(float(s) for s in site.scale_w),
        detail=site.detail,
        source_input=moved.get(first.source, first.source),
        second_input="" if second is None else moved.get(second.source, second.source),
        second_scale_d=None if second is None else float(second.quantizer.scale_d),
        source_output=site.output,
        output_scale=site.output_scale,
        bias_error=bias_error_of(site),
    )


def _dequantized(value: ir.Value, constants: ConstantEvaluator) -> Callable[[], npt.NDArray[np.generic]]:
    return lambda: constants.array(value)


def _without_quantize(node: ir.Node, constants: ConstantEvaluator) -> Quantizer:
    """Factors of a DequantizeLinear whose input is integer by itself."""
    scale, zero, axis = raw_factors(node, constants)
    blocks = blocks_of(node, constants)
    return Quantizer(tuple(scale.tolist()), tuple(zero.tolist()), -(2**31), 2**31 - 1, axis, 32, blocks=blocks)
