"""The source model held to the fake-quant model's numbers layer by layer, so that each difference can be bounded.

Errors of layers that follow one another have no useful common bound: half a bias step flips an integer, the next layer
multiplies that. So the source is cut in front of and behind each int8 layer, and behind each quantizer that stays; the
cut ends are fed with the fake-quant model's values. Every difference is then local:

* a layer reads the same integers in both models. Source: sum(d * w) + b in float32, tail behind it. Fake-quant: an
  exact integer times deq_scale. With its bias rounded to a multiple of deq_scale (half a unit at most) the source
  equals it, up to float32.
* what lies between reads the same floats in both models and consists of the same operators: equal bit for bit, up to a
  quantizer, which divides by the scale in the source and multiplies by its reciprocal in the fake-quant model. Each
  must hold exactly what its own quotient rounds to; where the two differ, a tie lies between the quotients, and is
  counted.

Together: fake-quant and source differ by bias rounding and by ties, and by nothing else. With ``rounded_biases``, for a
source that ``quantize_bias`` wrote, not even bias rounding is granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from amct_onnx.common.arithmetic import reciprocal
from amct_onnx.files.read import read_model
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.float16_rounding import round_float16_nodes
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Pair, Plan, Quantizer, Site
from amct_onnx.plan.grid_weights import TOLERANCE as GRID_TOLERANCE
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import PlanSettings
from support.deploy_evaluator import KERNELS, run

Array = np.ndarray
HALF_TIE = 2.0**-20
"""Of the largest quotient of a float16 quantizer, how near a tie an integer may differ: one model divides by the scale,
the other multiplies by its reciprocal, in float32."""


def runnable(model: ir.Model) -> onnx.ModelProto:
    """A normalised model as onnxruntime takes it.

    The canonical Q and DQ take 16-bit integers and float16 in every opset; onnxruntime's own operators do so, too. They
    want scales of the tensor's type: casts stand around those of float16 tensors with float32 scales.
    """
    _spell_out_float16(model)
    proto = ir.to_proto(ir.external_data.load_to_model(model))
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = "com.microsoft"
    if not any(o.domain == "com.microsoft" for o in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return proto


@dataclass
class Cut:
    """One place where the source is cut.

    Attributes:
        observed: tensor of the source that is compared.
        fed: what its readers in the source read instead; "" when nothing is fed.
        fake: tensor of the fake-quant model with the same meaning; at a layer's input integers less their offset.
        quantizer: of the fake-quant model; None behind a layer.
        scale: by which its integers ``fake`` are multiplied.
        read: tensor of the fake-quant model that is quantized; "" behind a layer.
        site: the layer, when the place is behind it.
        half: whether the tensor is float16.
        turned: whether the fake-quant model holds the tensor transposed (Gemm transA).
    """

    observed: str
    fed: str
    fake: str
    quantizer: Quantizer | None = None
    scale: float = 1.0
    read: str = ""
    site: Site | None = None
    half: bool = False
    turned: bool = False

    def floats(self, fake: Mapping[str, Array]) -> Array:
        """The fake-quant model's values there in the source's form, float32."""
        value = fake[self.fake].T if self.turned else fake[self.fake]
        return value if self.quantizer is None else value * np.float32(self.scale)


class ForcedSource:
    """The cut source and the fake-quant model with all compared tensors as outputs; a normalised source is used up."""

    def __init__(
        self,
        source: Path | ir.Model,
        fake_quant: Path,
        settings: PlanSettings | None = None,
        *,
        rounded_biases: bool = False,
    ) -> None:
        self.rounded_biases = rounded_biases
        self.model = normalise(read_model(source)) if isinstance(source, Path) else source
        self.constants = ConstantEvaluator(self.model.opset_imports[""])
        self.plan: Plan = make_plan(self.model, settings)
        self.fake = onnx.load(str(fake_quant))
        self.fake_nodes = {n.name: n for n in self.fake.graph.node}
        self.fake_producer = {o: n for n in self.fake.graph.node for o in n.output}
        self.nodes = {n.name: n for n in ir.traversal.RecursiveGraphIterator(self.model.graph)}
        self.values = {v.name: v for n in self.nodes.values() for v in n.outputs}
        self.outputs = [v.name or "" for v in self.model.graph.outputs]
        self.cuts: list[Cut] = []
        self.values |= {p.output: self.values[p.source] for p in self.plan.moved}
        pairs = [(pair, self._pair_name(pair)) for pair in (*self.plan.pairs, *self.plan.moved)]
        # the ends are looked up before anything is cut
        ends = {s.node: self.nodes[s.absorbed[-1] if s.absorbed else s.node].outputs[0] for s in self.plan.sites}
        starts = [(s, i, self.nodes[s.node].inputs[i]) for s in self.plan.sites for i in range(len(s.activations))]
        for site, index, start in starts:
            self._cut_in_front(site, index, start)
        for site in self.plan.sites:
            self._cut_behind(site, ends[site.node])
        for pair, name in pairs:
            if name:
                self._cut_pair(pair, name)
        self.cut_behind = {c.observed for c in self.cuts}

    # -- the cuts --------------------------------------------------------------------------------------------------

    def _feed(self, name: str, half: bool) -> ir.Value:
        kind = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
        value = ir.Value(name=name, type=ir.TensorType(kind))
        self.model.graph.inputs.append(value)
        return value

    def _cut_in_front(self, site: Site, index: int, start: ir.Value | None) -> None:
        assert start is not None
        quantizer, scale = site.activations[index].quantizer, site.activations[index].read_scale
        half = quantizer.float_type == ir.DataType.FLOAT16
        fed = self._feed(f"{site.node}!in{index}", half)
        self.nodes[site.node].replace_input_with(index, fed)
        fake = self.fake_nodes[site.node].input[index]
        read = self._quantized(fake)
        turned = site.transpose_input
        name = start.name or ""
        self.cuts.append(Cut(name, fed.name or "", fake, quantizer, scale, read, half=half, turned=turned))

    def _cut_behind(self, site: Site, end: ir.Value) -> None:
        half = site.float_type == ir.DataType.FLOAT16
        fed = self._feed(f"{site.node}!out", half)
        _read_instead(end, fed)
        last = f"fakedequant.{'cast' if half else 'mul'}" if site.input_sum is None else "sum.add"
        last = last if site.float_bias is None else "bias_add"
        fake = self.fake_nodes[f"{site.node}.{last}"].output[0]
        self.cuts.append(Cut(end.name or "", fed.name or "", fake, site=site, half=half))

    def _pair_name(self, pair: Pair) -> str:
        """The node of the fake-quant model that dequantizes a remaining pair; "" when the pair is gone there."""
        node = self.values[pair.output].producer()
        assert node is not None
        name = f"{pair.output if pair in self.plan.moved else node.name}.anti_quant.fakedequant"
        return name if name in self.fake_nodes else ""

    def _cut_pair(self, pair: Pair, name: str) -> None:
        assert pair.quantizer is not None
        half = pair.quantizer.float_type == ir.DataType.FLOAT16
        value = self.values[pair.output]
        fed = self._feed(f"{pair.output}!pair", half)
        _read_instead(value, fed)
        fake = self.fake_nodes[name].input[0]
        read = self._quantized(fake)
        scale = float(pair.quantizer.scale_d) if pair.read_scale is None else pair.read_scale
        self.cuts.append(Cut(value.name or "", fed.name or "", fake, pair.quantizer, scale, read, half=half))

    def _quantized(self, integers: str, last: str = "Sub") -> str:
        """The tensor that Mul -> Round -> Add -> Clip -> Sub (or Cast, at an output) quantizes."""
        name = integers
        for op in (last, "Clip", "Add", "Round", "Mul"):
            node = self.fake_producer[name]
            assert node.op_type == op, f"{node.name}: {node.op_type} where {op} was expected"
            name = node.input[0]
        return name

    # -- the comparison --------------------------------------------------------------------------------------------

    def compare(self, feeds: Mapping[str, Array]) -> dict[str, int]:
        """Check every cut and every output; the number of layers and elements compared, and of elements on ties.

        Raises:
            AssertionError: A difference that neither bias rounding nor a tie explains.
        """
        integers = {name: quantizer for name, _, quantizer in self.plan.outputs}
        read = {name: self._quantized(name, "Cast") for name in integers}
        names = dict.fromkeys([*(c.fake for c in self.cuts), *(c.read for c in self.cuts if c.read), *self.outputs])
        names |= dict.fromkeys(read.values())
        exposed = onnx.ModelProto()
        exposed.CopyFrom(self.fake)
        have = {o.name for o in exposed.graph.output} | set(feeds)
        exposed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in have)
        fake = run(exposed, feeds) | dict(feeds)
        given = dict(feeds)
        for cut in self.cuts:
            value = cut.floats(fake)
            given[cut.fed] = value.astype(np.float16) if cut.half else value
        # as in the fake-quant model; what becomes int8 reads dequantized values, which integers do not round
        round_float16_nodes(self.model, {s.node for s in self.plan.sites})
        proto = runnable(self.model)
        have = {o.name for o in proto.graph.output}
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=n) for n in dict.fromkeys(c.observed for c in self.cuts) if n not in have
        )
        used = {n for node in proto.graph.node for n in _reads(node)} | {o.name for o in proto.graph.output}
        for value_info in [i for i in proto.graph.input if i.name not in used]:
            proto.graph.input.remove(value_info)
            given.pop(value_info.name)
        source = run(proto, given, qdq_source=True)
        counts = {"layers": 0, "elements": 0, "ties": 0}
        for cut in self.cuts:
            ours = cut.floats(fake)
            ours = ours.astype(np.float16).astype(np.float32) if cut.half else ours
            theirs = source[cut.observed].astype(np.float32)
            assert ours.shape == theirs.shape, cut.observed
            counts["elements"] += ours.size
            if cut.site is not None:
                counts["layers"] += 1
                operands = [given[f"{cut.site.node}!in{i}"] for i in range(len(cut.site.activations))]
                self._check_layer(cut, ours, theirs, operands)
            else:
                floats = fake[cut.read].T if cut.turned else fake[cut.read]
                counts["ties"] += _check_quantizer(cut, ours, theirs, floats)
        for name, quantizer in integers.items():
            theirs = (source[name].astype(np.int16) - quantizer.shift).astype(np.int8)
            scale = float(quantizer.scale_d)
            cut = Cut(name, "", name, quantizer, scale, read[name], half=quantizer.float_type == ir.DataType.FLOAT16)
            floats = [(v.astype(np.float32) - quantizer.offset_d) * quantizer.scale_d for v in (fake[name], theirs)]
            counts["ties"] += _check_quantizer(cut, floats[0], floats[1], fake[read[name]])
        for name in self.outputs:
            if name not in self.cut_behind and name not in integers:
                assert np.array_equal(fake[name], source[name], equal_nan=True), f"output {name} differs"
        return counts

    def _check_layer(self, cut: Cut, ours: Array, theirs: Array, operands: list[Array]) -> None:
        """Against the source's layer with its bias rounded, in float64 and as onnxruntime computes it.

        In the fake-quant model five products are rounded where float64 has none: s_d * q and s_w * q, s_d * s_w (with
        the tail's factor: twice), accumulator * deq_scale; and the quotient b / deq_scale before it becomes an integer,
        or the rounded bias as float32.
        In float32 n products are summed and the tail applied, each partial result rounded: n + 3 + 2 * nodes times
        2^-24 of the sum of magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
        """
        site = cut.site
        assert site is not None
        activation, *others = (o.astype(np.float64) for o in operands)
        exact, size, terms, grid = self._exact(site, activation, others)
        if site.input_sum is not None:
            # both sums may be larger than their difference; their scales' product, factor and addition round once each
            size = size + 2 * self._shifted(site, activation)
        layout = [1, -1, *[1] * (ours.ndim - 2)] if self.nodes[site.node].op_type.startswith("Conv") else [-1]
        step = site.deq_scale.astype(np.float64).reshape(layout)
        rounded: Array | float = 0.0
        if site.bias_error is not None and not self.rounded_biases:
            rounded = site.bias_error.reshape(layout)
            # float32 divides the bias by deq_scale: its quotient may be a tie away
            assert np.all(np.abs(rounded) <= step * (0.5 + 2.0**-24 * np.abs(site.bias).max(initial=0))), site.node
        half = 0.0
        if cut.half:
            # the source's layer, each node of its tail and the result are rounded to float16 (2^-11 each)
            half = (3 + len(site.absorbed)) * 2.0**-11 * float(np.abs(theirs).max(initial=0))
        for name, value, roundings in (
            ("float64", exact, 6 + 3 * (site.input_sum is not None)),
            ("float32", theirs, terms + 9 + 2 * len(site.absorbed) + 3 * (site.input_sum is not None)),
        ):
            excess = np.abs(ours.astype(np.float64) - value - rounded) - roundings * 2.0**-24 * size - grid - half
            assert np.all(excess <= 0), f"{site.node}: {excess.max():.3g} beyond the bound, source in {name}"

    def _exact(self, site: Site, activation: Array, others: list[Array]) -> tuple[Array, Array, int, Array]:
        """Layer and tail in float64; the sum of the magnitudes in it; the terms of a sum; the grid's tolerance."""
        node = self.nodes[site.node]
        weight = others[0] if others else np.asarray(self.constants.array(node.inputs[1]), np.float64)
        alpha, beta = (node.attributes[n].as_float() if n in node.attributes else 1.0 for n in ("alpha", "beta"))
        proto = ir.to_proto(node)
        for attribute in [a for a in proto.attribute if a.name in ("alpha", "beta")]:
            proto.attribute.remove(attribute)
        kernel, weight = KERNELS[node.op_type], weight * alpha
        value = kernel(proto, activation, weight)
        size = kernel(proto, np.abs(activation), np.abs(weight))
        count = kernel(proto, np.ones_like(activation), np.ones_like(weight))
        # recovered floats are within GRID_TOLERANCE of the source's, relative to the largest weight
        slack = np.full_like(
            weight, GRID_TOLERANCE * np.abs(weight).max(initial=0) if "recovered" in site.detail else 0.0
        )
        grid = kernel(proto, np.abs(activation), slack)
        axis = 1 if node.op_type in ("Conv", "ConvTranspose") else value.ndim - 1
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = self._constant(node.inputs[2], value.ndim, axis) * beta
            value, size = value + bias, size + np.abs(bias)
        before = node.outputs[0]
        for follower in (self.nodes[name] for name in site.absorbed):
            if follower.op_type == "BatchNormalization":
                gamma, beta, mean, variance = (self._constant(v, value.ndim, axis) for v in follower.inputs[1:5])
                epsilon = follower.attributes["epsilon"].as_float() if "epsilon" in follower.attributes else 1e-5
                factor = gamma / np.sqrt(variance + epsilon)
                value, size = (value - mean) * factor + beta, (size + np.abs(mean)) * np.abs(factor) + np.abs(beta)
                grid = grid * np.abs(factor)
            else:
                other = next(v for v in follower.inputs if v is not before)
                assert other is not None
                operand = np.asarray(self.constants.array(other), np.float64)
                if follower.op_type in ("Add", "Sub"):
                    value = value + operand if follower.op_type == "Add" else value - operand
                    size = size + np.abs(operand)
                else:
                    factor = operand if follower.op_type == "Mul" else 1.0 / operand
                    value, size, grid = value * factor, size * np.abs(factor), grid * np.abs(factor)
            before = follower.outputs[0]
        return value, size, int(count.max(initial=0)), grid

    def _shifted(self, site: Site, activation: Array) -> Array:
        """Magnitude of what the sum of a layer's input adds for a shifted weight."""
        assert site.input_sum is not None
        node = self.nodes[site.node]
        ones = np.ones_like(np.asarray(self.constants.array(node.inputs[1]), np.float64))
        total = KERNELS[node.op_type](ir.to_proto(node), np.abs(activation), ones)
        layout = [1, -1, *[1] * (total.ndim - 2)] if node.op_type in ("Conv", "ConvTranspose") else [-1]
        return np.asarray(total * np.abs(site.input_sum).reshape(layout) / site.quantizer.scale_d)

    def _constant(self, value: ir.Value | None, rank: int, axis: int) -> Array:
        assert value is not None
        layout = [1] * rank
        layout[axis] = -1
        return np.asarray(self.constants.array(value), np.float64).reshape(layout)


def _check_quantizer(cut: Cut, ours: Array, theirs: Array, read: Array) -> int:
    """Both models hold what their own quotient rounds to; where the two differ there is a tie. Returns their number."""
    quantizer = cut.quantizer
    assert quantizer is not None
    if cut.half:
        return _check_half_quantizer(cut, ours, theirs, read)
    both = zip(("fake-quant", "source"), (ours, theirs), _rounded(read, quantizer), strict=True)
    for name, value, integers in both:
        expected = integers * np.float32(cut.scale)
        assert np.array_equal(value, expected), f"{cut.observed}: {name} does not hold its rounded quotients"
    return int((ours != theirs).sum())


def _rounded(read: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    """The integers less their zero point, by the reciprocal of the scale (fake-quant) and by the scale (source)."""
    low, high = quantizer.low - quantizer.offset_d, quantizer.high - quantizer.offset_d
    read = read.astype(np.float32)
    with np.errstate(over="ignore"):
        quotients = read * reciprocal(quantizer.scale_d), read / quantizer.scale_d
    mine, other = (np.clip(np.rint(q), low, high).astype(np.float32) for q in quotients)
    return mine, other


def _check_half_quantizer(cut: Cut, ours: Array, theirs: Array, read: Array) -> int:
    """Integers are what is compared: the products are rounded to float16."""
    assert cut.quantizer is not None
    mine, other = np.rint(ours / np.float32(cut.scale)), np.rint(theirs / np.float32(cut.scale))
    apart = mine != other
    if not apart.any():
        return 0
    quotient = read.astype(np.float64) / np.float64(cut.quantizer.scale_d)
    off = np.abs(quotient - np.floor(quotient) - 0.5)[apart]
    assert np.all(off <= HALF_TIE * np.abs(quotient).max()), f"{cut.observed}: differs {off.max():.3g} off a tie"
    assert np.all(np.abs(mine - other)[apart] == 1), f"{cut.observed}: integers differ by more than one"
    return int(apart.sum())


def _read_instead(old: ir.Value, new: ir.Value) -> None:
    for use in list(old.uses()):
        use.node.replace_input_with(use.idx, new)


def _spell_out_float16(model: ir.Model) -> None:
    """Casts around canonical Q and DQ on float16 tensors with float32 scales, which onnxruntime does not take."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.inputs[1] is None:
            continue
        if float_type_of(node.inputs[1]) != ir.DataType.FLOAT:
            continue
        graph, source, result = node.graph, node.inputs[0], node.outputs[0]
        assert graph is not None and source is not None
        if node.op_type == "QuantizeLinear" and float_type_of(source) == ir.DataType.FLOAT16:
            cast = _cast(source, ir.DataType.FLOAT, node)
            graph.insert_before(node, cast)
            node.replace_input_with(0, cast.outputs[0])
        elif node.op_type == "DequantizeLinear" and result.dtype == ir.DataType.FLOAT16:
            result.type = ir.TensorType(ir.DataType.FLOAT)
            cast = _cast(result, ir.DataType.FLOAT16, node)
            _read_instead(result, cast.outputs[0])
            cast.replace_input_with(0, result)
            graph.insert_after(node, cast)


def _cast(value: ir.Value, to: ir.DataType, at: ir.Node) -> ir.Node:
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(to))], name=f"{at.name}!cast")
    cast.outputs[0].name = f"{at.name}!cast:0"
    cast.outputs[0].type = ir.TensorType(to)
    return cast


def _reads(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            names |= {n for inner in graph.node for n in _reads(inner)} | {o.name for o in graph.output}
    return names
