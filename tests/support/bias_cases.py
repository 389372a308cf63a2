"""The promise of the bias verb, held for any model; small models with one biased layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import amct_onnx
from amct_onnx.files.read import read_model
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Site
from amct_onnx.plan.planner import make_plan
from amct_onnx.verbs.bias.report import ROUNDED, BiasReport
from support.deploy_evaluator import run
from support.forced_source import ForcedSource
from support.qdq_builder import QdqBuilder

SLACK = 2.0**-22
"""Of the bias in steps: in float32 the bias is one rounding away from its multiple, the quotient another two."""


def sites_of(path: Path) -> dict[str, Site]:
    return {s.node: s for s in make_plan(normalise(read_model(path))).sites}


def agrees_to_float_rounding(source: Path, folder: Path, feeds: dict[str, np.ndarray]) -> BiasReport:
    """The promise, layer by layer.

    The fake-quant model is made from the original source, so that nothing that the adapted one holds enters it. The
    bound: ``ForcedSource``, less the half step of the bias.
    """
    report = amct_onnx.quantize_bias(source, folder / "adapted.onnx")
    converted = amct_onnx.convert_qat_model(source, folder / "original")
    forced = ForcedSource(folder / "adapted.onnx", Path(converted.fake_quant_model), rounded_biases=True)
    assert forced.compare(feeds)["layers"] == len(converted.converted)
    before, after = sites_of(source), sites_of(folder / "adapted.onnx")
    assert before.keys() == after.keys()
    for name, site in before.items():
        if site.bias is None:
            assert after[name].bias is None
            continue
        assert after[name].bias is not None and after[name].bias_error is not None
        np.testing.assert_array_equal(after[name].bias, site.bias)
    return report


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and constants, bodies included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            for body in [attribute.g, *attribute.graphs]:
                yield from tensors_of(body)


def _same_nodes(old: onnx.GraphProto, new: onnx.GraphProto, changed: set[str]) -> None:
    """Equal nodes, also in bodies, but for those that made only what changed."""
    kept = [n for n in old.node if n.output[0] in {o for m in new.node for o in m.output}]
    assert [(n.name, n.op_type, n.domain, list(n.output)) for n in new.node] == [
        (n.name, n.op_type, n.domain, list(n.output)) for n in kept
    ]
    for before, after in zip(kept, new.node, strict=True):
        for index, (one, two) in enumerate(zip(before.input, after.input, strict=True)):
            assert one == two or two in changed, (before.name, index)
        if after.output[0] in changed:
            continue
        assert [a.name for a in before.attribute] == [a.name for a in after.attribute]
        for one, two in zip(before.attribute, after.attribute, strict=True):
            bodies = [*zip((one.g, *one.graphs), (two.g, *two.graphs), strict=True)]
            for source, adapted in bodies:
                _same_nodes(source, adapted, changed)
                for body in (source, adapted):
                    del body.node[:], body.value_info[:]
            assert one == two


def only_biases_changed(source: Path, adapted: Path, changed: set[str]) -> None:
    """Equal message for message, but for the named tensors, nodes that made only these, and the way of storing."""
    old, new = onnx.load(str(source)), onnx.load(str(adapted))
    for model in (old, new):
        for tensor in tensors_of(model.graph):
            if tensor.data_type != TensorProto.STRING:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
            tensor.ClearField("doc_string")
    added = {t.name for t in new.graph.initializer} - {t.name for t in old.graph.initializer}
    assert added <= changed
    _same_nodes(old.graph, new.graph, changed)
    still = {t.name: t for t in new.graph.initializer}
    assert [n for n in (t.name for t in old.graph.initializer) if n in still] == [n for n in still if n not in added]
    for tensor in old.graph.initializer:
        assert tensor.name not in still or tensor.name in changed or tensor == still[tensor.name]
    for model in (old, new):
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    assert old == new


RNG = np.random.default_rng(11)
BIAS = RNG.normal(size=4).astype(np.float32)


def layer(b: QdqBuilder, x: str, *, scale_w: float, bias: str | None, kind: str = "Conv", name: str = "layer") -> str:
    """x -> int8 layer with weight [4, 3, 1, 1] or [3, 4]."""
    shape = {"Conv": (4, 3, 1, 1), "ConvTranspose": (3, 4, 1, 1)}.get(kind, (3, 4))
    integers = b.constant(RNG.integers(-99, 99, shape).astype(np.int8))
    factors = [b.constant(np.float32(scale_w)), b.constant(np.int8(0))]
    weight = b.node("DequantizeLinear", [integers, *factors])
    return b.node(kind, [x, weight, *([bias] if bias else [])], name=name)


def start(kind: str = "Conv", opset: int = 13) -> tuple[QdqBuilder, str]:
    b = QdqBuilder(opset)
    x = b.input("x", [2, 3, 5, 5] if kind.startswith("Conv") else [2, 3])
    return b, b.activation(x, 0.031, np.int8(3))


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    constants = {t.name for t in model.graph.initializer}
    return {
        i.name: RNG.normal(size=[d.dim_value for d in i.type.tensor_type.shape.dim]).astype(np.float32)
        for i in model.graph.input
        if i.name not in constants
    }


def adapt(b: QdqBuilder, y: str, folder: Path) -> Path:
    """Save the model, round its biases, check the promise; returns the adapted model."""
    b.output(y)
    model = b.model()
    onnx.save(model, str(folder / "source.onnx"))
    agrees_to_float_rounding(folder / "source.onnx", folder, feeds_of(model))
    run(folder / "adapted.onnx", feeds_of(model), qdq_source=True)
    again = amct_onnx.quantize_bias(folder / "adapted.onnx", folder / "again.onnx")
    assert not [e for e in again.layers if e.action == ROUNDED]
    assert (folder / "again.onnx").read_bytes() == (folder / "adapted.onnx").read_bytes()
    return folder / "adapted.onnx"


def constants_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}


def multiple(bias: np.ndarray, *scales: float) -> np.ndarray:
    """The documentation's formula in float32."""
    s = np.prod(np.asarray(scales, np.float32), dtype=np.float32)
    return np.rint(bias / s).astype(np.float32) * s
