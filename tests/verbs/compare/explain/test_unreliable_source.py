"""A source that is random is told so; no model is blamed for it, unless its file was changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import amct_onnx
from amct_onnx.verbs.compare.explain import unreliable_source as unreliable_source_module
from amct_onnx.verbs.compare.explain.unreliable_source import rounds_float16
from support.comparison_cases import converted
from support.small_models import qdq_model


def random_model(folder: Path, nodes: int) -> Path:
    """A quantized Gemm whose input has random numbers added, as stochastic depth has."""
    path = qdq_model(folder)
    model = onnx.load(path)
    graph = model.graph
    name = graph.input[0].name
    source = name
    drawn = []
    for number in range(nodes):
        drawn += [
            helper.make_node("RandomUniformLike", [name], [f"r{number}"], f"noise{number}"),
            helper.make_node("Add", [source, f"r{number}"], [f"s{number}"], f"add{number}"),
        ]
        source = f"s{number}"
    for node in graph.node:
        node.input[:] = [source if i == name else i for i in node.input]
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend(drawn + kept)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (1, "Node 'noise0' (RandomUniformLike) draws random numbers"),
        (5, "'noise2' (RandomUniformLike) and 2 more draw random numbers"),
    ],
)
def test_random_source_is_named_and_judges_nothing(nodes: int, words: str, tmp_path: Path) -> None:
    path = random_model(tmp_path, nodes)
    report = amct_onnx.convert_qat_model(path, "m")
    assert [w for w in report.warnings if words in w] == list(report.warnings)
    data = np.ones((4, 3), np.float32)
    verdict = amct_onnx.compare(path, "m", data).verdict
    assert verdict.level == "incomplete" and "the source itself is random" in verdict.headline
    assert words in verdict.brief[0]
    model = onnx.load(report.deploy_model)
    factor = next(
        t for n in model.graph.node if n.op_type == "Mul" for t in model.graph.initializer if t.name in n.input
    )
    factor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(factor), factor.name))
    onnx.save(model, report.deploy_model)
    found = amct_onnx.compare(path, "m", data)
    assert found.verdict.level == "diverges" and found.divergences[0].model == "deploy@a2"


def test_random_node_without_a_name_within_a_function_is_found(tmp_path: Path) -> None:
    """The model that is run has the function; the conversion inlines it."""
    text = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]> g (float[n, 2] x) => (float[n, 2] y)
        <float s = {0.1}, int8[2, 2] w = {1, 2, 3, 4}> {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s) h = MatMul(d, v)
        y = own.noisy(h)
    }
    <domain: "own", opset_import: ["" : 17]> noisy (a) => (b) { drawn = RandomNormalLike(a) b = Add(a, drawn) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m")
    verdict = amct_onnx.compare(tmp_path / "m.onnx", tmp_path / "m", np.ones((4, 2), np.float32)).verdict
    assert "Node 'drawn' (RandomNormalLike) draws random numbers" in verdict.brief[0]


def test_draws_that_rarely_differ_make_a_source_random(tmp_path: Path) -> None:
    """The first batch gives the same twice: stochastic depth drops a branch of another sample."""
    text = """<ir_version: 9, opset_import: ["" : 17]> g (float[n, 2] x) => (float[n, 2] y)
        <float s = {0.1}, int8[2, 2] w = {1, 2, 3, 4}, float[1] rarely = {1e-30}> {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s) h = MatMul(d, v)
        drawn = Bernoulli(rarely) y = Add(h, READ)
    }"""
    path = tmp_path / "m.onnx"
    for read, random in (("drawn", True), ("rarely", False)):
        onnx.save(onnx.parser.parse_model(text.replace("READ", read)), path)
        amct_onnx.convert_qat_model(path, tmp_path / "m")
        verdict = amct_onnx.compare(path, tmp_path / "m", np.ones((4, 2), np.float32)).verdict
        assert ("depend on chance: Node 'drawn' (Bernoulli)" in str(verdict.brief)) is random
        assert ("the source itself is random" in verdict.headline) is random


def test_draws_of_which_a_shape_alone_is_read_are_no_fault(tmp_path: Path) -> None:
    """Both models draw other numbers; the tensor stands in a function of the source, as torch's exporter writes it."""
    text = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]> g (float[n, 2] x) => (float[n, 2] y)
        <float s = {0.1}, int8[2, 2] w = {1, 2, 3, 4}> {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s) h = MatMul(d, v)
        drawn = RandomNormalLike(x) y = own.like(h, drawn)
    }
    <domain: "own", opset_import: ["" : 17]> like (a, b) => (c) { size = Shape(b) c = Reshape(a, size) }"""
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert amct_onnx.convert_qat_model(path, tmp_path / "m").warnings == ()
    assert amct_onnx.compare(path, tmp_path / "m", np.ones((4, 2), np.float32)).verdict.level == "noise"


def test_source_without_random_nodes_is_not_called_random(tmp_path: Path) -> None:
    path = qdq_model(tmp_path)
    amct_onnx.convert_qat_model(path, "m")
    assert "random" not in str(amct_onnx.compare(path, "m", np.ones((4, 3), np.float32)).to_dict()["verdict"])


def test_float16_is_rounded_or_the_source_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime before 1.24 cuts off; here that is pretended."""
    case = converted("modeloptonnx_resnet_fp16", tmp_path, samples=8)
    believed = rounds_float16()
    monkeypatch.setattr(unreliable_source_module, "rounds_float16", lambda: False)
    verdict = case.compare().verdict
    assert verdict.level == "incomplete" and "computes the source wrongly" in verdict.headline
    monkeypatch.setattr(unreliable_source_module, "rounds_float16", lambda: True)
    assert not believed or case.compare().verdict.level == "noise"
