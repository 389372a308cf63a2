"""An exact evaluator of deploy models, written from the format alone.

Integer layers are computed as integers (float64 matrix products below 2**53, which are exact), AscendQuant,
AscendDequant and AscendAntiQuant from their definitions, and every other node by onnxruntime as a model of one node.
Nothing is imported from the package under test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

Array = np.ndarray

MOVERS = {
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Gather",
    "Identity",
    "Concat",
    "Expand",
    "Tile",
    "DepthToSpace",
    "SpaceToDepth",
}
FLOATS = {0: np.float32, 1: np.float16}
"""GE's numbers of the result types."""
CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}


@dataclass
class Stats:
    """Facts of an evaluation; ``bounds`` maps an integer layer to its largest possible partial sum."""

    bounds: dict[str, float] = field(default_factory=dict)
    quants: int = 0
    dequants: int = 0
    antiquants: int = 0

    @property
    def exact_in_float32(self) -> bool:
        """True if no integer layer can leave the range where float32 holds every integer."""
        return all(b < 2**24 for b in self.bounds.values())


def session(model: onnx.ModelProto | str | Path, *, qdq_source: bool = False) -> ort.InferenceSession:
    """An onnxruntime session without graph optimisations, one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if qdq_source:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(
    model: onnx.ModelProto | str | Path, feeds: Mapping[str, Array], *, qdq_source: bool = False
) -> dict[str, Array]:
    """Outputs of a model in stock onnxruntime."""
    sess = session(model, qdq_source=qdq_source)
    names = [o.name for o in sess.get_outputs()]
    return dict(zip(names, sess.run(names, dict(feeds)), strict=True))


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Attributes of a node as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _spatial(
    node: onnx.NodeProto, kernel: tuple[int, ...]
) -> tuple[list[int], list[int], list[int], int, dict[str, object]]:
    attrs = attributes(node)
    rank = len(kernel)
    strides = list(attrs.get("strides", [1] * rank))
    dilations = list(attrs.get("dilations", [1] * rank))
    pads = list(attrs.get("pads", [0] * 2 * rank))
    assert list(attrs.get("kernel_shape", kernel)) == list(kernel)
    return strides, dilations, pads, int(attrs.get("group", 1)), attrs


def _product(x: Array, w: Array) -> Array:
    """[N, K, ...] x [K, M] -> [N, M, ...] in float64, exact for integers below 2**53."""
    return np.moveaxis(np.moveaxis(x, 1, -1) @ w, -1, 1)


def conv(node: onnx.NodeProto, x: Array, w: Array) -> Array:
    """Conv of integer values held in float64; padding pads zero."""
    kernel = w.shape[2:]
    strides, dilations, pads, group, attrs = _spatial(node, kernel)
    rank = len(kernel)
    auto = attrs.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        for i in range(rank):
            size = x.shape[2 + i]
            total = max(0, (-(-size // strides[i]) - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - size)
            small, large = total // 2, total - total // 2
            pads[i], pads[i + rank] = (small, large) if auto == b"SAME_UPPER" else (large, small)
    elif auto == b"VALID":
        pads = [0] * 2 * rank
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[i], pads[i + rank]) for i in range(rank)])
    out = [(x.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(rank)]
    cin, cout = w.shape[1], w.shape[0] // group
    result = np.zeros((x.shape[0], w.shape[0], *out))
    for pos in itertools.product(*map(range, kernel)):
        window = tuple(
            slice(p * d, p * d + (o - 1) * s + 1, s) for p, d, o, s in zip(pos, dilations, out, strides, strict=True)
        )
        patch = x[(slice(None), slice(None), *window)]
        for g in range(group):
            part = w[(slice(g * cout, (g + 1) * cout), slice(None), *pos)]
            result[:, g * cout : (g + 1) * cout] += _product(patch[:, g * cin : (g + 1) * cin], part.T)
    return result


def conv_transpose(node: onnx.NodeProto, x: Array, w: Array) -> Array:
    """ConvTranspose of integer values held in float64."""
    kernel = w.shape[2:]
    strides, dilations, pads, group, attrs = _spatial(node, kernel)
    rank = len(kernel)
    extra = list(attrs.get("output_padding", [0] * rank))
    assert attrs.get("auto_pad", b"NOTSET") == b"NOTSET" and "output_shape" not in attrs, "not supported here"
    full = [strides[i] * (x.shape[2 + i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(rank)]
    cin, cout = w.shape[0] // group, w.shape[1]
    result = np.zeros((x.shape[0], cout * group, *full))
    for pos in itertools.product(*map(range, kernel)):
        window = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(pos, dilations, x.shape[2:], strides, strict=True)
        )
        for g in range(group):
            part = w[(slice(g * cin, (g + 1) * cin), slice(None), *pos)]
            target = (slice(None), slice(g * cout, (g + 1) * cout), *window)
            result[target] += _product(x[:, g * cin : (g + 1) * cin], part)
    crop = tuple(slice(pads[i], full[i] - pads[i + rank]) for i in range(rank))
    return result[(slice(None), slice(None), *crop)]


def gemm(node: onnx.NodeProto, a: Array, b: Array) -> Array:
    """Gemm without its bias."""
    attrs = attributes(node)
    assert attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0, "an integer Gemm has no factors"
    return (a.T if attrs.get("transA", 0) else a) @ (b.T if attrs.get("transB", 0) else b)


KERNELS = {"Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": lambda node, a, b: a @ b}


def _int32(values: Array, where: str) -> Array:
    assert values.size == 0 or (values.min() >= -(2**31) and values.max() < 2**31), f"{where}: int32 overflow"
    return values.astype(np.int32)


class Evaluator:
    """Evaluates one deploy model."""

    def __init__(self, model: onnx.ModelProto | str | Path) -> None:
        self.model = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model))
        self.stats = Stats()
        opsets = {o.domain: o.version for o in self.model.opset_import}
        self.opsets = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self.values: dict[str, Array] = {}
        self.constants: set[str] = set()
        self.offset: dict[str, int] = {}
        self.axis: dict[str, int] = {}
        self.producer: dict[str, str] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All graph outputs."""
        graph = self.model.graph
        for tensor in graph.initializer:
            self.values[tensor.name] = numpy_helper.to_array(tensor)
            self.constants.add(tensor.name)
        self.values.update(feeds)
        for node in graph.node:
            self.step(node)
        return {o.name: self.values[o.name] for o in graph.output}

    def body(self, graph: onnx.GraphProto, inputs: Iterable[Array] = ()) -> list[Array]:
        """Outputs of the body of an If or Loop, which sees all values around it."""
        for tensor in graph.initializer:
            self.values[tensor.name] = numpy_helper.to_array(tensor)
            self.constants.add(tensor.name)
        self.values.update(dict(zip([i.name for i in graph.input], inputs, strict=True)))
        for node in graph.node:
            self.step(node)
        return [self.values[o.name] for o in graph.output]

    def loop(self, node: onnx.NodeProto, values: list[Array | None]) -> None:
        """Loop with a trip count and a condition; carried values only."""
        carried, trip = [v for v in values[2:] if v is not None], 0
        go_on = values[1] is None or bool(values[1])
        graph = attributes(node)["body"]
        while go_on and (values[0] is None or trip < int(values[0])):
            results = self.body(graph, [np.asarray(trip, np.int64), np.asarray(True), *carried])
            assert len(results) == 1 + len(carried), f"{node.name}: scan outputs are not evaluated"
            go_on, carried, trip = bool(results[0]), results[1:], trip + 1
        self.values.update(dict(zip(node.output, carried, strict=True)))

    def scan(self, node: onnx.NodeProto, values: list[Array | None]) -> None:
        """Scan without carried values, along the first axis."""
        attrs = attributes(node)
        assert attrs["num_scan_inputs"] == len(values) and len(attrs) == 2, f"{node.name}: not evaluated"
        rows = [self.body(attrs["body"], row) for row in zip(*values, strict=True)]
        results = [np.stack(column) for column in zip(*rows, strict=True)]
        self.values.update(dict(zip(node.output, results, strict=True)))

    def step(self, node: onnx.NodeProto) -> None:
        """Evaluate one node."""
        values = [self.values[n] if n else None for n in node.input]
        if node.op_type == "AscendQuant":
            self.quant(node, values[0])
        elif node.op_type == "AscendDequant":
            self.dequant(node, values[0], values[1])
        elif node.op_type == "AscendAntiQuant":
            self.antiquant(node, values[0])
        elif node.op_type in KERNELS and values[0].dtype == np.int8:
            self.layer(node, values)
        elif node.op_type == "Add" and values[0].dtype == np.int32 and set(node.input) & self.axis.keys():
            self.values[node.output[0]] = _int32(values[0].astype(np.int64) + values[1].astype(np.int64), node.name)
            source = next(n for n in node.input if n in self.axis)
            self.axis[node.output[0]] = self.axis[source]
            layer = self.producer[source]
            other = values[1 - list(node.input).index(source)]
            assert other.dtype == np.int32
            self.stats.bounds[layer] += float(np.abs(other.astype(np.int64)).max(initial=0))
        elif node.op_type == "If":
            branch = attributes(node)["then_branch" if bool(values[0]) else "else_branch"]
            self.values.update(dict(zip(node.output, self.body(branch), strict=True)))
        elif node.op_type == "Loop":
            self.loop(node, values)
        elif node.op_type == "Scan":
            self.scan(node, values)
        else:
            self.ordinary(node, values)

    def quant(self, node: onnx.NodeProto, x: Array) -> None:
        """q = clip(round(x * scale) + offset, -128, 127), all in float32 (a float16 input is cast up)."""
        attrs = attributes(node)
        assert x.dtype in (np.float32, np.float16), f"{node.name}: input is {x.dtype}"
        x = x.astype(np.float32)
        assert attrs["dst_type"] == b"INT8"
        assert node.domain == ""
        offset = np.float32(attrs["offset"])
        with np.errstate(over="ignore", invalid="ignore"):
            q = np.clip(np.rint(x * np.float32(attrs["scale"])) + offset, np.float32(-128), np.float32(127))
        self.values[node.output[0]] = q.astype(np.int8)
        self.offset[node.output[0]] = int(offset)
        self.stats.quants += 1

    def dequant(self, node: onnx.NodeProto, acc: Array, packed: Array) -> None:
        """float32(acc) * scale, scale from the low 32 bits of each parameter."""
        assert acc.dtype == np.int32, f"{node.name}: input is {acc.dtype}"
        assert packed.dtype == np.uint64 and packed.ndim == 1
        scale = (packed & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
        if len(scale) > 1:
            shape = [1] * acc.ndim
            shape[self.axis[node.input[0]]] = len(scale)
            scale = scale.reshape(shape)
        self.values[node.output[0]] = (acc.astype(np.float32) * scale).astype(FLOATS[attributes(node).get("dtype", 0)])
        self.stats.dequants += 1

    def antiquant(self, node: onnx.NodeProto, q: Array) -> None:
        """(q + offset attribute) * scale: the attribute must undo the offset of AscendQuant."""
        attrs = attributes(node)
        assert q.dtype == np.int8, f"{node.name}: input is {q.dtype}"
        offset = self.offset[node.input[0]]
        floats = (q.astype(np.float32) - np.float32(offset)) * np.float32(attrs["scale"])
        self.values[node.output[0]] = floats.astype(FLOATS[attrs.get("dtype", 0)])
        assert abs(float(attrs["offset"])) == abs(offset), f"{node.name}: offset {attrs['offset']} for {offset}"
        self.stats.antiquants += 1

    def layer(self, node: onnx.NodeProto, values: list[Array | None]) -> None:
        """An integer layer: exact sums of (q - offset) * w, plus the int32 bias."""
        x, w = values[0], values[1]
        assert w.dtype == np.int8, f"{node.name}: weight is {w.dtype}"
        a = x.astype(np.float64) - self.offset.get(node.input[0], 0)
        b = w.astype(np.float64) - self.offset.get(node.input[1], 0)
        kernel = KERNELS[node.op_type]
        acc = kernel(node, a, b).astype(np.int64)
        bound = kernel(node, np.abs(a), np.abs(b))
        if len(values) > 2 and values[2] is not None:
            bias = values[2]
            assert bias.dtype == np.int32, f"{node.name}: bias is {bias.dtype}"
            wide = bias.astype(np.int64)
            if CHANNEL_AXIS[node.op_type] == 1:
                wide = wide.reshape(-1, *[1] * (acc.ndim - 2))
            acc, bound = acc + wide, bound + np.abs(wide)
        self.values[node.output[0]] = _int32(acc, node.name)
        self.axis[node.output[0]] = CHANNEL_AXIS[node.op_type]
        self.producer[node.output[0]] = node.name
        self.stats.bounds[node.name] = float(bound.max(initial=0))

    def ordinary(self, node: onnx.NodeProto, values: list[Array | None]) -> None:
        """Any other node, as a model of one node."""
        feeds = {n: v for n, v in zip(node.input, values, strict=True) if n}
        fixed = {n: v for n, v in feeds.items() if n in self.constants}
        inputs = {n: v for n, v in feeds.items() if n not in self.constants}
        graph = helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None)
                for n, v in inputs.items()
            ],
            [onnx.ValueInfoProto(name=o) for o in node.output if o],
            [numpy_helper.from_array(v, n) for n, v in fixed.items()],
        )
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=max(10, self.model.ir_version))
        results = run(model, inputs)
        self.values.update(results)
        if node.op_type == "Constant" or (node.op_type == "Identity" and not inputs):
            self.constants.update(results)
        tagged = [n for n in node.input if n in self.offset]
        if tagged:
            assert node.op_type in MOVERS, f"{node.op_type} {node.name} reads int8"
            offsets = {self.offset[n] for n in tagged}
            assert len(offsets) == 1 and (node.op_type != "Concat" or len(tagged) == len(node.input))
            self.offset.update({o: next(iter(offsets)) for o in results})


def evaluate(path: str | Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of the deploy model at path, by name."""
    return Evaluator(path).run(feeds)


def evaluate_with_stats(path: str | Path, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], Stats]:
    """Outputs of the deploy model at path, and what the evaluation met."""
    evaluator = Evaluator(path)
    return evaluator.run(feeds), evaluator.stats


def op_types(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Operator types of the nodes."""
    return {n.op_type for n in nodes}
