"""Functions of another opset than the model's: inlined, with the numbers of what onnx's own inliner makes of them.

ONNX Runtime refuses most of them, and reads a Softmax of such a function by the opset of the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import numpy_helper

from amct_onnx import UnsupportedModelError, convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import Evaluator, run

RNG = np.random.default_rng(0)
CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "sw": np.float32(0.0237),
    "axes": np.array([2], np.int64),
}
QUANTIZED = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw) y = MatMul(d, wd)"
FEEDS = {"x": np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)}
OLDER = {
    "axes as attributes": "a = Unsqueeze <axes = [1]> (t) b = Squeeze <axes = [1]> (a) r = ReduceSum <axes = [1]> (b)",
    "Softmax over all axes behind": "r = Softmax <axis = 1> (t)",
    "Softmax by default": "r = Softmax(t)",
    "LogSoftmax": "r = LogSoftmax(t)",
    "Softmax along the last axis": "r = Softmax <axis = -1> (t)",
    "Split with sizes": "a, b = Split <axis = 2, split = [3, 5]> (t) r = Concat <axis = 2> (b, a)",
    "ReduceMean": "r = ReduceMean <axes = [2], keepdims = 0> (t)",
    "nested": "r = local.inner(t)",
}
MUCH_OLDER = {
    "Clip with attributes": "r = Clip <min = -1.0, max = 2.0> (t)",
    "Pad with attributes": "r = Pad <pads = [0, 0, 1, 0, 0, 2]> (t)",
    "Slice with attributes": "r = Slice <axes = [1], starts = [1], ends = [3]> (t)",
    "TopK with an attribute": "r, i = TopK <k = 3> (t)",
    "Dropout": "r = Dropout <ratio = 0.25> (t)",
}
NEWER = {"ReduceMean": "a = ReduceMean <axes = [2]> (y) o = local.f(a)", "Softmax": "a = Softmax(y) o = local.f(a)"}


def convert_and_compare(source: Path, inlined: Path | None = None) -> ConversionReport:
    """Convert; deploy and fake-quant model equal each other, and the source but for the order of float32 sums.

    Args:
        source: with functions of another opset.
        inlined: a model of one opset that means the same; onnx's inliner makes it when it is None.
    """
    if inlined is None:
        inlined = source.with_name("inlined.onnx")
        onnx.save(onnx.inliner.inline_local_functions(onnx.load(source), True), inlined)
    report = convert_qat_model(source, source.parent / "out" / "m")
    assert len(report.converted) == len(report.layers) == 1
    wanted = run(str(inlined or source), FEEDS, qdq_source=True)["o"]
    found, deploy = run(report.fake_quant_model, FEEDS)["o"], Evaluator(report.deploy_model).run(FEEDS)["o"]
    np.testing.assert_array_equal(found, deploy)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=np.abs(wanted).max() * 2.0**-19)
    return report


def model_of(body: str, function: str, folder: Path, opset: int, own: int) -> Path:
    """An int8 layer and a call of local.f, whose opset is ``own``."""
    graph = f"g (float[2, 3, 8] x) => (float[a, b, c] o) {{ {QUANTIZED} {body} }}"
    graph = graph.replace("[a, b, c]", "") if "keepdims" in function else graph
    imports = f'["" : {opset}, "local" : 1]'
    text = f"""<ir_version: 8, opset_import: {imports}> {graph}
        <domain: "local", opset_import: ["" : {own}, "local" : 1]> f (t) => (r) {{ {function} }}
        <domain: "local", opset_import: ["" : 11]> inner (t) => (r) {{ r = Softmax(t) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in CONSTANTS.items())
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("function", OLDER.values(), ids=OLDER)
def test_function_of_an_older_opset(function: str, tmp_path: Path) -> None:
    report = convert_and_compare(model_of("o = local.f(y)", function, tmp_path, 18, 12))
    told = [w for w in report.warnings if "ONNX Runtime reads it by the model's" in w]
    assert bool(told) == (("oftmax" in function and "-1" not in function) or "inner" in function)


@pytest.mark.parametrize("function", MUCH_OLDER.values(), ids=MUCH_OLDER)
def test_function_of_a_much_older_opset(function: str, tmp_path: Path) -> None:
    convert_and_compare(model_of("o = local.f(y)", function, tmp_path, 17, 9))


@pytest.mark.parametrize("body", NEWER.values(), ids=NEWER)
def test_function_of_a_newer_opset(body: str, tmp_path: Path) -> None:
    source = model_of(body, "r = Mish(t)", tmp_path, 13, 18)
    (tmp_path / "newer").mkdir()
    body = body.replace("<axes = [2]> (y)", "(y, axes)")
    convert_and_compare(source, model_of(body, "r = Mish(t)", tmp_path / "newer", 18, 18))


def test_what_cannot_be_raised_is_refused_by_name(tmp_path: Path) -> None:
    source = model_of("o = local.f(y)", "r = Hardmax <axis = 1> (t)", tmp_path, 17, 12)
    with pytest.raises(UnsupportedModelError, match="Hardmax of opset 12 .* takes all axes from its axis on as one"):
        convert_qat_model(source, tmp_path / "out")
