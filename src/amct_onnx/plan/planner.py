"""plan(graph): a pure function to one verdict per candidate layer and one action per remaining quantizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.errors import NoQuantizerError, UnsupportedModelError
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.normalise.container import opset_of
from amct_onnx.plan.factors import Pair, Plan, Quantizer, Site
from amct_onnx.plan.layers import CANDIDATES, EXACT_MOVES, plan_layer
from amct_onnx.plan.quantizers import DEQUANTIZE, QUANTIZE, RANGES, integer_type, is_op, quantizer_of, raw_factors
from amct_onnx.plan.weights import Refusal
from amct_onnx.report import CONVERTED, REFUSED, LayerEntry


def make_plan(model: ir.Model) -> Plan:
    """Decide on every candidate layer and every quantizer; the model is not modified.

    Raises:
        NoQuantizerError: The model has no Q/DQ nodes.
        FactorError: A quantizer outside the candidate layers has unusable factors.
    """
    constants = ConstantEvaluator(opset_of(model))
    nodes = list(model.graph)
    if not any(is_op(n, QUANTIZE, DEQUANTIZE) for n in nodes):
        raise NoQuantizerError(
            "The model holds no QuantizeLinear or DequantizeLinear node. Give a QAT model exported with its quantizers."
        )
    _refuse_operators(nodes)
    sites: list[Site] = []
    entries: list[LayerEntry] = []
    for node in nodes:
        if node.op_type not in CANDIDATES or node.domain != "":
            continue
        try:
            site = plan_layer(node, constants)
        except Refusal as refusal:
            entries.append(
                LayerEntry(
                    name=node.name or "",
                    op_type=node.op_type,
                    verdict=REFUSED,
                    reason=refusal.reason,
                    detail=refusal.detail,
                    remedy=refusal.remedy,
                )
            )
        else:
            sites.append(site)
            entries.append(_converted(node, site))
    by_node = {s.node: s for s in sites}
    pairs: list[Pair] = []
    lazy: dict[str, Callable[[], npt.NDArray[np.generic]]] = {}
    for node in nodes:
        if not is_op(node, DEQUANTIZE):
            continue
        output = node.outputs[0]
        if constants.is_constant(output):
            lazy[output.name or ""] = _dequantized(output, constants)
            continue
        if not output.is_graph_output() and all(u.idx == 0 and u.node.name in by_node for u in output.uses()):
            continue  # it belongs to the layers that read it
        found = quantizer_of(node, constants)
        if found is None:
            pairs.append(Pair(output.name or "", "", _without_quantize(node, constants)))
            continue
        source, quantizer = found
        pairs.append(
            Pair(
                output.name or "",
                source.name or "",
                quantizer,
                quantizer.per_tensor_int8 and _requantized(output, quantizer, by_node),
            )
        )
    outputs = []
    for node in nodes:
        if is_op(node, QUANTIZE) and node.outputs[0].is_graph_output() and node.inputs[0] is not None:
            scale, zero, axis = raw_factors(node, constants)
            kind = integer_type(node, constants)
            if kind not in (ir.DataType.INT8, ir.DataType.UINT8) or axis is not None:
                raise UnsupportedModelError(
                    f"Node '{node.name}' quantizes graph output '{node.outputs[0].name}' to {kind.name} with "
                    f"{scale.size} scales: AscendQuant gives int8 with one. Quantize the output per tensor to 8 bits."
                )
            low, high, shift, bits = RANGES[kind]
            quantizer = Quantizer(
                tuple(scale.tolist()), tuple(int(z) - shift for z in zero), low, high, axis, bits, shift
            )
            outputs.append((node.outputs[0].name or "", node.inputs[0].name or "", quantizer))
    warnings = tuple(
        f"Graph output '{name}' was uint8 and is int8 now: its values are the source's minus 128."
        for name, _, q in outputs
        if q.shift == 128
    )
    return Plan(tuple(sites), tuple(entries), tuple(pairs), tuple(outputs), lazy, warnings)


INTEGER_OPERATORS = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm", "QAttention"})


def _refuse_operators(nodes: list[ir.Node]) -> None:
    """Integer operators have no ATC plugin and no form in the outputs."""
    for inner in (n for outer in nodes for n in _inside(outer)):
        if is_op(inner, QUANTIZE, DEQUANTIZE):
            raise UnsupportedModelError(
                f"Node '{inner.name}' ({inner.op_type}) lies in the body of an If, Loop or Scan: these are not "
                "converted. Export the model without control flow, or move the quantizers out of the body."
            )
    for node in nodes:
        if node.op_type.startswith("QLinear") or node.op_type in INTEGER_OPERATORS:
            raise UnsupportedModelError(
                f"Node '{node.name}' is a {node.op_type}: QOperator format and dynamic quantization cannot "
                "be converted. Export the model in QDQ format (QuantizeLinear/DequantizeLinear) with static factors."
            )


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from ir.traversal.RecursiveGraphIterator(attribute.as_graph())


def _converted(node: ir.Node, site: Site) -> LayerEntry:
    return LayerEntry(
        name=node.name or "",
        op_type=node.op_type,
        verdict=CONVERTED,
        granularity="per-channel" if site.deq_scale.size > 1 else "per-tensor",
        scale_d=float(site.quantizer.scale_d),
        offset_d=site.quantizer.offset_d,
        scale_w=tuple(float(s) for s in site.weight.scale),
        detail="one AscendDequant scale 2^-14 and a Mul with the per-channel ratio" if site.split_scale else "",
    )


def _dequantized(value: ir.Value, constants: ConstantEvaluator) -> Callable[[], npt.NDArray[np.generic]]:
    return lambda: constants.array(value)


def _without_quantize(node: ir.Node, constants: ConstantEvaluator) -> Quantizer:
    """Factors of a DequantizeLinear whose input is integer by itself."""
    scale, zero, axis = raw_factors(node, constants)
    return Quantizer(tuple(scale.tolist()), tuple(zero.tolist()), -(2**31), 2**31 - 1, axis, 32)


def _requantized(value: ir.Value, quantizer: Quantizer, sites: dict[str, Site]) -> bool:
    """Exact elision: every way out of the tensor ends in a site that quantizes again with the same factors.

    Quantization is monotone and idempotent, and the operators on the way only select elements (or clamp at zero,
    which lies on the grid), so quantizing once, at the end, gives the same integers.
    """
    stack, seen = [value], set[ir.Value]()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.is_graph_output():
            return False
        for use in current.uses():
            site = sites.get(use.node.name or "")
            if site is not None and use.idx == 0:
                same = (site.quantizer.scale, site.quantizer.zero_point) == (quantizer.scale, quantizer.zero_point)
                if not same or (quantizer.low, quantizer.high) != (site.quantizer.low, site.quantizer.high):
                    return False
            elif use.node.op_type in EXACT_MOVES and use.idx == 0 and len(use.node.outputs) == 1:
                stack.append(use.node.outputs[0])
            else:
                return False
    return True
