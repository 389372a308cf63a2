"""Apply a plan to a copy of the graph; the two model writers differ only in the operators they put in."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from amct_onnx import arithmetic
from amct_onnx.emit.quantized_tensor import QuantizedTensor
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.normalise.container import bodies
from amct_onnx.normalise.float_types import float_type_of
from amct_onnx.normalise.graph_edit import FreeNames, nodes_of
from amct_onnx.plan.factors import Pair, Plan, Quantizer, Site, Weight


class Writer(abc.ABC):
    """Rewrites one copy of the normalised graph according to a plan."""

    def __init__(self, model: ir.Model, plan: Plan) -> None:
        self._model = model.clone()
        self._graph = self._model.graph
        self._plan = plan
        nodes = nodes_of(self._model)
        self._nodes: dict[str, ir.Node] = {n.name or "": n for n in nodes}
        self._values: dict[str, ir.Value] = {}
        for graph in self._graphs():
            self._values.update({v.name or "": v for v in [*graph.inputs, *graph.initializers.values()]})
        for node in nodes:
            self._values.update({v.name or "": v for v in node.outputs})
        self._value_names = FreeNames(self._values)
        self._site_names = {s.node for s in plan.sites}
        # ATC names the graph inputs' nodes after them
        self._node_names = FreeNames([*self._nodes, *(v.name for v in self._graph.inputs)])
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._wished: list[tuple[ir.Value, str]] = []
        self._made: dict[tuple[str, Quantizer, str, int], ir.Value] = {}
        self._weights: dict[tuple[object, ...], ir.Value] = {}
        self._inserted: list[ir.Node] = []
        self._chains: dict[ir.Value, list[ir.Node]] = {}
        self._site_nodes: dict[str, list[ir.Node]] = {}

    @abc.abstractmethod
    def quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """The quantized form of a float tensor, as the layer of this model reads it."""

    @abc.abstractmethod
    def antiquantize(self, quantized: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """The float form of what ``quantize`` gave."""

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
        # what sites and pairs read is looked up before anything moves
        sources = {s.node: self._values[s.source] for s in self._plan.sites}
        for pair in self._plan.pairs:
            self._pair(pair)
        for site in self._plan.sites:
            self._site(site, sources[site.node])
        for node in [n for n in self._nodes.values() if n.op_type == "Gemm" and n.domain == ""]:
            self._alpha_behind(node)
        for out, source, quantizer in self._plan.outputs:
            old = self._values[out]
            producer = old.producer()
            assert producer is not None
            self._replace(
                old, self.output(self._current(self._values[source]), quantizer, producer.name or out, producer)
            )
        RemoveUnusedNodesPass()(self._model)
        if self._fold_constants():
            RemoveUnusedNodesPass()(self._model)
        self._drop_unused_initializers()
        self._drop_unused_opsets()
        self._graph.sort()
        self._give_wished_names()
        self._check()
        return self._model

    def nodes_of(self, site_name: str) -> tuple[str, ...]:
        """Names of the nodes that stand for a layer: its quantizer (maybe shared), itself, what follows it."""
        return tuple(n.name or "" for n in self._site_nodes.get(site_name, ()))

    def _fold_constants(self) -> bool:
        """Dequantized weights of layers that stay float, where something still reads them."""
        folded = False
        for name, compute in self._plan.constants.items():
            value = self._values[name]
            producer = value.producer()
            if producer is None or producer.graph is None or not (value.uses() or value.is_graph_output()):
                continue
            self._replace(value, self.constant(f"{name}.folded", np.asarray(compute())))
            folded = True
        return folded

    def _drop_unused_initializers(self) -> None:
        for graph in self._graphs():
            for name in [n for n, v in graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
                del graph.initializers[name]

    def _drop_unused_opsets(self) -> None:
        """One opset_import of the default domain, and those of other domains that nodes are of."""
        used = {n.domain for n in nodes_of(self._model)} | {""}
        version = self._model.opset_imports.get("", self._model.opset_imports.get("ai.onnx", 0))
        for domain in list(self._model.opset_imports):
            if domain not in used:
                del self._model.opset_imports[domain]
        self._model.opset_imports[""] = version

    def _check(self) -> None:
        """No quantizer of the source is left; value_info without a type, which cannot be written, goes."""
        for node in nodes_of(self._model):
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                raise UnsupportedModelError(
                    f"Node '{node.name}' ({node.op_type}) has no form in the outputs: what reads it is no "
                    "DequantizeLinear. Export the model with each QuantizeLinear followed by its DequantizeLinear."
                )
            for value in node.outputs:
                if value.type is None:
                    value.shape = None

    def _give_wished_names(self) -> None:
        """Source names that the removed half of the graph had occupied go to what stands in its place."""
        values = {v.name for n in nodes_of(self._model) for v in n.outputs}
        values |= {v.name for g in self._graphs() for v in [*g.inputs, *g.initializers.values()]}
        for value, name in self._wished:
            if value.name != name and name not in values and not value.is_graph_output():
                values.discard(value.name)
                values.add(name)
                value.name = name

    def _graphs(self) -> list[ir.Graph]:
        return [self._graph, *bodies(self._graph)]

    # -- what the writers share ------------------------------------------------------------------------------------

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Iterable[ir.Attr] = (),
        dtype: ir.DataType = ir.DataType.FLOAT,
        *,
        after: ir.Node | None = None,
        before: ir.Node | None = None,
    ) -> ir.Value:
        """Insert a node with one output."""
        name = self._node_names.take(name)
        new = ir.Node("", op_type, inputs, attributes, num_outputs=1, name=name)
        new.outputs[0].name = self._value_names.take(f"{name}.output0")
        new.outputs[0].type = ir.TensorType(dtype)
        self._inserted.append(new)
        at = before or after
        assert at is not None and at.graph is not None
        if before is not None:
            at.graph.insert_before(at, new)
        else:
            at.graph.insert_after(at, new)
        return new.outputs[0]

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Register an initializer under a name that is still free."""
        wished, name = name, self._value_names.take(name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        tensor.name = name
        self._graph.register_initializer(value)
        self._wished.append((value, wished))
        return value

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """Register a small initializer from an array."""
        return self.initializer(name, ir.Tensor(array))

    def quantized_weight(self, site: Site, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.INT8) -> ir.Value:
        """The layer's integers, computed when they are written; layers with the same integers share them."""
        key = (*site.weight.key, shape)
        if key not in self._weights:
            self._weights[key] = self.initializer(site.weight.name, QuantizedTensor(site.weight, shape, dtype))
        return self._weights[key]

    def _current(self, value: ir.Value) -> ir.Value:
        """What stands now for a tensor of the source that may have been replaced."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every reader of old read new; a graph output keeps its name."""
        if old.is_graph_output():
            name = old.name or ""
            if new.is_graph_output() or new.is_graph_input() or new.is_initializer():
                producer = old.producer()
                new = self.node(
                    "Identity", [new], f"{name}.identity", dtype=new.dtype or ir.DataType.FLOAT, after=producer
                )
            new.shape = old.shape
            old.name = self._value_names.take(f"{name}.replaced")
            new.name = name
            if new.dtype is None or new.dtype.is_floating_point():
                new.type = old.type
        elif new.shape is None:
            new.shape = old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        self._replaced[old] = new

    def _pair(self, pair: Pair) -> None:
        old = self._values[pair.output]
        at = old.producer()
        assert at is not None
        if not old.uses() and not old.is_graph_output():
            return
        if all(self._is_site_input(use.node, use.idx) for use in old.uses()) and not old.is_graph_output():
            return
        quantizer = pair.quantizer
        assert quantizer is not None
        if not pair.source:
            integer = at.inputs[0]
            assert integer is not None
            new = self._float_dequantize(integer, quantizer, f"{at.name}.fakequant", at)
            self._replace(old, new)
            return
        source = self._current(self._values[pair.source])
        if pair.elided:
            self._replace(old, source)
        elif quantizer.per_tensor_int8:
            quantized = self._shared_quantize(source, quantizer, f"{at.name}.quant", at)
            self._replace(old, self.antiquantize(quantized, quantizer, f"{at.name}.antiquant", at))
        else:
            self._replace(old, self._float_chain(source, quantizer, f"{at.name}.fakequant", at))

    def _is_site_input(self, node: ir.Node, index: int) -> bool:
        return index == 0 and (node.name or "") in self._site_names

    def _clipped(self, source: ir.Value, quantizer: Quantizer, at: ir.Node) -> ir.Value:
        """A narrower range is an int8 quantizer behind a Clip whose bounds lie on the grid."""
        if (quantizer.low, quantizer.high) == (arithmetic.INT8_MIN, arithmetic.INT8_MAX):
            return source
        return self._shared(source, quantizer, "clip", at, lambda: self._clip(source, quantizer, at))

    def _clip(self, source: ir.Value, quantizer: Quantizer, at: ir.Node) -> ir.Value:
        kind = np.float16 if quantizer.float_type == ir.DataType.FLOAT16 else np.float32
        bounds = [
            self.constant(
                f"{at.name}.clip.{label}", np.asarray(np.float32(limit - quantizer.offset_d) * quantizer.scale_d, kind)
            )
            for label, limit in (("min", quantizer.low), ("max", quantizer.high))
        ]
        return self.node("Clip", [source, *bounds], f"{at.name}.clip", dtype=quantizer.float_type, before=at)

    def _float_chain(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """Quantize and dequantize in float: 16-bit and per-channel factors, which no AscendQuant holds."""

        def factor(label: str, values: npt.ArrayLike) -> ir.Value:
            array = np.asarray(values, np.float32)
            if quantizer.axis is None:
                array = array.reshape(())
            else:
                if source.shape is None:
                    raise UnsupportedModelError(
                        f"Node '{at.name}' dequantizes per channel along axis {quantizer.axis}, and the rank of its "
                        f"tensor '{source.name}' is unknown. Declare the shapes of the graph's inputs and export again."
                    )
                rank = len(source.shape)
                shape = [1] * rank
                shape[quantizer.axis % rank] = -1
                array = array.reshape(shape)
            return self.constant(f"{name}.{label}", array)

        scale = factor("scale", quantizer.scale)
        zero = np.asarray(quantizer.zero_point, np.float32)
        value = self.to_float32(source, quantizer, name, at)
        value = self.node("Div", [value, scale], f"{name}.div", before=at)
        value = self.node("Round", [value], f"{name}.round", before=at)
        low, high = factor("low", quantizer.low - zero), factor("high", quantizer.high - zero)
        value = self.node("Max", [value, low], f"{name}.max", before=at)
        value = self.node("Min", [value, high], f"{name}.min", before=at)
        value = self.node("Mul", [value, scale], f"{name}.mul", before=at)
        return self.from_float32(value, quantizer, name, at)

    def _float_dequantize(self, integer: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """A DequantizeLinear of an integer tensor, in float operators (per-tensor or last-axis factors)."""
        value = self.node("Cast", [integer], f"{name}.cast", [ir.AttrInt64("to", int(ir.DataType.FLOAT))], before=at)
        shape = [1] * (len(integer.shape) if integer.shape is not None else 1)
        if quantizer.axis is not None:
            shape[quantizer.axis % len(shape)] = -1
        zero = np.asarray(quantizer.zero_point, np.float32).reshape(shape)
        scale = np.asarray(quantizer.scale, np.float32).reshape(shape)
        value = self.node("Sub", [value, self.constant(f"{name}.zero", zero)], f"{name}.sub", before=at)
        return self.node("Mul", [value, self.constant(f"{name}.scale", scale)], f"{name}.mul", before=at)

    def to_float32(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """Cast a tensor of another float type."""
        if quantizer.float_type == ir.DataType.FLOAT:
            return source
        return self.node("Cast", [source], f"{name}.cast", [ir.AttrInt64("to", int(ir.DataType.FLOAT))], before=at)

    def from_float32(self, value: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """Cast back to the source's float type."""
        kind = quantizer.float_type
        if kind == ir.DataType.FLOAT:
            return value
        return self.node("Cast", [value], f"{name}.cast_back", [ir.AttrInt64("to", int(kind))], kind, before=at)

    def _site(self, site: Site, source: ir.Value) -> None:
        node = self._nodes[site.node]
        source = self._current(source)
        if site.transpose_input:
            source = self._shared(
                source, site.quantizer, "transpose", node, lambda: self._transpose(source, site, node)
            )
        source = self.lift(source, site, node)
        quantized = self._shared_quantize(source, site.quantizer, f"{site.node}.quant", node)
        start = len(self._inserted)
        inputs = [quantized, self.weight(site, node)]
        # only MatMul has no bias input of its own
        behind = site.bias is not None and node.op_type == "MatMul"
        if site.bias is not None and not behind:
            inputs.append(self.bias(site, node))
        attributes = self.attributes(site)
        if node.op_type == "Gemm":
            attributes = [ir.AttrInt64("transB", 0)] if "transB" in node.attributes else []
        new = ir.Node("", node.op_type, inputs, attributes, num_outputs=1, name=node.name, doc_string=node.doc_string)
        old = node.outputs[0]
        shape, last = old.shape, old
        new.outputs[0].name = self._value_names.take(
            f"{site.node}_output0" if old.is_graph_output() else f"{site.node}.acc"
        )
        if not old.is_graph_output():
            self._wished.append((new.outputs[0], old.name or ""))
        self._accumulator_type(new.outputs[0], self.lifted(shape, site))
        assert node.graph is not None
        node.graph.insert_after(node, new)
        result, tail = new.outputs[0], new
        absorbed = [self._nodes[name] for name in site.absorbed]
        if absorbed:
            last = absorbed[-1].outputs[0]
        if behind:
            result = self._bias_add(site, new, absorbed)
            producer = result.producer()
            assert producer is not None
            tail = producer
        result = self.dequantize(result, site, len(site.weight.shape), tail)
        if site.input_sum is not None:
            result = self._plus_input_sum(result, site, site.input_sum, new)
        result = self.lower(result, site)
        self._site_nodes[site.node] = [*self._chains[quantized], new, *self._inserted[start:]]
        self._replace(last, result)

    def _plus_input_sum(
        self, result: ir.Value, site: Site, input_sum: npt.NDArray[np.float32], layer: ir.Node
    ) -> ir.Value:
        """Add what an asymmetric weight was shifted by, times the sum of what the layer reads.

        The sum is a layer like the first, of one output channel and weights of 1; its scale is the largest factor.
        """
        name, shape = f"{site.node}.sum", list(site.weight.shape)
        shape[0 if layer.op_type == "Conv" else 1] = 1
        largest = input_sum[np.abs(input_sum).argmax()]
        scale, sign = np.abs(largest).reshape(1), np.sign(largest).astype(np.int8)
        ones = Weight(lambda: np.full(shape, sign), tuple(shape), scale, f"{name}.weight", ("sum", *shape, int(sign)))
        summing = replace(site, node=name, weight=ones, deq_scale=scale, bias=None, split_scale=False)
        weight, sums = self.weight(summing, layer), layer.outputs[0].shape
        total = self.node(layer.op_type, [layer.inputs[0], weight], name, layer.attributes.values(), after=layer)
        convolves = layer.op_type.startswith("Conv")
        if sums is not None:
            axis = 1 if convolves else len(sums) - 1
            sums = ir.Shape([1 if a == axis else n for a, n in enumerate(sums)])
        self._accumulator_type(total, sums)
        added = self.dequantize(total, summing, len(shape), layer)
        added.shape, result.shape = sums, layer.outputs[0].shape
        ratio = (input_sum / largest).astype(site.float_type.numpy())
        if np.any(ratio != 1):
            assert weight.shape is not None
            spatial = [1] * (len(weight.shape) - 2)
            factor = self.constant(f"{name}.ratio", ratio.reshape([-1, *spatial]))
            added = self.node("Mul", [added, factor], f"{name}.mul", dtype=site.float_type, after=layer)
            added.shape = result.shape
        return self.node("Add", [result, added], f"{name}.add", dtype=site.float_type, after=layer)

    def _alpha_behind(self, node: ir.Node) -> None:
        """The alpha of a Gemm that stays float and has no C, as a Mul: ATC's plugin drops it there."""
        alpha, old = node.attributes.get("alpha"), node.outputs[0]
        if (node.name or "") in self._site_names or alpha is None or alpha.as_float() == 1.0:
            return
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            return
        kind = float_type_of(old)
        attributes = [a for a in node.attributes.values() if a.name != "alpha"]
        new = ir.Node("", "Gemm", node.inputs[:2], attributes, num_outputs=1, name=node.name)
        new.outputs[0].name = self._value_names.take(f"{node.name}.product")
        new.outputs[0].type, new.outputs[0].shape = ir.TensorType(kind), old.shape
        assert node.graph is not None
        node.graph.insert_after(node, new)
        factor = self.constant(f"{node.name}.alpha.factor", np.asarray(alpha.as_float(), kind.numpy()))
        self._replace(old, self.node("Mul", [new.outputs[0], factor], f"{node.name}.alpha", dtype=kind, after=new))

    def _bias_add(self, site: Site, layer: ir.Node, absorbed: list[ir.Node]) -> ir.Value:
        """The Add of a MatMul's int32 bias, under the name of the source's Add."""
        source = next((n for n in absorbed if n.op_type == "Add"), None)
        name = (source.name if source is not None else None) or f"{site.node}.bias_add"
        out = self.node("Add", [layer.outputs[0], self.bias(site, layer)], name, after=layer)
        producer = out.producer()
        assert producer is not None
        self._accumulator_type(out, layer.outputs[0].shape)
        if source is not None:
            source.name, producer.name = f"{source.name}.source", source.name
            if source.outputs[0].is_graph_output():
                out.name = self._value_names.take(f"{name}_output0")
            else:
                self._wished.append((out, source.outputs[0].name or ""))
        return out

    def _transpose(self, source: ir.Value, site: Site, at: ir.Node) -> ir.Value:
        perm = [ir.AttrInt64s("perm", [1, 0])]
        return self.node("Transpose", [source], f"{site.node}.transpose", perm, site.quantizer.float_type, before=at)

    def _shared_quantize(self, source: ir.Value, quantizer: Quantizer, name: str, at: ir.Node) -> ir.Value:
        """One quantizer for all readers in one graph that quantize the same tensor alike."""
        source = self._clipped(source, quantizer, at)
        return self._shared(source, quantizer, "quant", at, lambda: self.quantize(source, quantizer, name, at))

    def _shared(
        self, source: ir.Value, quantizer: Quantizer, what: str, at: ir.Node, make: Callable[[], ir.Value]
    ) -> ir.Value:
        """What was made of a tensor once, for all readers in one graph; the ledger names its nodes for each."""
        key = (source.name or "", quantizer, what, id(at.graph))
        if key not in self._made:
            start = len(self._inserted)
            self._made[key] = make()
            self._chains[self._made[key]] = [*self._chains.get(source, []), *self._inserted[start:]]
        return self._made[key]

    def _accumulator_type(self, value: ir.Value, shape: ir.Shape | None) -> None:
        value.shape = shape
        value.type = ir.TensorType(self.accumulator_dtype)

    accumulator_dtype: ir.DataType = ir.DataType.INT32
