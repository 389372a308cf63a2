"""Apply a plan to a copy of the graph; the two emitters differ only in the operators that they insert."""

from __future__ import annotations

import abc
from collections.abc import Callable, Set
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.common.arrays import Float32
from amct_onnx.emit.float_quantizer import float_chain, float_dequantize
from amct_onnx.emit.output_graph import OutputGraph
from amct_onnx.emit.quantized_tensor import QuantizedTensor
from amct_onnx.emit.quantizing_nodes import QuantizingNodes
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from amct_onnx.plan.factors import ANTI_QUANT, Activation, Pair, Plan, Quantizer, Site, Weight


class PlanEmitter(abc.ABC):
    """Rewrites one copy of the normalised graph according to a plan."""

    def __init__(self, model: ir.Model, plan: Plan, left_out: Set[ir.Node | ir.Value] = frozenset()) -> None:
        """Copy the model, but for what ``replaced_parts`` tells to leave out."""
        self.graph = OutputGraph(model, left_out)
        """The copy under construction."""
        self.quantizing = QuantizingNodes()
        """What quantizes in it outside of int8 layers."""
        self._plan = plan
        self._sites = {s.node: s for s in plan.sites}
        self._derived: dict[tuple[Quantizer, str, int], dict[ir.Value, ir.Value]] = {}
        self._weights: dict[tuple[object, ...], ir.Value] = {}
        self._chains: dict[ir.Value, list[ir.Node]] = {}
        self._layer_nodes: dict[str, list[ir.Node]] = {}

    @abc.abstractmethod
    def quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """The quantized form of a float tensor, as the layer of this model reads it."""

    @abc.abstractmethod
    def antiquantize(self, quantized: ir.Value, quantizer: Quantizer, scale: float, name: str, at: ir.Node) -> ir.Value:
        """The float form of what ``quantize`` gave; ``scale`` is that of the integers."""

    @abc.abstractmethod
    def dequantize(self, accumulator: ir.Value, site: Site, rank: int, at: ir.Node) -> ir.Value:
        """The float form of a layer's accumulator; nodes are inserted after ``at``."""

    @abc.abstractmethod
    def weight(self, site: Site, at: ir.Node) -> ir.Value:
        """The layer's weight input."""

    @abc.abstractmethod
    def bias(self, site: Site, at: ir.Node) -> ir.Value:
        """The layer's bias input."""

    def lift(self, source: ir.Value, site: Site, at: ir.Node) -> ir.Value:
        """The float tensor in the rank in which this model holds the layer."""
        return source

    def lifted(self, shape: ir.Shape | None, site: Site) -> ir.Shape | None:
        """A shape of the source in the rank in which this model holds the layer."""
        return shape

    def lower(self, result: ir.Value, site: Site) -> ir.Value:
        """The float result in the source's rank."""
        return result

    def attributes(self, site: Site) -> list[ir.Attr]:
        """Attributes of the layer in this model."""
        return list(site.attributes)

    @abc.abstractmethod
    def output(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """The int8 tensor of a QuantizeLinear at a graph output."""

    def rewrite(self) -> ir.Model:
        """The rewritten model."""
        for pair in self._plan.moved:
            self.graph.split(pair.source, pair.output)
        left = [p for p in self._plan.pairs if not p.elided]
        for pair in self._plan.pairs:
            if pair.elided:
                self._pair(pair)
        # a quantizer that a layer and a pair share has the layer's name
        for site in self._plan.sites:
            self._site(site)
        for pair in (*left, *self._plan.moved):
            self._pair(pair)
        for node in [n for n in self.graph.nodes.values() if n.op_type == "Gemm" and n.domain == ""]:
            self._alpha_behind(node)
        for out, source, quantizer in self._plan.outputs:
            old = self.graph.values[out]
            producer = old.producer()
            assert producer is not None
            value = self.graph.current(self.graph.values[source])
            self.graph.replace(old, self.output(value, quantizer, producer.name or out, producer))
        return self.finish()

    def finish(self) -> ir.Model:
        """The graph without what nothing reads, under the source's names."""
        return self.graph.finish(self._plan.constants)

    def nodes_of(self, site_name: str) -> tuple[str, ...]:
        """Names of a layer's nodes: its quantizer (maybe shared), itself, and the nodes behind it.

        Of a layer that stays float none, unless it is written as several.
        """
        return tuple(n.name or "" for n in self._layer_nodes.get(site_name, ()))

    def quantized_weight(self, site: Site, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.INT8) -> ir.Value:
        """The layer's integers, computed when they are written; layers with the same integers share them."""
        assert site.weight is not None  # asked of sites with a weight alone
        key = (*site.weight.key, shape)
        if key not in self._weights:
            self._weights[key] = self.graph.initializer(site.weight.name, QuantizedTensor(site.weight, shape, dtype))
        return self._weights[key]

    def _pair(self, pair: Pair) -> None:
        old = self.graph.values[pair.output]
        at = old.producer()
        assert at is not None
        uses = old.uses()
        if not old.is_graph_output() and all(self._is_site_input(use.node, use.idx) for use in uses):
            # a layer may still look for what an elided pair stands for, though the quantizer between was left out
            if uses or not pair.elided:
                return
        start = len(self.graph.inserted)
        new = self._floats_of(pair, at)
        self.quantizing.pairs[pair.output] = tuple(self.graph.inserted[start:])
        self.graph.replace(old, new)

    def _floats_of(self, pair: Pair, at: ir.Node) -> ir.Value:
        """What stands in the place of a pair's result."""
        quantizer = pair.quantizer
        assert quantizer is not None
        if not pair.source:
            integer = at.inputs[0]
            assert integer is not None
            return float_dequantize(self.graph, integer, quantizer, f"{at.name}.fakequant", at)
        source = self.graph.current(self.graph.values[pair.source])
        if pair.elided:
            return source
        if pair.dropped:
            return source if pair.clip is None else self._saturated(source, pair.clip, quantizer, at)
        if not quantizer.per_tensor_int8:
            chain = partial(float_chain, self.graph, source, quantizer, f"{at.name}.fakequant", at)
            return self._shared(source, quantizer, "floats", at, chain)
        scale = float(quantizer.scale_d) if pair.read_scale is None else pair.read_scale
        quantized = self._shared_quantize(source, quantizer, f"{at.name}.quant", at)
        make = partial(self.antiquantize, quantized, quantizer, scale, f"{at.name}{ANTI_QUANT}", at)
        return self._shared(quantized, quantizer, f"floats of {scale}", at, make)

    def _is_site_input(self, node: ir.Node, index: int) -> bool:
        site = self._sites.get(node.name or "")
        return site is not None and index < len(site.activations)

    def _clipped(self, source: ir.Value, quantizer: Quantizer, at: ir.Node) -> ir.Value:
        """A narrower range is an int8 quantizer behind a Clip whose bounds lie on the grid."""
        if (quantizer.low, quantizer.high) == (arithmetic.INT8_MIN, arithmetic.INT8_MAX):
            return source
        return self._shared(source, quantizer, "clip", at, lambda: self._clip(source, quantizer, at))

    def _saturated(self, source: ir.Value, bounds: tuple[float, float], quantizer: Quantizer, at: ir.Node) -> ir.Value:
        """What is left of a dropped quantizer that stood for a Relu or a Clip."""
        kind = quantizer.float_type
        if bounds == (0.0, np.inf):
            return self.graph.node("Relu", [source], f"{at.name}.relu", dtype=kind, before=at)
        limits = [
            None
            if np.isinf(number)
            else self.graph.constant(f"{at.name}.clip.{label}", np.asarray(number, kind.numpy()))
            for label, number in zip(("min", "max"), bounds, strict=True)
        ]
        return self.graph.node("Clip", [source, *limits], f"{at.name}.clip", dtype=kind, before=at)

    def _clip(self, source: ir.Value, quantizer: Quantizer, at: ir.Node) -> ir.Value:
        kind = np.float16 if quantizer.float_type == ir.DataType.FLOAT16 else np.float32
        bounds = [
            self.graph.constant(
                f"{at.name}.clip.{label}", np.asarray(np.float32(limit - quantizer.offset_d) * quantizer.scale_d, kind)
            )
            for label, limit in (("min", quantizer.low), ("max", quantizer.high))
        ]
        value = self.graph.node("Clip", [source, *bounds], f"{at.name}.clip", dtype=quantizer.float_type, before=at)
        self.quantizing.clips.append(self.graph.inserted[-1])
        return value

    def _activation(self, activation: Activation, site: Site, name: str, node: ir.Node) -> ir.Value:
        """What a layer reads of a tensor that is quantized for it."""
        source, quantizer = self.graph.current(self.graph.values[activation.source]), activation.quantizer
        if site.transpose_input:
            source = self._shared(source, quantizer, "transpose", node, lambda: self._transpose(source, site, node))
        source = self.lift(source, site, node)
        return self._shared_quantize(source, quantizer, name, node)

    def _site(self, site: Site) -> None:
        node = self.graph.nodes[site.node]
        names = (f"{site.node}.quant", f"{site.node}.second.quant")
        inputs = [self._activation(a, site, n, node) for a, n in zip(site.activations, names, strict=False)]
        quantizing = dict.fromkeys(n for value in inputs for n in self._chains[value])
        start = len(self.graph.inserted)
        if site.weight is not None:
            inputs.append(self.weight(site, node))
        behind = site.bias is not None and LAYER_KINDS[node.op_type].bias_input is None
        if site.bias is not None and not behind:
            inputs.append(self.bias(site, node))
        attributes = self.attributes(site)
        if node.op_type == "Gemm":
            attributes = [ir.AttrInt64("transB", 0)] if "transB" in node.attributes else []
        new = ir.Node("", node.op_type, inputs, attributes, num_outputs=1, name=node.name, doc_string=node.doc_string)
        old = node.outputs[0]
        shape, last = old.shape, old
        new.outputs[0].name = self.graph.free_value_name(
            f"{site.node}_output0" if old.is_graph_output() else f"{site.node}.acc"
        )
        if not old.is_graph_output():
            self.graph.wish(new.outputs[0], old.name or "")
        self._accumulator_type(new.outputs[0], self.lifted(shape, site))
        assert node.graph is not None
        node.graph.insert_after(node, new)
        result, tail = new.outputs[0], new
        absorbed = [self.graph.nodes[name] for name in site.absorbed]
        if absorbed:
            last = absorbed[-1].outputs[0]
        if behind:
            result = self._bias_add(site, new, absorbed)
            producer = result.producer()
            assert producer is not None
            tail = producer
        result = self.dequantize(result, site, site.rank, tail)
        if site.input_sum is not None:
            result = self._plus_input_sum(result, site, site.input_sum, new)
        result = self.lower(result, site)
        if site.float_bias is not None:
            result = self._plus_bias(result, site, site.float_bias, old.shape)
        self._layer_nodes[site.node] = [*quantizing, new, *self.graph.inserted[start:]]
        self.graph.replace(last, result)

    def _plus_bias(self, result: ir.Value, site: Site, bias: Float32, shape: ir.Shape | None) -> ir.Value:
        """Add a bias that the integers do not hold, as floats in the source's type."""
        producer = result.producer()
        assert producer is not None
        layout = Layout(LAYER_KINDS[self.graph.nodes[site.node].op_type])
        with np.errstate(over="ignore"):
            floats = layout.along_result(bias, site.rank).astype(site.float_type.numpy())
        addend = self.graph.constant(site.bias_name or f"{site.node}.bias", floats)
        result.shape = shape
        name = f"{site.node}.bias_add"
        return self.graph.node("Add", [result, addend], name, dtype=site.float_type, after=producer)

    def _plus_input_sum(self, result: ir.Value, site: Site, input_sum: Float32, layer: ir.Node) -> ir.Value:
        """Add what an asymmetric weight was shifted by, times the sum of what the layer reads.

        The sum is a layer like the first, of one output channel and weights of 1; its scale is the largest factor.
        """
        assert site.weight is not None  # it is the weight's shift that the sum makes up for
        name, shape, layout = f"{site.node}.sum", list(site.weight.shape), Layout(LAYER_KINDS[layer.op_type])
        shape[layout.channel_axis(len(shape))] = 1
        largest = input_sum[np.abs(input_sum).argmax()]
        scale, sign = np.abs(largest).reshape(1), np.sign(largest).astype(np.int8)
        ones = Weight(lambda: np.full(shape, sign), tuple(shape), scale, f"{name}.weight", ("sum", *shape, int(sign)))
        summing = replace(site, node=name, weight=ones, deq_scale=scale, bias=None, float_bias=None, split_scale=False)
        weight, sums = self.weight(summing, layer), layer.outputs[0].shape
        total = self.graph.node(layer.op_type, [layer.inputs[0], weight], name, layer.attributes.values(), after=layer)
        if sums is not None:
            axis = layout.kind.result_axis % len(sums)
            sums = ir.Shape([1 if a == axis else n for a, n in enumerate(sums)])
        self._accumulator_type(total, sums)
        added = self.dequantize(total, summing, len(shape), layer)
        added.shape, result.shape = sums, layer.outputs[0].shape
        ratio = (input_sum / largest).astype(site.float_type.numpy())
        if np.any(ratio != 1):
            assert weight.shape is not None
            factor = self.graph.constant(f"{name}.ratio", layout.along_result(ratio, len(weight.shape)))
            added = self.graph.node("Mul", [added, factor], f"{name}.mul", dtype=site.float_type, after=layer)
            added.shape = result.shape
        return self.graph.node("Add", [result, added], f"{name}.add", dtype=site.float_type, after=layer)

    def _alpha_behind(self, node: ir.Node) -> None:
        """The alpha of a Gemm that stays float and has no C, as a Mul: ATC's plugin drops it there."""
        alpha, old = node.attributes.get("alpha"), node.outputs[0]
        if (node.name or "") in self._sites or alpha is None or alpha.as_float() == 1.0:
            return
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            return
        kind = float_type_of(old)
        attributes = [a for a in node.attributes.values() if a.name != "alpha"]
        new = ir.Node("", "Gemm", node.inputs[:2], attributes, num_outputs=1, name=node.name)
        new.outputs[0].name = self.graph.free_value_name(f"{node.name}.product")
        new.outputs[0].type, new.outputs[0].shape = ir.TensorType(kind), old.shape
        assert node.graph is not None
        node.graph.insert_after(node, new)
        factor = self.graph.constant(f"{node.name}.alpha.factor", np.asarray(alpha.as_float(), kind.numpy()))
        result = self.graph.node("Mul", [new.outputs[0], factor], f"{node.name}.alpha", dtype=kind, after=new)
        self._layer_nodes[node.name or ""] = [n for v in (new.outputs[0], result) if (n := v.producer()) is not None]
        self.graph.replace(old, result)

    def _bias_add(self, site: Site, layer: ir.Node, absorbed: list[ir.Node]) -> ir.Value:
        """The Add of a MatMul's int32 bias, under the name of the source's Add."""
        source = next((n for n in absorbed if n.op_type == "Add"), None)
        name = (source.name if source is not None else None) or f"{site.node}.bias_add"
        out = self.graph.node("Add", [layer.outputs[0], self.bias(site, layer)], name, after=layer)
        producer = out.producer()
        assert producer is not None
        self._accumulator_type(out, layer.outputs[0].shape)
        if source is not None:
            source.name, producer.name = f"{source.name}.source", source.name
            if source.outputs[0].is_graph_output():
                out.name = self.graph.free_value_name(f"{name}_output0")
            else:
                self.graph.wish(out, source.outputs[0].name or "")
        return out

    def _transpose(self, source: ir.Value, site: Site, at: ir.Node) -> ir.Value:
        perm = [ir.AttrInt64s("perm", [1, 0])]
        return self.graph.node(
            "Transpose", [source], f"{site.node}.transpose", perm, site.quantizer.float_type, before=at
        )

    def _shared_quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """One quantizer for all readers in one graph that quantize the same tensor alike."""
        source = self._clipped(source, quantizer, at)
        return self._shared(source, quantizer, "quant", at, lambda: self.quantize(source, quantizer, name, at))

    def _shared(
        self, source: ir.Value, quantizer: Quantizer, what: str, at: ir.Node, make: Callable[[], ir.Value]
    ) -> ir.Value:
        """A derived tensor, made once for all readers in one graph; the ledger names its nodes for each reader."""
        made = self._derived.setdefault((quantizer.shifted, what, id(at.graph)), {})
        # what a tensor was derived from may have been replaced since
        found = next((made[s] for s in self.graph.before(self.graph.current(source)) if s in made), None)
        if found is None:
            start = len(self.graph.inserted)
            found = make()
            made[source] = found
            self._chains[found] = [*self._chains.get(source, []), *self.graph.inserted[start:]]
        return found

    def _accumulator_type(self, value: ir.Value, shape: ir.Shape | None) -> None:
        value.shape = shape
        value.type = ir.TensorType(self.accumulator_dtype)

    accumulator_dtype: ir.DataType = ir.DataType.INT32
