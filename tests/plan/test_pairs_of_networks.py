"""Pairs that are left in networks of which onnxruntime quantized every tensor."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from amct_onnx import convert_qat_model
from support.deploy_evaluator import Evaluator, run
from support.quantized_networks import feeds, quantized


@pytest.mark.parametrize(
    ("kind", "choice", "quants", "antiquants", "elements"),
    [
        ("dense", "keep", 10, 5, 51_200),
        ("dense", "drop", 5, 0, 30_720),
        ("ocr", "keep", 19, 16, 50_256),
        ("ocr", "drop", 5, 2, 12_304),
    ],
)
def test_pairs_left(kind: str, choice: str, quants: int, antiquants: int, elements: int, tmp_path: Path) -> None:
    report = convert_qat_model(quantized(kind, tmp_path), tmp_path / "out" / "m", residual_quantizers=choice)
    deploy = onnx.load(report.deploy_model)
    evaluator = Evaluator(report.deploy_model)
    found, fake = evaluator.run(feeds(1)), run(report.fake_quant_model, feeds(1))
    assert all((found[name] == fake[name]).all() for name in found)
    passed = [n for n in deploy.graph.node if n.op_type in ("AscendQuant", "AscendAntiQuant")]
    assert len(report.converted) == 5
    assert sum(n.op_type == "AscendQuant" for n in passed) == quants and len(passed) == quants + antiquants
    assert sum(evaluator.values[n.output[0]].size for n in passed) == elements
