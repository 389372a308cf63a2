"""Numbers: the fake-quant model in onnxruntime, the deploy model in the exact evaluator, and the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx.verbs.convert.report import ConversionReport
from support.converted_cases import CASES, converted, feeds_of
from support.deploy_evaluator import Evaluator, Stats, op_types, run
from support.golden_models import GOLDENS, MODEL_CASES, MODELS

pytestmark = pytest.mark.usefixtures("one_process")

ASCEND = {"AscendQuant", "AscendDequant", "AscendAntiQuant"}
# The reference fake-quant files that are wrong (a weight quantised twice), cannot be loaded (the ai.onnx opset is
# dropped), or keep a bias in float that we quantise.
REFERENCE_DIFFERS = {"conv_shared_weight", "conv2d_two_opsets", "qat/linear3d"}


def same_numbers(report: ConversionReport, feeds: dict[str, np.ndarray]) -> Stats:
    """Fake-quant equals deploy: bit for bit while float32 holds every accumulator, else to 2**-22 of the largest."""
    evaluator = Evaluator(report.deploy_model)
    deploy = evaluator.run(feeds)
    fake = run(report.fake_quant_model, feeds)
    assert deploy.keys() == fake.keys()
    for name, value in deploy.items():
        assert value.dtype == fake[name].dtype and value.shape == fake[name].shape
        if evaluator.stats.exact_in_float32:
            assert np.array_equal(value, fake[name]), f"{name}: {np.abs(value - fake[name]).max()}"
        else:
            np.testing.assert_allclose(value, fake[name], rtol=0, atol=float(np.abs(value).max()) * 2.0**-22)
    return evaluator.stats


@pytest.mark.parametrize("case", CASES)
def test_fake_quant_equals_deploy(case: str, tmp_path: Path) -> None:
    _, _, report = converted(case, tmp_path)
    stats = same_numbers(report, feeds_of(case))
    assert len(stats.bounds) == len(report.converted) == stats.dequants
    assert stats.quants > 0


@pytest.mark.parametrize("case", CASES)
def test_interface_and_operators(case: str, tmp_path: Path) -> None:
    source_path, _, report = converted(case, tmp_path)
    source = onnx.load(str(source_path), load_external_data=False)
    constants = {t.name for t in source.graph.initializer}
    inputs = [i.SerializeToString() for i in source.graph.input if i.name not in constants]
    outputs = [o.SerializeToString() for o in source.graph.output]
    for path in (report.deploy_model, report.fake_quant_model):
        model = onnx.load(path)
        assert len(model.opset_import) == 1 and model.opset_import[0].domain == ""
        assert [i.SerializeToString() for i in model.graph.input] == inputs
        assert [o.SerializeToString() for o in model.graph.output] == outputs
        assert all(n.domain == "" for n in model.graph.node)
        assert not op_types(model.graph.node) & {"QuantizeLinear", "DequantizeLinear"}
        names = [n.name for n in model.graph.node]
        assert len(set(names)) == len(names) and "" not in names
    fake = onnx.load(report.fake_quant_model)
    assert not op_types(fake.graph.node) & ASCEND
    onnx.checker.check_model(fake, full_check=True)


@pytest.mark.parametrize("case", [c for c in CASES if c not in MODEL_CASES and c not in REFERENCE_DIFFERS])
def test_fake_quant_equals_reference(case: str, tmp_path: Path) -> None:
    _, _, report = converted(case, tmp_path)
    feeds = feeds_of(case)
    ours, theirs = run(report.fake_quant_model, feeds), run(GOLDENS / case / "m_fake_quant_model.onnx", feeds)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.array_equal(ours[name], value), f"{name}: {np.abs(ours[name] - value).max()}"


# conv_ties: rounding ties, where multiplying by the reciprocal and dividing may round apart.
@pytest.mark.parametrize("case", [c for c in CASES if c not in MODEL_CASES and c != "conv_ties"])
def test_fake_quant_is_close_to_source(case: str, tmp_path: Path) -> None:
    source, valid, report = converted(case, tmp_path)
    if not valid:
        pytest.skip("the source is not valid ONNX")
    feeds = feeds_of(case)
    fake, expected = run(report.fake_quant_model, feeds), run(source, feeds, qdq_source=True)
    for name, value in expected.items():
        np.testing.assert_allclose(fake[name], value, rtol=0, atol=2e-4 * max(1.0, float(np.abs(value).max())))


@pytest.mark.parametrize("case", MODEL_CASES)
def test_tidy_model_on_its_test_set(case: str, tmp_path: Path) -> None:
    source, _, report = converted(case, tmp_path)
    assert report.layers and {e.name for e in report.refused} == set(), report.summary()
    data = np.load(MODELS / case / "testset.npz")
    (name,) = feeds_of(case)
    feeds = {name: data["x"]}
    same_numbers(report, feeds)
    (fake,) = run(report.fake_quant_model, feeds).values()
    (expected,) = run(source, feeds, qdq_source=True).values()
    if data["y"].ndim == 1:
        truth = data["y"]
        assert int((fake.argmax(1) != expected.argmax(1)).sum()) <= 1
        assert abs(int((fake.argmax(1) == truth).sum()) - int((expected.argmax(1) == truth).sum())) <= 1
    else:
        ours, theirs = (float(np.square(v - data["y"]).mean()) for v in (fake, expected))
        assert abs(ours - theirs) <= 0.01 * theirs
