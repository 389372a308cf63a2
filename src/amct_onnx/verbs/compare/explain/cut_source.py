"""The source cut at every compared tensor: fed with another model's values there, each piece shows its own error alone.

What a tensor of another model differs from the source's is the sum of all that went wrong before it. Cut, each piece
of the source computes from the very numbers that the other model's piece read, so nothing is inherited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import INT8_MAX, INT8_MIN
from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.files.model_bytes import model_bytes
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.quantizer_nodes import BETWEEN, DEQUANTIZE, QUANTIZE, is_op
from amct_onnx.plan.factors import Activation, Pair, Reader
from amct_onnx.verbs.compare.explain.source_grids import Grid
from amct_onnx.verbs.compare.job import Job
from amct_onnx.verbs.compare.measure.sessions import ModelBytes, open_reference, run_named, tensors_of

ULP = 2.0**-20
"""Relative: a product of an integer and a scale may be rounded once or twice."""


@dataclass(frozen=True)
class Segment:
    """What makes one compared tensor out of the compared tensors and graph inputs before it.

    Attributes:
        starts: names of the tensors that enter.
        nodes: in graph order, the nodes of bodies behind their node.
        ratios: by which AscendAntiQuant may multiply what AscendQuant made, as the ledger tells.
    """

    starts: tuple[str, ...]
    nodes: tuple[ir.Node, ...]
    ratios: frozenset[float] = frozenset({1.0})


class CutSource:
    """A session of the cut source.

    Args:
        job: see ``make_job``.
        model: the job's source; is used up.
        source: the source's tensors on the batch that will be run, which tell types and shapes that the model does
            not declare.
        grids: see ``source_grids``.
        left_out: pairs that the other models do not have, because they were to be dropped: nor has the cut source.
        quantized: how the other models quantize the inputs of int8 layers, without these pairs.
        stage: is told what is being done.
    """

    def __init__(
        self,
        job: Job,
        model: ir.Model,
        source: Mapping[str, Array],
        grids: Mapping[str, Grid] | None = None,
        left_out: Sequence[Pair] = (),
        quantized: Mapping[Reader, Activation] | None = None,
        stage: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._source = source
        self._grids = {q.tensor: Grid(q.scale, q.offset, INT8_MIN, INT8_MAX) for q in job.quantizers}
        self._grids |= grids or {}
        values = tensors_of(model)
        quantized = quantized or {}
        _quantize_alike(model, quantized)
        _leave_out(model, values, left_out, quantized)
        self._feeds: dict[str, str] = {}
        self._unrounded: dict[str, str] = {}
        resized = {t.source for t in job.tracked if t.resized}
        for name in dict.fromkeys(t.source for t in job.tracked):
            if name not in values:  # an output that is an initializer: nothing is computed from it
                continue
            value = values[name]
            dtype = source[name].dtype
            if value.is_graph_input() or dtype.kind != "f" or not value.uses():
                continue
            read = list(value.uses())
            # with pairs left out, only a layer's own quantizer rounds
            rounded = [u for u in read if not left_out or (u.node.name, u.idx) in quantized]
            for label, uses in (("fed", rounded), ("unrounded", [u for u in read if u not in rounded])):
                if not uses:
                    continue
                kind = ir.TensorType(ir.DataType.from_numpy(dtype))
                shape = ir.Shape([None] * source[name].ndim if name in resized else source[name].shape)
                # without shapes, ONNX Runtime cannot infer those of the body of a Scan, which needs them
                fed = ir.Value(name=f"{name}!{label}", type=kind, shape=shape)
                model.graph.inputs.append(fed)
                for use in uses:
                    use.node.replace_input_with(use.idx, fed)
                (self._feeds if label == "fed" else self._unrounded)[name] = fed.name or ""
        content = model_bytes(model)
        self._label = job.source.label
        stage("opening the source in pieces")
        self._session = open_reference(ModelBytes(job.source.label, content, job.source.shown), job.threads)

    def run(self, feeds: Mapping[str, Array], other: Mapping[str, Array], job: Job, model: str) -> dict[str, Array]:
        """What each piece of the source makes of another model's values, by name of the source's tensor.

        Args:
            feeds: of the batch.
            other: the other model's tensors.
            job: the one that tells the other model's names; of the same source.
            model: its key.

        Raises:
            UnsupportedModelError: The pieces cannot be run, though the whole source can.
        """
        given = dict(feeds)
        for t in job.tracked:
            like, values = self._source[t.source], other[t.others[model]]
            values = values if t.resized else values.reshape(like.shape)
            if t.source in self._feeds:
                given[self._feeds[t.source]] = self._fed(t.source, values)
            if t.source in self._unrounded:
                given[self._unrounded[t.source]] = values.astype(like.dtype)
        names = list(dict.fromkeys(t.source for t in job.tracked))
        try:
            return run_named(self._session, names, given)
        except Exception as error:  # onnxruntime's classes share no base
            raise UnsupportedModelError(
                f"{self._label}: the source in pieces cannot be run ({error}). Give shapes to all tensors of the model."
            ) from error

    def _fed(self, name: str, values: Array) -> Array:
        """As the source's readers take them.

        A layer may read what lies on its grid already, without a quantizer of its own, where the other model left out
        the pair before it and quantizes in front of the layer.
        """
        like, grid = self._source[name], self._grids.get(name)
        if grid is not None and np.allclose(grid.round(like), like, rtol=ULP, atol=0, equal_nan=True):
            values = grid.round(values)
        return values.astype(like.dtype)


def _quantize_alike(model: ir.Model, quantized: Mapping[Reader, Activation]) -> None:
    """Give the quantizers of int8 layers the scales of the other models' quantizers.

    A layer may read a pair of a slightly other scale than its own, so that both make the same integers: the other
    models quantize with that scale. What is unrounded, as the pair was left out, shows the difference.
    """
    for node in list(model.graph):
        for index, value in enumerate(node.inputs):
            activation = quantized.get((node.name or "", index))
            quantizer = None if value is None else _behind(value.producer())
            if activation is None or quantizer is None or activation.read_scale == activation.quantizer.scale_d:
                continue
            read, scale = quantizer.inputs[:2]
            # behind a factor the layer's own scale is right
            if read is not None and scale is not None and read.name == activation.source:
                kind = (scale.dtype or ir.DataType.FLOAT).numpy()
                own = np.full(() if scale.shape is None else scale.shape.numpy(), activation.quantizer.scale_d, kind)
                quantizer.replace_input_with(1, _constant(model, own, f"{node.name}!{index}!scale"))


def _behind(node: ir.Node | None) -> ir.Node | None:
    """The QuantizeLinear of a pair, at its end or within; None where there is none."""
    while node is not None and is_op(node, DEQUANTIZE, *BETWEEN) and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if is_op(node, QUANTIZE) else None


def _leave_out(
    model: ir.Model, values: Mapping[str, ir.Value], pairs: Sequence[Pair], quantized: Collection[Reader]
) -> None:
    """Let the readers of the pairs read what the pairs quantize, in the bounds that stay of a dropped one."""
    instead: dict[str, ir.Value] = {}
    # a pair that was moved has no tensor of its own in the source: its readers are those of what it quantizes
    for pair in sorted(pairs, key=lambda p: p.output in values):
        source = _source_of(pair, values, instead)
        value = values.get(pair.output, source)
        if source is None or value is None:
            continue
        uses = [u for u in value.uses() if (u.node.name, u.idx) not in quantized]
        if pair.clip is not None:
            source = _clipped(model, source, pair)
        instead[pair.output] = source
        for use in uses:
            use.node.replace_input_with(use.idx, source)
        for index, output in enumerate(model.graph.outputs):
            if output is value and source is not value:
                model.graph.outputs[index] = _named(model, source, value)
    if pairs:
        model.graph.sort()


def _source_of(pair: Pair, values: Mapping[str, ir.Value], instead: Mapping[str, ir.Value]) -> ir.Value | None:
    """What the quantizer of a pair reads in the source.

    One that takes the integers of another pair names what that one reads, in front of the factor that stands between.
    """
    value = values.get(pair.output)
    node = None if value is None else _behind(value.producer())
    if node is None or pair.source not in values:
        return instead.get(pair.source, values.get(pair.source))
    return node.inputs[0]


def _clipped(model: ir.Model, source: ir.Value, pair: Pair) -> ir.Value:
    """A Max and a Min with the bounds of a pair."""
    assert pair.clip is not None
    for op_type, bound in zip(("Max", "Min"), pair.clip, strict=True):
        if not math.isinf(bound):
            kind = source.dtype or ir.DataType.FLOAT
            limit = _constant(model, np.asarray(bound, kind.numpy()), f"{pair.output}!{op_type}!bound")
            source = _appended(model, op_type, [source, limit], f"{pair.output}!{op_type}")
    return source


def _constant(model: ir.Model, number: Array, name: str) -> ir.Value:
    """A new initializer."""
    tensor = ir.tensor(number, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(number.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _named(model: ir.Model, source: ir.Value, value: ir.Value) -> ir.Value:
    """A tensor under the name of a graph output that it replaces."""
    name, value.name = value.name or "", f"{value.name}!left_out"
    result = _appended(model, "Identity", [source], name)
    result.type, result.shape = value.type, value.shape
    return result


def _appended(model: ir.Model, op_type: str, inputs: list[ir.Value], name: str) -> ir.Value:
    """The output of a new node; the graph is sorted when all are there."""
    node = ir.Node("", op_type, inputs, num_outputs=1, name=f"{name}!node")
    node.outputs[0].name = name
    node.outputs[0].type = inputs[0].type
    model.graph.append(node)
    return node.outputs[0]


class Places:
    """The tensors of a graph, and where its nodes stand, looked up many times.

    Args:
        model: is not changed meanwhile.
    """

    def __init__(self, model: ir.Model) -> None:
        self.graph, self.tensors = model.graph, tensors_of(model)
        self.of_node = {node: place for place, node in enumerate(model.graph)}


def segment(places: Places, end: str, cuts: Set[str]) -> Segment:
    """The nodes of a model between a tensor and the ``cuts`` before it.

    Args:
        places: of any of the three.
        end: name of the tensor.
        cuts: names of tensors.
    """
    values = places.tensors
    if end in cuts:  # nothing stands there: the model's piece has no node
        return Segment((end,), ())
    starts: dict[str, None] = {}
    found: dict[ir.Node, None] = {}
    waiting = [values[end]] if end in values else []
    while waiting:
        producer = waiting.pop().producer()
        if producer is None or producer in found:
            continue
        found[producer] = None
        read = [v for v in producer.inputs if v is not None]
        read += [v for n in _inside(producer) for v in n.inputs if v is not None and v.graph is places.graph]
        for value in read:
            if (value.name or "") in cuts or value.is_graph_input():
                starts[value.name or ""] = None
            else:
                waiting.append(value)
    nodes = sorted(found, key=places.of_node.__getitem__)
    return Segment(tuple(starts), tuple(n for top in nodes for n in (top, *_inside(top))))


def _inside(node: ir.Node) -> list[ir.Node]:
    """The nodes of a node's bodies."""
    return [n for g in bodies_of(node) for n in ir.traversal.RecursiveGraphIterator(g)]
