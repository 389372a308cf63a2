"""A hypothesis strategy for Q/DQ graphs that onnxruntime can run, with inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from support.qdq_builder import QdqBuilder
from support.random_layers import Layers
from support.random_moves import Moves
from support.random_quantizers import Live

OPSETS = tuple(v for v in (10, 11, 12, 13, 15, 17, 18, 19, 21, 23, 24) if v <= onnx.defs.onnx_opset_version())
BATCH = 2


@dataclass(frozen=True)
class Case:
    """A model, inputs for it, and what is known of it."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    exact: bool
    half: bool
    bodies: bool
    layers: tuple[str, ...]


class _Maker(Layers, Moves):
    bodies = False

    def step(self, *, inside: bool = False) -> None:
        source = self.pick(*self.live[-3:])
        rank = len(source.shape)
        options = ["between", "between", "matmul"]
        if rank >= 3 and source.shape[1] <= 16:
            options += ["conv", "conv", "conv_transpose"]
        elif rank == 2:
            options += ["gemm", "gemm"]
        if rank >= 2:
            options.append("product")
        if not inside and self.seldom():
            options = ["branch", "loop", "scan"]
        getattr(self, self.pick(*options))(source)

    # -- bodies ------------------------------------------------------------------------------------------------

    def _body(self, source: Live, outer: bool) -> tuple[list[onnx.NodeProto], Live]:
        """Nodes that make a tensor of the shape of ``source`` from it, and, when ``outer``, from what is around."""
        kept = self.b.nodes, self.live, self.quantized, self.biases, self.weights
        self.b.nodes, self.live = [], [*self.live, source] if outer else [source]
        self.quantized = list(self.quantized) if outer else []
        self.biases, self.weights = {}, list(self.weights)
        count = len(self.live)
        for _ in range(self.pick(1, 2, 3)):
            self.step(inside=True)
        fits = [v for v in self.live[count:] if v.shape == source.shape]
        value = fits[-1] if fits else Live(self.quantize(source), source.shape)
        # a body hands out a tensor of its own
        result = Live(self.b.node("Identity", [value.name]), source.shape)
        nodes = self.b.nodes
        self.b.nodes, self.live, self.quantized, self.biases, self.weights = kept
        return nodes, result

    def _info(self, live: Live) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            live.name, TensorProto.FLOAT16 if self.half else TensorProto.FLOAT, live.shape
        )

    def branch(self, source: Live) -> None:
        graphs = []
        for name in ("then", "else"):
            nodes, result = self._body(source, outer=True)
            graphs.append(helper.make_graph(nodes, name, [], [self._info(result)]))
        condition = self.b.constant(np.asarray(self.yes()))
        self._hold("If", [condition], source.shape, then_branch=graphs[0], else_branch=graphs[1])

    def loop(self, source: Live) -> None:
        inner = Live(self.b.fresh("carried"), source.shape)
        nodes, result = self._body(inner, outer=self.yes())
        number, go_on, stay = (self.b.fresh(p) for p in ("number", "go_on", "stay"))
        nodes.append(helper.make_node("Identity", [go_on], [stay], stay))
        graph = helper.make_graph(
            nodes,
            "body",
            [
                helper.make_tensor_value_info(number, TensorProto.INT64, []),
                helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
                self._info(inner),
            ],
            [helper.make_tensor_value_info(stay, TensorProto.BOOL, []), self._info(result)],
        )
        self._hold("Loop", [self.b.constant(np.asarray(2, np.int64)), "", source.name], source.shape, body=graph)

    def scan(self, source: Live) -> None:
        """The layers see one row of the batch at a time."""
        inner = Live(self.b.fresh("row"), source.shape[1:])
        nodes, result = self._body(inner, outer=False)
        graph = helper.make_graph(nodes, "body", [self._info(inner)], [self._info(result)])
        self._hold("Scan", [source.name], source.shape, body=graph, num_scan_inputs=1)

    def _hold(self, op_type: str, inputs: list[str], shape: tuple[int, ...], **graphs: Any) -> None:
        self.bodies = True
        self.live.append(Live(self.b.node(op_type, inputs, **graphs), shape))

    # -- the whole ---------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Leaves become outputs; sometimes an inner tensor, a quantized one, or integers too."""
        read = {name for node in self.b.nodes for name in reads(node)}
        names = [t for t in self.live if t.name not in read]
        inner = [t for t in self.live if t.name in read and t.name not in {i.name for i in self.b.inputs}]
        if inner and self.yes():
            names.append(self.pick(*inner))
        produced = {o for n in self.b.nodes for o in n.output}
        for live in dict.fromkeys(names):
            if live.name in produced:
                self.b.outputs.append(self._info(live))
        alive = needed(self.b.model().graph) if self.b.outputs else set()
        # a quantizer that no output depends on is none of the model's
        if self.yes() or not any(n.op_type == "DequantizeLinear" and n.name in alive for n in self.b.nodes):
            live, kind = self.live[-1], self.pick("int8", "uint8")
            value = self._cast(live.name, TensorProto.FLOAT) if self.half else live.name
            factors = self._factors(np.asarray(self.scale(), np.float32), 5, kind, False)
            name = self.b.node("QuantizeLinear", [value, *factors])
            self.b.output(name, TensorProto.INT8 if kind == "int8" else TensorProto.UINT8, live.shape)


def reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node and its bodies read."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names |= {n for inner in attribute.g.node for n in reads(inner)}
            names |= {o.name for o in attribute.g.output}
    return names


@st.composite
def cases(draw: Any, *, exact: bool = False, half: bool = False) -> Case:
    """A graph of one to eight steps; the name of every candidate layer that an output needs is in ``layers``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    opset = draw(st.sampled_from([v for v in OPSETS if v >= 13] if half else OPSETS))
    m = _Maker(draw, exact, half, QdqBuilder(opset), rng)
    rank = draw(st.sampled_from([2, 3, 4, 4, 5]))
    shape = (BATCH, *((4, 5, 4, 3)[: rank - 1]))
    feeds = {}
    for index in range(draw(st.integers(1, 2))):
        name = f"x{index}"
        m.b.inputs.append(m._info(Live(name, shape)))
        m.live.append(Live(name, shape))
        step = 2.0**-6 if exact else 0.0173
        feeds[name] = (rng.integers(-800, 800, shape) * step).astype(m.float_type)
    for _ in range(draw(st.integers(1, 8))):
        m.step()
    m.finish()
    extra = [("com.microsoft", 1), ("ai.onnx.ml", 3)] if draw(st.booleans()) else []
    model = m.b.model(extra_opsets=extra)
    if draw(st.booleans()):
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    # what the graph does not use, no one may ask for
    used = {name for n in model.graph.node for name in reads(n)}
    kept = [i for i in model.graph.input if i.name in used]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    if draw(st.booleans()):
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
        )
    feeds = {i.name: feeds[i.name] for i in kept}
    alive = needed(model.graph)
    return Case(model, feeds, exact, half, m.bodies, tuple(name for name in m.layers if name in alive))


def needed(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that an output of their graph depends on, those of bodies included."""
    return _needed(graph)[0]


def _needed(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Nodes that the outputs depend on, and tensors that these read."""
    names, wanted = set(), {o.name for o in graph.output}
    for node in reversed(graph.node):
        if not wanted & set(node.output):
            continue
        names.add(node.name)
        wanted |= set(node.input)
        for inner in (_needed(a.g) for a in node.attribute if a.HasField("g")):
            names |= inner[0]
            wanted |= inner[1]
    return names, wanted
