"""The bias verb: afterwards source and fake-quant agree to float rounding, and the rest of the file is as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.normalise.opset import OLDEST_OPSET
from amct_onnx.verbs.bias.report import FLOAT, ROUNDED
from support.bias_cases import SLACK, agrees_to_float_rounding, only_biases_changed, sites_of
from support.deploy_evaluator import run
from support.golden_models import MODELS
from support.random_graphs import Case, cases

ALL_MODELS = sorted(p.name for p in MODELS.iterdir() if (p / "inputs.npz").exists())
CANCELLED = 64
"""The statistics of a random BatchNormalization and the bias behind it differ by less than that."""
QUICK_MODELS = [
    "torchfx_digitsnet_u8_bnqat_op13",  # unfolded QAT: BatchNormalization
    "torchfunc_digitsae_i8sym_ctaxis1_op13",  # ConvTranspose
    "ort_digitstf_qdq_u8_pc",  # MatMul with bias Adds
    "tfmot_digitsnet_op13",  # tf2onnx, grid weights
    "brevitas_biasnet_i8_qcdq_op13",  # biases behind Q/DQ
    "torchfq_digitsnet_i8sym_fp16_dynamo20",  # float16
]


def models(*, slow: bool) -> list[str]:
    names = ALL_MODELS if slow else QUICK_MODELS
    return [n for n in names if (n in QUICK_MODELS) != slow]


def check_model(name: str, folder: Path) -> None:
    source = MODELS / name / "model.onnx"
    data = np.load(MODELS / name / "inputs.npz")
    constants = {t.name for t in onnx.load(str(source), load_external_data=False).graph.initializer}
    graph = onnx.load(str(source), load_external_data=False).graph
    feeds = {i.name: data[i.name] for i in graph.input if i.name not in constants}
    report = agrees_to_float_rounding(source, folder, feeds)
    assert not report.unreachable
    for entry, site in ((e, sites_of(source).get(e.name)) for e in report.layers):
        assert (entry.action == FLOAT) == (site is None)
        if site is not None and site.bias is not None and site.float_type == ir.DataType.FLOAT:
            assert entry.after is not None and entry.after.max_steps <= SLACK * max(1, np.abs(site.bias).max())
    only_biases_changed(source, folder / "adapted.onnx", {e.tensor for e in report.layers if e.tensor})


@pytest.mark.parametrize("name", models(slow=False))
def test_real_models(name: str, tmp_path: Path) -> None:
    check_model(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", models(slow=True))
def test_all_other_real_models(name: str, tmp_path: Path) -> None:
    check_model(name, tmp_path)


def test_float16_says_what_its_type_cannot_hold(tmp_path: Path) -> None:
    report = amct_onnx.quantize_bias(MODELS / "torchfq_digitsnet_i8sym_fp16_dynamo20" / "model.onnx", tmp_path / "a")
    rounded = [e for e in report.layers if e.action == ROUNDED]
    assert rounded
    sites = sites_of(tmp_path / "a")
    for entry in rounded:
        error = sites[entry.name].bias_error
        assert entry.after is not None and error is not None
        np.testing.assert_allclose(entry.after.max_steps, np.abs(error / sites[entry.name].deq_scale).max(), rtol=1e-6)


def test_command_prints_each_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(MODELS / "torchfx_mlp3d_u8_op13" / "model.onnx")
    assert main(["bias", "--model", source, "--output", str(tmp_path / "adapted.onnx")]) == 0
    text = capsys.readouterr().out
    assert "Before (LSB)" in text and "candidate layers have rounded biases now" in text


def check_case(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(case.model, str(folder / "source.onnx"))
        try:
            report = amct_onnx.quantize_bias(folder / "source.onnx", folder / "adapted.onnx")
        except amct_onnx.UnsupportedModelError as error:
            # what ATC would misread: an output_shape on an input whose size nothing tells
            assert any(n in str(error) for n in ("output_shape", "auto_pad"))
            return
        assert sorted(e.name for e in report.layers) == sorted(case.layers)
        before, after = sites_of(folder / "source.onnx"), sites_of(folder / "adapted.onnx")
        assert before.keys() == after.keys()
        unreachable = {e.name for e in report.unreachable}
        # onnx's converter makes other nodes of all of them
        assert not unreachable or case.model.opset_import[0].version < OLDEST_OPSET
        for name, site in before.items():
            if name in unreachable:
                continue
            left = after[name].bias_error
            assert (site.bias is None) == (left is None)
            if site.bias is not None and left is not None:
                largest = np.abs(site.bias).max(initial=1)
                # beyond 2^21 steps float32 does not hold each half step
                moved = np.abs(after[name].bias.astype(np.int64) - site.bias)
                assert np.all(moved <= np.floor(2 * SLACK * np.abs(site.bias))), name
                # what a BatchNormalization subtracts may be larger than what is left
                terms = CANCELLED if any("BatchNormalization" in n for n in site.absorbed) else 1
                assert np.all(np.abs(left) <= SLACK * terms * largest * site.deq_scale), name
        only_biases_changed(
            folder / "source.onnx", folder / "adapted.onnx", {e.tensor for e in report.layers if e.tensor}
        )
        run(folder / "adapted.onnx", case.feeds, qdq_source=True)


QUICK = settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.generate,),  # shrinking a graph takes minutes
)


@QUICK
@given(cases(exact=False))
def test_random_graphs(case: Case) -> None:
    check_case(case)


@pytest.mark.slow
@settings(QUICK, max_examples=1500, derandomize=False)
@given(cases(exact=False))
def test_many_random_graphs(case: Case) -> None:
    check_case(case)
